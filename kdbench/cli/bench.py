"""`kdbench bench`: the throughput phase alone, nothing is trained to its end."""

import argparse
from pathlib import Path
from typing import Any

from kdbench.cli import options
from kdbench.errors import EXIT_INCOMPLETE, EXIT_OK


def add_parser(commands: Any) -> None:
    parser = options.add_command(
        commands, "bench", execute, "measure the training throughput of methods, without training them"
    )
    options.add_grid(parser)
    options.add_checkpoint(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="results folder (default: results/SUITE-bench)")
    options.add_compute(parser)
    options.add_json(parser)


def execute(args: argparse.Namespace) -> int:
    from rich.console import Console

    from kdbench.results.folder import Results

    grid = options.read_grid(args)
    console = Console(stderr=args.json)
    grid.add_references()

    from kdbench.cli.report import write_and_show
    from kdbench.study.plan import make_plan
    from kdbench.study.run import bench
    from kdbench.study.session import Session

    grid.drop_broken(args.methods, console)
    compute = options.resolve_compute(args)
    options.store_checkpoint(args, grid, compute)
    plan = make_plan(
        grid.suite, grid.ordered, grid.pairs, [], compute=compute, data_root=args.data, settings=grid.settings
    )
    results = Results(args.out or Path("results") / f"{grid.suite.name}-bench")
    outcome = bench(plan, Session(results, args.data, console))
    files = write_and_show(results, results.folder / "report", None if args.json else console)
    if args.json:
        options.print_json(
            {
                "results": str(results.folder),
                "measurements": outcome.statuses,
                "report": [str(file) for file in files],
            }
        )
    for error, count in outcome.errors.items():
        console.print(f"  {count} x {error}", highlight=False, markup=False, soft_wrap=True)
    return EXIT_OK if outcome.complete else EXIT_INCOMPLETE
