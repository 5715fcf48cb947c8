"""`kdbench clean`: remove what nothing needs any more from a results folder."""

import argparse
from pathlib import Path
from typing import Any

from kdbench.cli import options
from kdbench.errors import EXIT_OK, KdbenchError


def add_parser(commands: Any) -> None:
    parser = options.add_command(
        commands, "clean", execute, "list what a results folder holds that nothing needs any more, and remove it"
    )
    parser.add_argument("results", type=Path, metavar="DIR", help="a results folder that no run is at work in")
    parser.add_argument("--delete", action="store_true", help="remove what is listed (default: only list it)")
    parser.add_argument(
        "--unplanned",
        action="store_true",
        help="also what belongs to cells that the last run into the folder did not plan (other settings or seeds)",
    )
    options.add_json(parser)


def execute(args: argparse.Namespace) -> int:
    from rich.console import Console

    from kdbench.results.folder import Results
    from kdbench.results.leftovers import leftovers

    found = leftovers(Results(args.results), args.unplanned)
    size = sum(path.stat().st_size for path, _ in found)
    if args.delete:
        for path, _ in found:
            try:
                path.unlink()
            except OSError as error:
                raise KdbenchError(f"cannot remove {path}: {error.strerror or error}") from error
    if args.json:
        files = [{"file": str(path), "reason": reason} for path, reason in found]
        options.print_json({"files": files, "bytes": size, "deleted": args.delete})
        return EXIT_OK
    console = Console(highlight=False, markup=False, soft_wrap=True)
    for path, reason in found:
        console.print(f"{path.relative_to(args.results)}: {reason}")
    done = "removed" if args.delete else "can go; --delete removes them"
    console.print(f"{len(found)} files, {size / 1e6:.1f} MB {done}" if found else "there is nothing to remove")
    return EXIT_OK
