"""`kdbench report`: tables and plots from the records alone."""

import gc
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from kdbench.cli import options
from kdbench.cli.console import open_console, print_json, say
from kdbench.errors import unknown_name

if TYPE_CHECKING:
    from rich.console import Console

    from kdbench.report.build import Format
    from kdbench.results.folder import Results

Style = Literal["screen", "paper"]


def report(
    results: options.Results,
    /,
    *,
    out: options.Folder = None,
    format: Annotated[str | None, Parameter(metavar="LIST")] = None,
    style: Style = "screen",
    json: options.Json = False,
) -> None:
    """Rebuild tables and plots from the records.

    Args:
        results: A results folder, as `kdbench run` wrote it.
        out: The folder to write to. Default: DIR/report.
        format: What to write, with commas between: html and md (pages with figures), csv, figures (SVG, PNG and PDF),
            latex (booktabs tables), json; or all. Default: md,html,csv, and figures,latex for --style paper.
        style: How figures look; those for a paper are as wide as one column or two, have no title and no caption, and
            go to DIR/report/paper.
    """
    from kdbench.results.folder import Results

    console = None if json else open_console()
    files = write_and_show(Results(results), out or results / "report", console, _formats(format), style)
    if json:
        print_json({"report": [str(file) for file in files]})


def write_and_show(
    results: "Results",
    out: Path,
    console: "Console | None",
    formats: "list[Format] | None" = None,
    style: Style = "screen",
) -> list[Path]:
    """Write the report and, given a console, print its tables."""
    from kdbench.report.build import build_report
    from kdbench.report.content import collect
    from kdbench.report.terminal import print_report
    from kdbench.results.study import load_study

    # Plan, records and figures stay to the end; the collector would walk through them again and again.
    gc.disable()
    try:
        study = load_study(results)
        content = collect(study.finished() or study)
        files = build_report(content, out, formats, style)
    finally:
        gc.enable()
    if console is not None:
        print_report(content, console)
        page = next((file for suffix in (".html", ".md") for file in files if file.suffix == suffix), out)
        say(console, f"report: {page}")
    return files


def _formats(text: str | None) -> "list[Format] | None":
    from kdbench.report.build import FORMATS

    if text is None:
        return None
    words = FORMATS if text == "all" else [word.strip() for word in text.split(",")]
    for word in words:
        if word not in FORMATS:
            raise unknown_name("format of a report", word, FORMATS)
    return [name for word in words for name in FORMATS if name == word]
