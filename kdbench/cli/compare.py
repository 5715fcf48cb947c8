"""`kdbench compare`: what changed from one run to another, without importing torch."""

import argparse
from pathlib import Path
from typing import Any

from kdbench.cli import options
from kdbench.errors import EXIT_OK


def add_parser(commands: Any) -> None:
    parser = options.add_command(
        commands, "compare", execute, "what changed from one run to another: accuracy, relative throughput, memory"
    )
    parser.add_argument("old", type=Path, metavar="RUN_A", help="a results folder: what is compared with")
    parser.add_argument("new", type=Path, metavar="RUN_B", help="another one: better or worse than RUN_A?")
    parser.add_argument(
        "--any-protocol",
        action="store_true",
        help="compare runs of different protocols or splits all the same (by Welch's test; default: refuse)",
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables as Markdown")
    options.add_json(parser)


def execute(args: argparse.Namespace) -> int:
    from rich.console import Console

    from kdbench.analysis.runs import compare_runs
    from kdbench.files import write_bytes
    from kdbench.report.runs import as_json, page, print_comparison
    from kdbench.results.folder import Results
    from kdbench.results.study import load_study

    names = str(args.old), str(args.new)
    comparison = compare_runs(load_study(Results(args.old)), load_study(Results(args.new)), args.any_protocol)
    if args.markdown is not None:
        write_bytes(args.markdown, page(comparison, names).encode())
    if args.json:
        options.print_json(as_json(comparison, names))
    else:
        print_comparison(comparison, names, Console())
    return EXIT_OK
