"""`kdbench report`: tables and plots from the records alone."""

import argparse
from pathlib import Path
from typing import Any

from kdbench.cli import options


def add_parser(commands: Any) -> None:
    parser = options.add_command(commands, "report", execute, "rebuild tables and plots from the records")
    parser.add_argument("results", type=Path, metavar="DIR", help="a results folder, as `kdbench run` wrote it")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to write (default: DIR/report)")
    options.add_json(parser)


def execute(args: argparse.Namespace) -> int:
    from rich.console import Console

    from kdbench.records import Results

    results = Results(args.results)
    files = write_and_show(results, args.out or args.results / "report", None if args.json else Console())
    if args.json:
        options.print_json({"report": [str(file) for file in files]})
    return 0


def write_and_show(results: Any, out: Path, console: Any) -> list[Path]:
    """Write the report and, given a console, print its tables."""
    from kdbench.analysis.frames import load
    from kdbench.report.build import build_report
    from kdbench.report.terminal import print_report

    files = build_report(results, out)
    if console is not None:
        print_report(load(results), console)
        page = next((file for file in files if file.suffix == ".md"), out)
        console.print(f"report: {page}", highlight=False, soft_wrap=True)
    return files
