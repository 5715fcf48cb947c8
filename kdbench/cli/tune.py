"""`kdbench tune`: equal random draws of every method's hyperparameters, judged on the validation split."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdbench.cli import options
from kdbench.errors import EXIT_INCOMPLETE, EXIT_OK

if TYPE_CHECKING:
    from rich.table import Table

    from kdbench.results.tuned import TunedFile

FILE = "tuned.json"


def add_parser(commands: Any) -> None:
    parser = options.add_command(
        commands, "tune", execute, "choose hyperparameters: equal random draws a method, on held-out training images"
    )
    options.add_grid(parser)
    options.add_checkpoint(parser)
    parser.add_argument(
        "--trials", type=options.whole(1, 10_000), default=8, metavar="K", help="draws of every method (default: 8)"
    )
    parser.add_argument("--seeds", default="1", help="how many, or which: 5 or 0,1,2 (default: 1)")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help=f"folder of the records and of {FILE} (default: results/SUITE-tune)"
    )
    options.add_workers(parser)
    options.add_reduction(parser)
    options.add_compute(parser)
    options.add_json(parser)


def execute(args: argparse.Namespace) -> int:
    from rich.console import Console

    from kdbench.files import write_json
    from kdbench.results.folder import Results

    grid = options.read_grid(args)
    grid.add_references()
    suite = options.reduce(grid.suite, args)
    seeds = options.parse_seeds(args.seeds, suite.seeds)
    console = Console(stderr=args.json)

    from kdbench.study.plan import make_plan
    from kdbench.study.run import run
    from kdbench.study.session import Session
    from kdbench.study.tune import choose, with_trials

    grid.drop_broken(args.methods, console)
    compute = options.resolve_compute(args)
    options.store_checkpoint(args, grid, compute)
    console.quiet = compute.replica.rank > 0
    usual = make_plan(
        suite,
        grid.ordered,
        grid.pairs,
        seeds,
        compute=compute,
        data_root=args.data,
        settings=grid.settings,
        split="val",
    )
    plan = with_trials(usual, grid.settings, args.trials)
    folder = args.out or Path("results") / f"{options.folder_name(suite)}-tune"
    results = Results(folder)
    outcome = run(plan, Session(results, args.data, console, args.workers), throughput=False)
    code = EXIT_OK if outcome.complete else EXIT_INCOMPLETE
    if compute.replica.rank > 0:
        return code
    tuned = choose(plan, results, args.trials)
    write_json(folder / FILE, tuned)
    if args.json:
        options.print_json(tuned)
        return code
    console.print(_table(tuned))
    if not outcome.complete:
        console.print("[red]not every trial is done;[/red] the same command tries the rest again")
    told = f"chosen: {folder / FILE}; use it with `--tuned {folder / FILE}`"
    console.print(told, highlight=False, markup=False, soft_wrap=True)
    return code


def _table(tuned: "TunedFile") -> "Table":
    """A line a trial; the chosen ones stand out."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    title = f"validation top-1, mean over {len(tuned['pairs'])} pair(s) x {len(tuned['seeds'])} seed(s)"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    for name in ("method", "trial", "top-1", "values"):
        table.add_column(name, justify="right" if name in ("trial", "top-1") else "left", overflow="fold")
    for name, method in tuned["methods"].items():
        for trial in method["trials"]:
            chosen = trial["trial"] == method["chosen"]
            values = ", ".join(f"{key} {value}" for key, value in trial["values"].items()) or "no search space"
            top1 = "X" if trial["top1"] is None else f"{trial['top1']:.2f}"
            number = str(trial["trial"] or "usual")
            cells = map(Text, (name, number, top1 + ("*" if chosen else " "), values))
            table.add_row(*cells, style="bold" if chosen else None)
    return table
