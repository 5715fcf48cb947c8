"""Writing the report folder: report.md with figures/*.png and *.svg, csv/*.csv, latex/*.tex, report.json."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from kdbench.records import write_bytes
from kdbench.report.content import Content
from kdbench.report.latex import documents
from kdbench.report.markdown import page
from kdbench.report.notes import notes
from kdbench.report.tables import csv_tables

Format = Literal["md", "csv", "latex", "json"]
FORMATS: tuple[Format, ...] = get_args(Format)
USUAL: tuple[Format, ...] = ("md", "csv")


def build_report(content: Content, out: Path, formats: Sequence[Format] = USUAL) -> list[Path]:
    """Write the report of a study into `out`, each file atomically.

    Returns:
        the files, in the order they were written.

    Raises:
        KdbenchError: a folder that cannot be written.
    """
    files: dict[str, bytes] = {}
    if "csv" in formats:
        tables = csv_tables(content)
        files |= {f"csv/{name}.csv": table.to_csv(index=False).encode() for name, table in tables.items()}
    if "latex" in formats:
        files |= {f"latex/{name}.tex": source.encode() for name, source in documents(content).items()}
    if "json" in formats:
        files["report.json"] = _json(content).encode()
    if "md" in formats:
        files |= _illustrated(content)
    for name, data in files.items():
        write_bytes(out / name, data)
    return [out / name for name in files]


def _illustrated(content: Content) -> dict[str, bytes]:
    """The figures and the page that embeds them."""
    # Matplotlib is slow to import, and the other formats do without.
    from kdbench.report import plots

    planned = plots.planned(content)
    files = {f"figures/{name}": data for name, data in plots.rendered(planned, content).items()}
    return files | {"report.md": page(content, [(f"figures/{plot.name}.png", plot.title) for plot in planned]).encode()}


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
