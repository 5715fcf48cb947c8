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
  const first = header.dataset.first ?? (numeric ? "descending" : "ascending");
  const order = before === "none" ? first : before === "ascending" ? "descending" : "ascending";
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

/* What is shown: methods by chips and names, pairs and measure of the tables below; all of it is in the address. */
const panes = [...document.querySelectorAll(".pane")];
const chips = [...document.querySelectorAll(".chip")];
const rows = [...document.querySelectorAll("#table tbody tr, #views tbody tr")];
const called = (row) => row.cells[0].querySelector("a")?.textContent ?? row.cells[0].textContent;
const every = new Set(rows.map((row) => called(row).toLowerCase()));
const split = (text) => text.toLowerCase().split(/[\s,]+/).filter(Boolean);
/* A word that is the name of a method means that method alone; any other is a part of names. */
const named = (words, name) => !words.length || words.some((word) => (every.has(word) ? name === word : name.includes(word)));
const wanted = (words, name) => !words.length || words.some((word) => name.toLowerCase().includes(word));
const fields = { methods: "methods", pairs: "names", measure: "measure", group: "group" };
const value = (id) => byId(id)?.value ?? "";
const pressed = (element) => element?.getAttribute("aria-pressed") === "true";
const press = (element, on) => element?.setAttribute("aria-pressed", String(on));

const chosen = (row) => {
  const groups = Map.groupBy(chips.filter(pressed), (chip) => chip.dataset.filter);
  /* Control and baseline stay: the others are read against them. */
  return row.dataset.shown === undefined || row.className || [...groups].every(([group, own]) => own.some((chip) => row.dataset[group] === chip.dataset.value));
};
const show = () => {
  const words = split(value("methods")), pairs = split(value("names")), group = value("group");
  for (const row of rows) row.hidden = !(named(words, called(row).toLowerCase()) && chosen(row));
  panes.forEach((pane, i) => {
    pane.hidden = i !== Number(value("measure") || 0);
    const table = pane.querySelector("table");
    const heads = [...table.tHead.rows[0].cells];
    const columns = heads.map(({ dataset }) => !dataset.group || ((!group || dataset.group === group) && wanted(pairs, dataset.pair ?? "")));
    for (const row of [table.tHead.rows[0], ...table.tBodies[0].rows]) columns.forEach((shown, j) => { row.cells[j].hidden = !shown; });
    if (pane.hidden) return;
    const all = heads.filter((head) => head.dataset.pair);
    byId("pairs-shown").textContent = `${heads.filter((head, j) => head.dataset.pair && columns[j]).length} of ${all.length} pairs`;
  });
  const own = rows.filter((row) => row.closest("#table"));
  const names = (some) => new Set(some.map(called)).size;
  if (own.length) byId("shown").textContent = `${names(own.filter((row) => !row.hidden))} of ${names(own)} methods`;
  root.classList.toggle("wide", pressed(byId("more")));
};
const remember = () => {
  const state = new URLSearchParams();
  for (const chip of chips.filter(pressed)) state.append(chip.dataset.filter, chip.dataset.value);
  for (const [key, id] of Object.entries(fields)) if (value(id) && value(id) !== "0") state.set(key, value(id));
  if (pressed(byId("more"))) state.set("columns", "all");
  history.replaceState(null, "", String(state) ? `#${state}` : location.pathname + location.search);
};
const recall = () => {
  if (location.hash && !location.hash.includes("=")) return;
  const state = new URLSearchParams(location.hash.slice(1));
  for (const chip of chips) press(chip, state.getAll(chip.dataset.filter).includes(chip.dataset.value));
  for (const [key, id] of Object.entries(fields)) {
    const field = byId(id);
    if (field) field.value = state.get(key) ?? (field.id === "measure" ? "0" : "");
  }
  press(byId("more"), state.get("columns") === "all");
  show();
};
const change = () => { show(); remember(); };
for (const form of document.querySelectorAll(".controls")) {
  form.addEventListener("input", change);
  form.addEventListener("submit", (event) => event.preventDefault());
}
for (const button of [...chips, byId("more")]) {
  button?.addEventListener("click", () => { press(button, !pressed(button)); change(); });
}
byId("reset")?.addEventListener("click", () => {
  for (const chip of chips) press(chip, false);
  byId("methods").value = "";
  change();
});
show();
recall();

/* A link to what is folded opens it; on paper all is open. */
const unfold = () => {
  const target = location.hash && !location.hash.includes("=") ? byId(location.hash.slice(1)) : null;
  for (let folded = target?.closest("details"); folded; folded = folded.parentElement.closest("details")) folded.open = true;
};
addEventListener("hashchange", () => { recall(); unfold(); });
unfold();
addEventListener("beforeprint", () => {
  for (const folded of document.querySelectorAll("details:not([open])")) {
    folded.open = true;
    folded.dataset.printed = "";
  }
});
addEventListener("afterprint", () => {
  for (const folded of document.querySelectorAll("details[data-printed]")) {
    folded.open = false;
    delete folded.dataset.printed;
  }
});

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
