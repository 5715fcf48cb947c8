"""`kdbench baseline update|show`: the frozen numbers that `kdbench check` holds results against."""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kdbench.cli import options
from kdbench.errors import EXIT_INCOMPLETE, EXIT_OK, KdbenchError


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "baseline", help="make, or look at, what `kdbench check` holds results against", allow_abbrev=False
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    update = options.add_command(
        verbs, "update", execute_update, "write the baseline from results, and print it against the old one"
    )
    update.add_argument(
        "results", type=Path, metavar="DIR", help="a results folder, as `kdbench run --seeds 20` wrote it"
    )
    update.add_argument("--out", type=Path, metavar="FILE", help="default: baselines/SUITE.json")
    update.add_argument(
        "--add",
        action="store_true",
        help="add the seeds, methods and pairs of these results to the baseline there is, instead of replacing it",
    )
    update.add_argument(
        "--provisional", action="store_true", help="accept fewer than 20 seeds or a changed tree; the file is marked so"
    )
    update.add_argument(
        "--accept-spread",
        action="store_true",
        help="freeze cells, too, whose seeds spread by more than 3 points or of which one lies more than 10 points "
        "below the median; without this option they are named and nothing is written",
    )
    options.add_json(update)
    show = options.add_command(verbs, "show", execute_show, "print a baseline; exit code 2 for a provisional one")
    show.add_argument("file", nargs="?", type=Path, metavar="FILE", help="default: baselines/proxy.json")
    options.add_json(show)


def execute_update(args: argparse.Namespace) -> int:
    from rich.console import Console

    from kdbench.gate.baseline import changes, default_path, doubt, load_baseline, make_baseline, scattered
    from kdbench.gate.joining import join_baselines
    from kdbench.gate.tables import changes_as_json, print_baseline, print_changes, scattered_lines
    from kdbench.results.folder import Results
    from kdbench.results.study import read_study

    new = make_baseline(read_study(Results(args.results)))
    path = args.out or default_path(new.suite)
    old = load_baseline(path) if args.add or path.is_file() else None
    if old and args.add:
        new = join_baselines(old, new)
    if not args.provisional and (reason := doubt(new.seeds, new.environments)):
        raise KdbenchError(reason)
    wide = scattered_lines(scattered(new))
    if wide and not args.accept_spread:
        raise KdbenchError(
            f"{len(wide)} of {len(new.cells)} cells are too scattered to judge by: {'; '.join(wide)}; find out why "
            "their trainings fail, or freeze them as they are with --accept-spread"
        )
    new.write(path)
    rows = changes(old, new) if old else []
    if args.json:
        options.print_json(
            {
                "baseline": str(path),
                "provisional": new.provisional,
                "scattered": [asdict(cell) for cell in scattered(new)],
                "changes": changes_as_json(rows),
            }
        )
        return EXIT_OK
    console = Console()
    if rows:
        print_changes(rows, console)
    else:
        print_baseline(new, console)
    for line in wide:
        console.print(f"scattered: {line}", style="yellow", highlight=False, markup=False, soft_wrap=True)
    console.print(f"baseline: {path}", highlight=False, markup=False, soft_wrap=True)
    return EXIT_OK


def execute_show(args: argparse.Namespace) -> int:
    from rich.console import Console

    from kdbench.gate.baseline import default_path, load_baseline
    from kdbench.gate.tables import print_baseline

    baseline = load_baseline(args.file or default_path("proxy"))
    if args.json:
        options.print_json(baseline.model_dump(mode="json", by_alias=True))
    else:
        print_baseline(baseline, Console())
    return EXIT_INCOMPLETE if baseline.provisional else EXIT_OK
