"""Writing the report folder: report.md, csv/*.csv and figures/*.png and *.svg."""

from pathlib import Path

from kdbench.analysis.frames import load
from kdbench.records import Results, write_bytes
from kdbench.report.content import collect
from kdbench.report.markdown import page
from kdbench.report.plots import FORMATS, draw, render
from kdbench.report.tables import csv_tables


def build_report(results: Results, out: Path | None = None) -> list[Path]:
    """Write the report of `results` into `out` (default: `report` in its folder), each file atomically.

    Returns:
        the files, in the order they were written.

    Raises:
        KdbenchError: no manifest, records of different protocols, or a folder that cannot be written.
    """
    out = out or results.folder / "report"
    content = collect(load(results))
    files = {f"csv/{name}.csv": table.to_csv(index=False).encode() for name, table in csv_tables(content).items()}
    embedded = []
    for plot in draw(content):
        files |= {f"figures/{plot.name}.{suffix}": render(plot.figure, suffix) for suffix in FORMATS}
        embedded.append((f"figures/{plot.name}.png", plot.title))
    files["report.md"] = page(content, embedded).encode()
    for name, data in files.items():
        write_bytes(out / name, data)
    return [out / name for name in files]
