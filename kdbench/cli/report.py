"""`kdbench report`: tables and plots from the records alone."""

import argparse
import gc
from pathlib import Path
from typing import Any, Literal

from kdbench.cli import options
from kdbench.errors import unknown_name


def add_parser(commands: Any) -> None:
    parser = options.add_command(commands, "report", execute, "rebuild tables and plots from the records")
    parser.add_argument("results", type=Path, metavar="DIR", help="a results folder, as `kdbench run` wrote it")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to write (default: DIR/report)")
    parser.add_argument(
        "--format",
        metavar="LIST",
        help="html and md (pages with figures), csv, figures (SVG, PNG and PDF), latex (booktabs tables), json; "
        "several with commas, or all (default: md,html,csv; of --style paper: figures,latex)",
    )
    parser.add_argument(
        "--style",
        default="screen",
        choices=["screen", "paper"],
        help="of the figures; paper: as wide as one column or two, without title and caption, into DIR/report/paper",
    )
    options.add_json(parser)


def execute(args: argparse.Namespace) -> int:
    from rich.console import Console

    from kdbench.results.folder import Results

    out = args.out or args.results / "report"
    console = None if args.json else Console()
    files = write_and_show(Results(args.results), out, console, _formats(args.format), args.style)
    if args.json:
        options.print_json({"report": [str(file) for file in files]})
    return 0


def write_and_show(
    results: Any, out: Path, console: Any, formats: Any = None, style: Literal["screen", "paper"] = "screen"
) -> list[Path]:
    """Write the report and, given a console, print its tables."""
    from kdbench.report.build import build_report
    from kdbench.report.content import collect
    from kdbench.report.terminal import print_report
    from kdbench.results.study import load_study

    # Plan, records and figures stay to the end; the collector would walk through them again and again.
    gc.disable()
    try:
        content = collect(load_study(results))
        files = build_report(content, out, formats, style)
    finally:
        gc.enable()
    if console is not None:
        print_report(content, console)
        page = next((file for suffix in (".html", ".md") for file in files if file.suffix == suffix), out)
        console.print(f"report: {page}", highlight=False, markup=False, soft_wrap=True)
    return files


def _formats(text: str | None) -> list[str] | None:
    from kdbench.report.build import FORMATS

    if text is None:
        return None
    if text == "all":
        return list(FORMATS)
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if word not in FORMATS:
            raise unknown_name("format of a report", word, FORMATS)
    return words
