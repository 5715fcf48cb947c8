"""Writing the report folder: report.md and report.html, figures/, csv/*.csv, latex/*.tex, report.json."""

import hashlib
import json
from base64 import b64encode
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from markupsafe import Markup

from kdbench.files import write_bytes
from kdbench.report import text
from kdbench.report.content import Content
from kdbench.report.latex import documents
from kdbench.report.notes import completeness, notes
from kdbench.report.numeric import numeric_tables
from kdbench.report.parallel import together
from kdbench.report.render import render_template, source
from kdbench.report.sections import Figure, Page, written

if TYPE_CHECKING:
    from kdbench.report.plots import Plot

Format = Literal["md", "html", "csv", "figures", "latex", "json"]
FORMATS: tuple[Format, ...] = get_args(Format)
StyleName = Literal["screen", "paper"]
USUAL: dict[StyleName, tuple[Format, ...]] = {"screen": ("md", "html", "csv"), "paper": ("figures", "latex")}
"""What is written where nothing else is asked for."""
FOLDERS: dict[StyleName, str] = {"screen": "figures", "paper": "paper"}


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
    files: dict[str, str | bytes] = {}
    if "csv" in formats:
        files |= {f"csv/{name}.csv": table.to_csv(index=False) for name, table in numeric_tables(content).items()}
    if {"md", "html", "figures"} & set(formats):
        files |= _illustrated(content, formats, style)
    if "latex" in formats:
        files |= {f"latex/{name}.tex": document for name, document in documents(content).items()}
    if "json" in formats:
        files["report.json"] = _json(content)
    for name, data in sorted(files.items()):
        write_bytes(out / name, data if isinstance(data, bytes) else data.encode())
    return [out / name for name in sorted(files)]


def _illustrated(content: Content, formats: Collection[Format], style: StyleName) -> dict[str, str | bytes]:
    """The figures, and the pages that hold them."""
    # Matplotlib is slow to import, and the other formats do without.
    from kdbench.report import plots

    planned = plots.planned(content)
    slow_first = sorted(planned, key=lambda plot: -plot.slow)
    drawn = together([partial(_drawn, content, plot, formats, style) for plot in slow_first])
    figures = {figure.name: figure for figure, _ in drawn}
    in_order = {plot.name: figures[plot.name] for plot in planned}
    page = Page(content, in_order, [*notes(content), *plots.left_out(content)])
    files: dict[str, str | bytes] = {}
    if {"md", "figures"} & set(formats):
        files |= {name: image for _, images in drawn for name, image in images.items()}
    if "md" in formats:
        files["report.md"] = _page(page, "md")
    if "html" in formats:
        files["report.html"] = _page(page, "html", **_assets())
    return files


def _drawn(
    content: Content, plot: "Plot", formats: Collection[Format], style: StyleName
) -> tuple[Figure, dict[str, bytes]]:
    """A figure as a page shows it, and its files."""
    from kdbench.report.drawing.style import STYLES, render
    from kdbench.report.drawing.svg import inline

    drawing = plot.draw(content, STYLES[style])
    path = f"{FOLDERS[style]}/{plot.name}"
    suffixes = ("pdf", "png", "svg") if "figures" in formats else ("svg",)
    images = {f"{path}.{suffix}": render(drawing, suffix, STYLES[style]) for suffix in suffixes}
    figure = Figure(plot.name, plot.title, f"{path}.svg", plot.tabled, explained=drawing.caption)
    if "html" in formats:
        figure = replace(
            figure,
            svg=inline(plot.name, plot.title, drawing, images[figure.path]),
            caption=f"{drawing.caption} · {plot.scope(content, content.study.pairs)}",
            csv=b64encode(plot.table(content).to_csv(index=False, float_format="%.5g").encode()).decode(),
        )
    return figure, images


def _page(page: Page, suffix: str, **assets: str) -> str:
    """The whole report.html or report.md."""
    content, study = page.content, page.content.study
    size = [text.plural(len(study.pairs), "pair")]
    if content.has_accuracy:
        size += [text.seeds(study), completeness(content)]
    records = study.cells if content.has_accuracy else study.throughput
    return render_template(
        f"report.{suffix}",
        title=f"{study.manifest['suite']}: {'gain and cost' if content.has_accuracy else 'cost'}",
        protocol=study.manifest["protocol"],
        size=size,
        origin=[text.devices(study, records), text.dates(study), f"run {study.run_id}"],
        sections=written(page, suffix),
        skip="table" if content.has_accuracy else "views",
        **assets,
    )


def _assets() -> dict[str, str]:
    """What report.html brings along, and the hash by which its policy knows its script."""
    from kdbench.report.drawing.svg import theme

    style, script = Markup(source("report.css")), Markup(source("report.js"))
    digest = b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return {"theme": theme(), "style": style, "script": script, "digest": digest}


def _json(content: Content) -> str:
    """Plan, notes and the tables of the CSV files, by name: a list of rows each, null where a value is missing."""
    manifest = content.study.manifest
    head = {name: manifest[name] for name in ("suite", "protocol", "command", "pairs", "hetero", "methods", "seeds")}
    head["so_far"] = text.so_far(content.study)
    tables = {
        name: [
            {key: None if value is None or value != value else value for key, value in row.items()}
            for row in table.astype(object).where(table.notna(), None).to_dict("records")
        ]
        for name, table in numeric_tables(content).items()
    }
    return json.dumps({**head, "notes": notes(content), "tables": tables}, ensure_ascii=False) + "\n"
