"use strict";
const root = document.documentElement;
const byId = (id) => document.getElementById(id);
root.classList.add("live");

/* Theme: the system's until the reader chooses; remembered where the browser lets a file remember. */
const dark = matchMedia("(prefers-color-scheme: dark)");
const remembered = (value) => {
  try {
    if (value) localStorage.setItem("kdbench-theme", value);
    return localStorage.getItem("kdbench-theme");
  } catch {
    return null;
  }
};
const themed = (theme) => {
  if (theme === "dark" || theme === "light") root.dataset.theme = theme;
  byId("theme").setAttribute("aria-pressed", String((root.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark"));
};
byId("theme").addEventListener("click", () => {
  const next = byId("theme").getAttribute("aria-pressed") === "true" ? "light" : "dark";
  remembered(next);
  themed(next);
});
dark.addEventListener("change", () => themed());
themed(remembered());

/* Sorting: the number a cell begins with; what has none stays below. */
const number = (cell) => {
  const found = cell.textContent.replaceAll(",", "").match(/^\s*[<+]?\s*(-?\d+(?:\.\d+)?)([kM]?)/);
  return found ? found[1] * { "": 1, k: 1e3, M: 1e6 }[found[2]] : NaN;
};
const sort = (header) => {
  const table = header.closest("table"), column = header.cellIndex, body = table.tBodies[0];
  const keys = new Map([...body.rows].map((row) => [row, column ? number(row.cells[column]) : NaN]));
  const numeric = [...keys.values()].some((key) => !Number.isNaN(key));
  const before = header.getAttribute("aria-sort");
  const order = before === "none" ? (numeric ? "descending" : "ascending") : before === "ascending" ? "descending" : "ascending";
  const sign = order === "ascending" ? 1 : -1;
  const text = (row) => row.cells[column].textContent;
  const compare = (a, b) => {
    if (!numeric) return sign * text(a).localeCompare(text(b), "en");
    const gaps = Number.isNaN(keys.get(a)) - Number.isNaN(keys.get(b));
    return gaps || sign * (keys.get(a) - keys.get(b)) || 0;
  };
  for (const other of header.parentNode.cells) other.setAttribute("aria-sort", other === header ? order : "none");
  body.append(...[...body.rows].sort(compare));
};
for (const header of document.querySelectorAll("thead th")) {
  header.firstElementChild.addEventListener("click", () => sort(header));
}

/* Filters: one measure at a time; rows and columns whose name has any of the words. */
const panes = [...document.querySelectorAll(".pane")];
const wanted = (words, name) => !words.length || words.some((word) => name.toLowerCase().includes(word));
const words = (id) => byId(id).value.toLowerCase().split(/[\s,]+/).filter(Boolean);
const filter = () => {
  const methods = words("methods"), names = words("names"), kind = byId("kind").value;
  panes.forEach((pane, i) => {
    pane.hidden = i !== Number(byId("measure").value);
    const table = pane.querySelector("table");
    const heads = [...table.tHead.rows[0].cells];
    const columns = heads.map(({ dataset: { group, pair } }) => !group || ((!kind || group === kind) && wanted(names, pair ?? "")));
    const rows = [...table.tBodies[0].rows];
    for (const row of rows) row.hidden = !wanted(methods, row.cells[0].textContent);
    for (const row of [table.tHead.rows[0], ...rows]) columns.forEach((shown, j) => { row.cells[j].hidden = !shown; });
    if (pane.hidden) return;
    const pairs = heads.filter((head, j) => head.dataset.pair && columns[j]).length;
    byId("shown").textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} methods, ${pairs} of ${heads.filter((head) => head.dataset.pair).length} pairs`;
  });
};
if (panes.length) {
  document.querySelector(".controls").addEventListener("input", filter);
  document.querySelector(".controls").addEventListener("submit", (event) => event.preventDefault());
  filter();
}

/* Values of marks, by pointer or touch: of the mark under it, or one a few pixels away. */
const tip = byId("tip");
const near = [0, 3, 6, 9].flatMap((r) => (r ? [[r, 0], [-r, 0], [0, r], [0, -r], [r, r], [-r, -r], [r, -r], [-r, r]] : [[0, 0]]));
const point = (event) => {
  let found = null;
  if (event.target.closest?.("figure svg")) {
    for (const [x, y] of near) {
      found = document.elementFromPoint(event.clientX + x, event.clientY + y)?.closest("[data-tip]");
      if (found) break;
    }
  }
  const said = found?.dataset.tip ?? "";
  if (tip.textContent !== said) tip.textContent = said;
  if (!said) return;
  tip.style.left = `${Math.max(4, Math.min(event.clientX + 12, innerWidth - tip.offsetWidth - 4))}px`;
  tip.style.top = `${Math.max(4, event.clientY - tip.offsetHeight - 10)}px`;
};
addEventListener("pointermove", point);
addEventListener("pointerdown", point);
