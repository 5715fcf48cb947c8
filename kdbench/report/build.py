"""Writing the report folder: report.md and report.html, figures/, csv/*.csv, latex/*.tex, report.json."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from kdbench.files import write_bytes
from kdbench.report.content import Content
from kdbench.report.latex import documents
from kdbench.report.markdown import page
from kdbench.report.notes import accuracy_scope, cost_scope, notes
from kdbench.report.parallel import Job, together
from kdbench.report.tables import csv_tables

if TYPE_CHECKING:
    from kdbench.report.plots import Plot

Format = Literal["md", "html", "csv", "figures", "latex", "json"]
FORMATS: tuple[Format, ...] = get_args(Format)
StyleName = Literal["screen", "paper"]
USUAL: dict[StyleName, tuple[Format, ...]] = {"screen": ("md", "html", "csv"), "paper": ("figures", "latex")}
"""What is written where nothing else is asked for."""
FOLDERS: dict[StyleName, str] = {"screen": "figures", "paper": "paper"}

LONG = ("gains", "curves", "phases", "heatmap", "csv", "profile", "html")
"""Those that take longest are begun first, so that two processes end together."""
_PART = ".part"
_FIGURES = "<!-- figures -->"
"""Where the figures go: text that came from a file is escaped, and cannot look like this."""


def build_report(
    content: Content, out: Path, formats: Sequence[Format] | None = None, style: StyleName = "screen"
) -> list[Path]:
    """Write the report of a study into `out`, each file atomically.

    Args:
        content: what to tell.
        out: the folder.
        formats: `md` comes with the figures as SVG; `figures` are they as SVG, PNG and PDF; default: `USUAL`.
        style: of the figures.

    Returns:
        the files, in the order they were written.

    Raises:
        KdbenchError: a folder that cannot be written.
    """
    formats = formats or USUAL[style]
    if {"md", "html", "figures"} & set(formats):
        files = _illustrated(content, formats, style)
    else:
        files = _csv(content) if "csv" in formats else {}
    if "latex" in formats:
        files |= {f"latex/{name}.tex": source.encode() for name, source in documents(content).items()}
    if "json" in formats:
        files["report.json"] = _json(content).encode()
    for name, data in files.items():
        write_bytes(out / name, data)
    return [out / name for name in files]


def _illustrated(content: Content, formats: Sequence[Format], style: StyleName) -> dict[str, bytes]:
    """The figures, the pages that hold them, and the tables that are written beside drawing."""
    # Matplotlib is slow to import, and the other formats do without.
    from kdbench.report import plots

    planned = plots.planned(content)
    jobs: dict[str, Job] = {plot.name: partial(_figure, content, plot, formats, style) for plot in planned}
    lines = [*notes(content), *plots.left_out(content)]
    if "csv" in formats:
        jobs["csv"] = partial(_csv, content)
    if "md" in formats:
        paths = [(f"{FOLDERS[style]}/{plot.name}.svg", plot.title) for plot in planned if not plot.tabled]
        jobs["md"] = lambda: {"report.md": page(content, paths, lines).encode()}
    if "html" in formats:
        jobs["html"] = partial(_html, content, lines)
    in_turn = sorted(jobs, key=lambda name: LONG.index(name) if name in LONG else len(LONG))
    made = together([jobs[name] for name in in_turn])
    files = {name: made[name] for name in sorted(made) if not name.endswith(_PART)}
    if "html" in formats:
        figures = b"".join(made[f"{plot.name}{_PART}"] for plot in planned)
        files["report.html"] = files["report.html"].replace(_FIGURES.encode(), figures, 1)
    return files


def _csv(content: Content) -> dict[str, bytes]:
    return {f"csv/{name}.csv": table.to_csv(index=False).encode() for name, table in csv_tables(content).items()}


def _figure(content: Content, plot: "Plot", formats: Sequence[Format], style: StyleName) -> dict[str, bytes]:
    """The files of a figure, and its part of the page."""
    from kdbench.report.plots.style import STYLES, Format, render

    suffixes: set[Format] = {"svg", "png", "pdf"} if "figures" in formats else {"svg"} if "md" in formats else set()
    drawing = plot.draw(content, STYLES[style])
    rendered = {suffix: render(drawing, suffix, STYLES[style]) for suffix in sorted(suffixes)}
    files = {f"{FOLDERS[style]}/{plot.name}.{suffix}": data for suffix, data in rendered.items()}
    if "html" in formats:
        from kdbench.report.html.page import figure
        from kdbench.report.html.svg import inline

        source = rendered.get("svg") or render(drawing, "svg", STYLES[style])
        scope = (cost_scope if plot.name == "phases" else accuracy_scope)(content, content.study.pairs)
        table = plot.data(content).to_csv(index=False, float_format="%.5g")
        drawn = inline(plot.name, plot.title, drawing, source)
        part = figure(plot.name, plot.title, drawn, f"{drawing.caption} · {scope}", table)
        files[f"{plot.name}{_PART}"] = part.encode()
    return files


def _html(content: Content, lines: Sequence[str]) -> dict[str, bytes]:
    """The page, with a mark where its figures go."""
    from kdbench.report.html.element import Html
    from kdbench.report.html.page import page
    from kdbench.report.html.svg import theme

    return {"report.html": page(content, [Html(_FIGURES)], theme(), lines).encode()}


def _json(content: Content) -> str:
    """Plan, notes and the tables of the CSV files, by name: a list of rows each, null where a value is missing."""
    manifest = content.study.manifest
    head = {name: manifest[name] for name in ("suite", "protocol", "command", "pairs", "hetero", "methods", "seeds")}
    tables = {
        name: [
            {key: None if value is None or value != value else value for key, value in row.items()}
            for row in table.astype(object).where(table.notna(), None).to_dict("records")
        ]
        for name, table in csv_tables(content).items()
    }
    return json.dumps({**head, "notes": notes(content), "tables": tables}, ensure_ascii=False) + "\n"
