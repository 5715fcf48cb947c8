"""`kdbench report`: tables and plots from the records alone."""

import argparse
import gc
from pathlib import Path
from typing import Any

from kdbench.cli import options
from kdbench.errors import unknown_name


def add_parser(commands: Any) -> None:
    parser = options.add_command(commands, "report", execute, "rebuild tables and plots from the records")
    parser.add_argument("results", type=Path, metavar="DIR", help="a results folder, as `kdbench run` wrote it")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to write (default: DIR/report)")
    parser.add_argument(
        "--format",
        default="md,csv",
        metavar="LIST",
        help="md (a page with figures), csv, latex (booktabs tables), json; several with commas (default: md,csv)",
    )
    options.add_json(parser)


def execute(args: argparse.Namespace) -> int:
    from rich.console import Console

    from kdbench.records import Results

    out = args.out or args.results / "report"
    files = write_and_show(Results(args.results), out, None if args.json else Console(), _formats(args.format))
    if args.json:
        options.print_json({"report": [str(file) for file in files]})
    return 0


def write_and_show(results: Any, out: Path, console: Any, formats: Any = None) -> list[Path]:
    """Write the report and, given a console, print its tables."""
    from kdbench.analysis.frames import load
    from kdbench.report.build import USUAL, build_report
    from kdbench.report.content import collect
    from kdbench.report.terminal import print_report

    content = collect(load(results))
    # Plan and records stay to the end; of 100,000 cells the collector would walk through them for seconds.
    gc.freeze()
    files = build_report(content, out, formats or USUAL)
    if console is not None:
        print_report(content, console)
        page = next((file for file in files if file.suffix == ".md"), out)
        console.print(f"report: {page}", highlight=False, markup=False, soft_wrap=True)
    return files


def _formats(text: str) -> list[str]:
    from kdbench.report.build import FORMATS

    words = [word.strip() for word in text.split(",")]
    for word in words:
        if word not in FORMATS:
            raise unknown_name("format of a report", word, FORMATS)
    return words
