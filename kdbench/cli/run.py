"""`kdbench run`: the grid, the throughput phase, the report."""

import argparse
from pathlib import Path
from typing import Any

from kdbench.cli import options
from kdbench.errors import EXIT_INCOMPLETE, EXIT_OK, KdbenchError


def add_parser(commands: Any) -> None:
    parser = options.add_command(
        commands, "run", execute, "train every method on every pair, measure throughput, write the report"
    )
    options.add_grid(parser)
    options.add_checkpoint(parser)
    parser.add_argument("--seeds", help="how many, or which: 5 or 0,1,2 (default: the suite's)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="results folder (default: results/SUITE)")
    parser.add_argument(
        "--split",
        default="test",
        choices=["test", "val"],
        help="val: hold out a part of train, to choose things on",
    )
    parser.add_argument(
        "--best",
        action="store_true",
        help="read the test split for the whole learning curve, for the best epoch that much of the literature reports "
        "(default: read it once, after the last epoch)",
    )
    parser.add_argument(
        "--tuned", type=Path, metavar="FILE", help="hyperparameters that `kdbench tune` chose; --set goes before them"
    )
    parser.add_argument(
        "--equal-time",
        action="store_true",
        help="also train the control for as long as each method takes (by the throughput measured), to compare with",
    )
    options.add_engine(parser)
    options.add_limits(parser)
    parser.add_argument("--no-throughput", dest="throughput", action="store_false", help="accuracy only")
    parser.add_argument("--no-report", dest="report", action="store_false", help="records only")
    options.add_reduction(parser)
    options.add_compute(parser)
    options.add_json(parser)


def execute(args: argparse.Namespace) -> int:
    from rich.console import Console

    from kdbench.results.folder import Results
    from kdbench.results.tuned import read_tuned

    if args.equal_time and not args.throughput:
        raise KdbenchError("--equal-time goes by the measured throughput; leave --no-throughput out")
    if args.equal_time and not args.shard.whole:
        raise KdbenchError("--equal-time goes by the throughput of all pairs; run it without --shard when all are done")
    grid = options.read_grid(args)
    suite = options.reduce(grid.suite, args)
    seeds = options.parse_seeds(args.seeds, suite.seeds)
    console = Console(stderr=args.json)
    grid.add_references()

    from kdbench.study.equal_time import train_control
    from kdbench.study.plan import make_plan
    from kdbench.study.run import run

    grid.drop_broken(args.methods, console)
    compute = options.resolve_compute(args)
    options.store_checkpoint(args, grid, compute)
    console.quiet = compute.replica.rank > 0
    plugins = grid.ordered
    tuned = read_tuned(args.tuned, suite.protocol, [plugin.name for plugin in plugins]) if args.tuned else None
    plan = make_plan(
        suite,
        plugins,
        grid.pairs,
        seeds,
        compute=compute,
        data_root=args.data,
        settings=grid.settings,
        split=args.split,
        best=args.best,
        tuned=tuned,
        shard=args.shard,
    )
    folder = args.out or Path("results") / (options.folder_name(suite) + ("" if args.split == "test" else "-val"))
    results = Results(folder)
    session = options.make_session(args, results, console, compute)
    outcome = run(plan, session, args.throughput)
    if args.equal_time:
        outcome += train_control(plan, session)
    if compute.replica.rank > 0:
        return EXIT_OK if outcome.complete else EXIT_INCOMPLETE
    files = _report(results, console, quiet=args.json) if args.report else []
    if args.json:
        options.print_json({"results": str(folder), "cells": outcome.statuses, "report": [str(file) for file in files]})
    elif not outcome.complete:
        left = ", ".join(f"{count} {status}" for status, count in sorted(outcome.statuses.items()))
        of = "" if args.shard.whole else f" of {args.shard}"
        console.print(f"[red]not every cell{of} is done:[/red] {left}; the same command tries the rest again")
        for error, count in outcome.errors.items():
            console.print(f"  {count} x {error}", highlight=False, markup=False, soft_wrap=True)
    return EXIT_OK if outcome.complete else EXIT_INCOMPLETE


def _report(results: Any, console: Any, quiet: bool) -> list[Path]:
    from kdbench.cli.report import write_and_show

    return write_and_show(results, results.folder / "report", None if quiet else console)
