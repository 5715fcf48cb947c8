"""`kdbench baseline update|show`: the frozen numbers that `kdbench check` holds results against."""

from dataclasses import asdict
from pathlib import Path

from kdbench.cli import options
from kdbench.cli.console import open_console, print_json, say
from kdbench.errors import EXIT_INCOMPLETE, EXIT_OK, KdbenchError


def update(
    results: options.Results,
    /,
    *,
    out: options.File = None,
    add: bool = False,
    provisional: bool = False,
    accept_spread: bool = False,
    json: options.Json = False,
) -> None:
    """Write the baseline from results, and print it against the old one.

    Args:
        results: A results folder, as `kdbench run --seeds 20` wrote it.
        out: The file to write. Default: baselines/SUITE.json.
        add: Add the seeds, methods and pairs of these results to the baseline there is, instead of replacing it.
        provisional: Accept fewer than 20 seeds or a changed tree; the file is marked so.
        accept_spread: Freeze cells, too, whose seeds spread by more than 3 points or of which one lies more than 10
            points below the median; without this option they are named and nothing is written.
    """
    from kdbench.gate.baseline import changes, default_path, doubt, load_baseline, make_baseline, scattered
    from kdbench.gate.joining import join_baselines
    from kdbench.gate.tables import changes_as_json, print_baseline, print_changes, scattered_lines
    from kdbench.results.folder import Results
    from kdbench.results.study import read_study

    new = make_baseline(read_study(Results(results)))
    path = out or default_path(new.suite)
    old = load_baseline(path) if add or path.is_file() else None
    if old and add:
        new = join_baselines(old, new)
    if not provisional and (reason := doubt(new.seeds, new.environments)):
        raise KdbenchError(reason)
    wide = scattered_lines(scattered(new))
    if wide and not accept_spread:
        raise KdbenchError(
            f"{len(wide)} of {len(new.cells)} cells are too scattered to judge by: {'; '.join(wide)}; find out why "
            "their trainings fail, or freeze them as they are with --accept-spread"
        )
    new.write(path)
    rows = changes(old, new) if old else []
    if json:
        print_json(
            {
                "baseline": str(path),
                "provisional": new.provisional,
                "scattered": [asdict(cell) for cell in scattered(new)],
                "changes": changes_as_json(rows),
            }
        )
        return
    console = open_console()
    if rows:
        print_changes(rows, console)
    else:
        print_baseline(new, console)
    for line in wide:
        say(console, f"scattered: {line}", style="yellow")
    say(console, f"baseline: {path}")


def show(file: Path | None = None, /, *, json: options.Json = False) -> int:
    """Print a baseline; the exit code is 2 for a provisional one.

    Args:
        file: The baseline. Default: baselines/proxy.json.
    """
    from kdbench.gate.baseline import default_path, load_baseline
    from kdbench.gate.tables import print_baseline

    frozen = load_baseline(file or default_path("proxy"))
    if json:
        print_json(frozen.model_dump(mode="json", by_alias=True))
    else:
        print_baseline(frozen, open_console())
    return EXIT_INCOMPLETE if frozen.provisional else EXIT_OK


SUMMARY = "Make, or show, what `kdbench check` holds results against."
COMMANDS = update, show
