"""`kdbench tune`: equal random draws of every method's hyperparameters, judged on the validation split."""

from math import sqrt
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from kdbench.cli import options
from kdbench.cli.console import make_table, open_console, print_json, say
from kdbench.cli.options import WHAT, WHERE
from kdbench.errors import EXIT_INCOMPLETE, EXIT_OK
from kdbench.names import plural

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from kdbench.results.folder import Results
    from kdbench.results.tuned import TunedFile

FILE = "tuned.json"


def tune(
    *,
    grid: options.Grid = options.Grid(),
    trials: Annotated[int, options.number(1, 10_000, metavar="K", group=WHAT)] = 8,
    seeds: Annotated[str, Parameter(group=WHAT)] = "1",
    how: options.ComputeOptions = options.ComputeOptions(),
    out: Annotated[Path | None, options.folder(group=WHERE)] = None,
    workers: options.Workers = None,
    reduction: options.Reduction = options.Reduction(),
    json: options.Json = False,
) -> int:
    """Choose hyperparameters by equal random draws of every method.

    The draws are judged on held-out training images, never on the test split.

    Args:
        trials: The number of draws of every method.
        seeds: How many seeds, or which: 5 or 0,1,2.
        out: The folder of the records and of tuned.json. Default: results/SUITE-tune.
    """
    from kdbench.api.selection import results_folder
    from kdbench.files import write_json
    from kdbench.results.folder import Results

    selection = grid.look_up()
    suite = reduction.reduce(selection.suite)
    numbers = options.parse_seeds(seeds, suite.seeds)
    console = open_console(json)

    from kdbench.study.plan import make_plan
    from kdbench.study.run import run
    from kdbench.study.session import Session
    from kdbench.study.tune import choose, with_trials

    compute = how.resolve()
    selection.prepare(compute, how.data, console)
    pairs, settings = selection.pairs, selection.settings
    usual = make_plan(
        suite, selection.ordered, pairs, numbers, compute=compute, data_root=how.data, settings=settings, split="val"
    )
    plan = with_trials(usual, settings, trials)
    folder = out or results_folder(suite, "-tune")
    results = Results(folder)
    outcome = run(plan, Session(results, how.data, console, workers), throughput=False)
    code = EXIT_OK if outcome.complete else EXIT_INCOMPLETE
    if compute.replica.rank > 0:
        return code
    tuned = choose(plan, results, trials)
    write_json(folder / FILE, tuned)
    if json:
        print_json(tuned)
        return code
    console.print(_table(tuned))
    _tell_noise(results, console)
    if not outcome.complete:
        say(console, ("not every trial is done;", "red"), " the same command tries the rest again")
    say(console, f"chosen: {folder / FILE}; use it with `--tuned {quote(str(folder / FILE))}`")
    return code


def _tell_noise(results: "Results", console: "Console") -> None:
    """Tell which differences of accuracy may be luck, for the number of images that the draws were judged on."""
    if counts := {cell["evaluated"] for cell in results.cells() if "evaluated" in cell}:
        images = min(counts)
        # Two standard errors of the difference of two accuracies around a half, the widest there is.
        say(console, f"of {plural(images, 'image')}: differences below {100 * sqrt(2 / images):.1f} points may be luck")


def _table(tuned: "TunedFile") -> "Table":
    """A line a trial; the chosen ones stand out."""
    from rich.text import Text

    rows = []
    for name, method in tuned["methods"].items():
        for trial in method["trials"]:
            chosen = trial["trial"] == method["chosen"]
            values = ", ".join(f"{key} {value}" for key, value in trial["values"].items()) or "no search space"
            top1 = "X" if trial["top1"] is None else f"{trial['top1']:.2f}"
            number = str(trial["trial"] or "usual")
            cells = {"method": name, "trial": number, "top-1": top1 + ("*" if chosen else " "), "values": values}
            rows.append({column: Text(cell, "bold" if chosen else "") for column, cell in cells.items()})
    title = f"validation top-1, mean over {len(tuned['pairs'])} pair(s) x {len(tuned['seeds'])} seed(s)"
    return make_table(rows, numbers=("trial", "top-1"), title=title)
