"""`kdbench status`: how far a run is."""

import argparse
from pathlib import Path
from typing import Any

from kdbench.cli import options
from kdbench.errors import EXIT_INCOMPLETE, EXIT_OK


def add_parser(commands: Any) -> None:
    parser = options.add_command(commands, "status", execute, "what of a run is done, running, failed and to do")
    parser.add_argument("results", type=Path, metavar="DIR", help="a results folder, also one that a run is at work in")
    options.add_json(parser)


def execute(args: argparse.Namespace) -> int:
    from kdbench.results.folder import Results
    from kdbench.results.schema import FINISHED
    from kdbench.results.status import standing

    found = standing(Results(args.results))
    if args.json:
        options.print_json(
            {
                "cells": dict(found.total),
                "pairs": {pair: dict(counts) for pair, counts in found.by_pair.items()},
                "errors": dict(found.errors),
                "throughput": {"measured": found.measured, "planned": found.to_measure},
                "seconds_left": found.seconds_left,
            }
        )
    else:
        _show(found)
    complete = set(found.total) <= FINISHED and found.measured == found.to_measure
    return EXIT_OK if complete else EXIT_INCOMPLETE


def _show(found: Any) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from kdbench.engines.display import duration

    console = Console(highlight=False)
    statuses = list(found.total)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("pair")
    for status in statuses:
        table.add_column(status, justify="right")
    for pair, counts in [*found.by_pair.items(), ("all", found.total)]:
        table.add_row(pair, *(str(counts[status] or "-") for status in statuses))
    console.print(table)
    for error, count in found.errors.most_common():
        console.print(f"{count} x {error}", markup=False, soft_wrap=True)
    if found.to_measure:
        console.print(f"throughput: {found.measured} of {found.to_measure} measured")
    if found.seconds_left is not None:
        console.print(f"about {duration(found.seconds_left)} left for {found.left} cells")
    elif found.left:
        console.print(f"nothing runs; this goes on: {found.command}", markup=False, soft_wrap=True)
