"""`kdbench run`: the grid, the throughput phase, the report."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from kdbench.cli import options
from kdbench.cli.console import open_console, print_json, say
from kdbench.cli.options import OUTPUT, WHAT, WHERE
from kdbench.errors import EXIT_INCOMPLETE, EXIT_OK, KdbenchError
from kdbench.names import plural

if TYPE_CHECKING:
    from rich.console import Console

    from kdbench.study.run import RunOutcome


@options.grouped(WHAT)
class What:
    """What of the grid is trained and measured."""

    tuned: options.File = None
    """The hyperparameters that `kdbench tune` chose; those of --set go before them."""
    seeds: str | None = None
    """How many seeds, or which: 5 or 0,1,2. Default: as many as the suite says."""
    split: Literal["test", "val"] = "test"
    """What accuracy is measured on; `val` holds out a part of the training images, to choose things on."""
    best: bool = False
    """Read the test split for the whole learning curve, for the best epoch that much of the literature reports; without
    this option it is read once, after the last epoch."""
    equal_time: bool = False
    """Train the control also for as long as each method takes, by the throughput measured, to compare with."""
    no_throughput: bool = False
    """Measure accuracy only."""
    race: bool = False
    """Drop methods on the way that are shown worse than the best, for who only wants the best method; --budget ends it
    after a time."""

    def check(self, whole: bool) -> None:
        """Refuse options that cannot go together.

        Args:
            whole: the command trains all of the run, not a shard of it.

        Raises:
            KdbenchError: two of them cannot.
        """
        if self.equal_time and self.no_throughput:
            raise KdbenchError("--equal-time goes by the measured throughput; leave --no-throughput out")
        if self.equal_time and not whole:
            raise KdbenchError(
                "--equal-time goes by the throughput of all pairs; run it without --shard when all are done"
            )
        if self.race and not whole:
            raise KdbenchError("--race decides by the cells of all methods after each seed; run it without --shard")
        if self.race and self.equal_time:
            raise KdbenchError("--equal-time is about all methods, and --race drops some; leave one of them out")


def run(
    *,
    grid: options.Grid = options.Grid(),
    what: What = What(),
    how: options.ComputeOptions = options.ComputeOptions(),
    out: Annotated[Path | None, options.folder(group=WHERE)] = None,
    where: options.EngineOptions = options.EngineOptions(),
    reduction: options.Reduction = options.Reduction(),
    how_long: options.LimitOptions = options.LimitOptions(),
    no_report: Annotated[bool, Parameter(group=OUTPUT)] = False,
    json: options.Json = False,
) -> int:
    """Train every method on every pair, measure, and write the report.

    Args:
        out: The results folder. Default: results/SUITE.
        no_report: Write the records only.
    """
    from kdbench.api.selection import results_folder
    from kdbench.cli.report import write_and_show
    from kdbench.report.so_far import reader
    from kdbench.results.folder import Results
    from kdbench.results.tuned import read_tuned

    shard = where.part
    what.check(whole=shard.whole)
    selection = grid.look_up()
    suite = reduction.reduce(selection.suite)
    seeds = options.parse_seeds(what.seeds, suite.seeds)
    how_long.check()
    console = open_console(json)
    from kdbench.study.equal_time import train_control
    from kdbench.study.plan import make_plan
    from kdbench.study.race import race
    from kdbench.study.run import run
    from kdbench.study.session import Session

    compute = how.resolve()
    selection.prepare(compute, how.data, console, suite)
    if grid.pairs is None and (others := len(suite.pairs) - len(selection.pairs)):
        say(console, f"{plural(others, 'homogeneous pair')} left out; --pairs all runs every pair")
    plugins = selection.ordered
    tuned = read_tuned(what.tuned, suite.protocol, [plugin.name for plugin in plugins]) if what.tuned else None
    chosen = {"settings": selection.settings, "split": what.split, "best": what.best, "tuned": tuned, "shard": shard}
    plan = make_plan(suite, plugins, selection.pairs, seeds, compute=compute, data_root=how.data, **chosen)
    results = Results(out or results_folder(suite, "" if what.split == "test" else "-val"))
    session = Session(results, how.data, console, where.workers, where.make(compute), answers=reader(results))
    session = how_long.on(session)
    outcome = (race if what.race else run)(plan, session, not what.no_throughput)
    if what.equal_time:
        outcome += train_control(plan, session)
    code = EXIT_OK if outcome.complete else EXIT_INCOMPLETE
    if compute.replica.rank > 0:
        return code
    files = [] if no_report else write_and_show(results, results.folder / "report", None if json else console)
    if json:
        print_json({"results": str(results.folder), "cells": outcome.statuses, "report": [str(f) for f in files]})
    elif not outcome.complete:
        _tell_left(outcome, "" if shard.whole else f" of {shard}", console)
    return code


def _tell_left(outcome: "RunOutcome", of: str, console: "Console") -> None:
    """Tell how many cells are not done, and why."""
    left = ", ".join(f"{count} {status}" for status, count in sorted(outcome.statuses.items()))
    again = "the same command tries the rest again"
    if {"failed", "diverged"} & set(outcome.statuses):
        again += ", and what failed for a reason of its own fails again until that is mended"
    say(console, (f"not every cell{of} is done:", "red"), f" {left}; {again}")
    for error, count in outcome.errors.items():
        say(console, f"  {count} x {error}")
