"""The page as a whole."""

import hashlib
from base64 import b64encode
from collections.abc import Sequence
from importlib.resources import files

from kdbench.report import text
from kdbench.report.content import Content
from kdbench.report.environment import told
from kdbench.report.html.element import Child, Html, element
from kdbench.report.html.tables import matrices, section_table
from kdbench.report.notes import completeness
from kdbench.report.sections import group_sections, pair_sections

PARTS = {"table": "Methods by pairs", "means": "Means", "figures": "Figures", "pairs": "Pair by pair"} | {
    "notes": "Notes",
    "environment": "Environment",
    "command": "Command",
}
"""The parts of the page by their id, in order."""


def page(content: Content, figures: Sequence[Html], colours: str, notes: Sequence[str]) -> str:
    """The whole page.

    Args:
        content: what to tell.
        figures: what `figure` gave.
        colours: those of the figures, as CSS declarations.
        notes: one line each.
    """
    manifest = content.study.manifest
    script, style = _asset("report.js"), _asset("report.css").replace("/* figures */", colours)
    title = f"{manifest['suite']}: {'gain and cost' if content.has_accuracy else 'cost'}"
    parts: dict[str, Child] = {
        "table": _explorer(content),
        "means": [section_table(one) for group in content.study.groups for one in group_sections(content, group)],
        "figures": figures,
        "pairs": [_pair(content, pair) for pair in content.study.pairs],
        "notes": element("ul", [element("li", line) for line in notes]) if notes else "Nothing to note.",
        "environment": _environments(content),
        "command": element("pre", element("code", manifest["command"])),
    }
    parts = {name: part for name, part in parts.items() if part}
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_policy(script)),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{title} ({manifest['protocol']})"),
        Html(f"<style>{style}</style>"),
    )
    sections = [element("section", element("h2", PARTS[name]), part, id=name) for name, part in parts.items()]
    body = element(
        "body",
        element("a", "Skip to the table", href="#table", class_="skip"),
        element("header", element("h1", title), _toggle(), element("p", _summary(content)), _contents(list(parts))),
        element("main", sections),
        element("div", id="tip", role="status"),
        Html(f"<script>{script}</script>"),
    )
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def figure(name: str, title: str, drawing: Html, caption: str, table: str) -> Html:
    """A figure with what stands under it, and its numbers (`table`, a CSV) to be saved."""
    csv = f"data:text/csv;charset=utf-8;base64,{b64encode(table.encode()).decode()}"
    return element(
        "figure",
        element("h3", title),
        element("div", drawing, class_="scroll", tabindex="0", role="region", aria_label=title),
        element("figcaption", caption, " ", element("a", f"{name}.csv", href=csv, download=f"{name}.csv")),
        id=f"figure-{name}",
    )


def _policy(script: str) -> str:
    """Nothing is loaded, and no script runs but the page's own."""
    digest = b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def _asset(name: str) -> str:
    return files("kdbench.report.html").joinpath(name).read_text("utf-8")


def _summary(content: Content) -> str:
    study = content.study
    parts = [f"Protocol {study.manifest['protocol']}", text.plural(len(study.pairs), "pair")]
    if content.has_accuracy:
        parts += [text.plural(len(study.manifest["seeds"]), "seed"), completeness(content)]
    records = study.cells if content.has_accuracy else study.throughput
    return " · ".join([*parts, text.devices(study, records), text.dates(study), f"run {study.run_id}"])


def _toggle() -> Html:
    return element("button", "Dark", id="theme", type="button", aria_pressed="false")


def _contents(parts: list[str]) -> Html:
    links = [element("li", element("a", PARTS[name], href=f"#{name}")) for name in parts]
    return element("nav", element("ul", links), aria_label="Contents")


def _explorer(content: Content) -> list[Html]:
    tables = matrices(content)
    kinds = [element("option", "all", value=""), *(element("option", group) for group in content.study.groups)]
    measures = [element("option", name, value=str(number)) for number, (name, _) in enumerate(tables)]
    controls = element(
        "form",
        element("label", "Measure ", element("select", measures, id="measure")),
        element("label", "Methods ", element("input", id="methods", type="search", placeholder="any of: kd ofa")),
        element("label", "Pairs ", element("input", id="names", type="search", placeholder="any of: vit swin")),
        element("label", "Kind ", element("select", kinds, id="kind")),
        element("span", id="shown", role="status"),
        class_="controls",
    )
    legend = [text.LEGEND, text.SCOPE] if content.has_accuracy else [text.SPEED_LEGEND]
    if content.own_published:
        legend.append(f"○ published. {text.PUBLISHED_LEGEND}")
    panes = [element("div", table, class_="pane") for _, table in tables]
    return [controls, *panes, element("p", " ".join(legend), class_="under")]


def _pair(content: Content, pair: str) -> Html:
    tables = [section_table(section) for section in pair_sections(content, pair)]
    return element("details", element("summary", pair), tables)


def _environments(content: Content) -> Child:
    found = []
    for name, environment in content.study.environments.items():
        lines = [(element("dt", field), element("dd", value)) for field, value in told(environment)]
        found.append([element("h3", name), element("dl", lines)])
    return found or "Not recorded."
