"""`kdbench run`: the grid, the throughput phase, the report."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from kdbench.cli import options
from kdbench.cli.console import open_console, print_json, say
from kdbench.cli.options import OUTPUT, WHAT, WHERE
from kdbench.errors import EXIT_INCOMPLETE, EXIT_OK, KdbenchError

if TYPE_CHECKING:
    from rich.console import Console

    from kdbench.preview.frozen import FrozenPlan
    from kdbench.study.plan import Plan, Shard
    from kdbench.study.run import RunOutcome
    from kdbench.suites.schema import Suite


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
    plan: options.File = None
    """Run what `kdbench plan --freeze` wrote into this file, and nothing else; the report says so."""
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


@dataclass(frozen=True)
class Asked:
    """What a run is to be of, as the command line asks for it; `kdbench run` and `kdbench plan` ask alike."""

    grid: options.Grid
    what: What
    reduction: options.Reduction
    frozen: "FrozenPlan | None" = None

    @property
    def request(self) -> dict[str, dict[str, Any]]:
        """The options by group, as JSON can hold them; the file of a frozen plan is not among them."""
        groups = {"grid": self.grid, "what": replace(self.what, plan=None), "reduction": self.reduction}
        return {
            name: {field: str(value) if isinstance(value, Path) else value for field, value in asdict(group).items()}
            for name, group in groups.items()
        }

    def thawed(self) -> "Asked":
        """What the frozen plan asks for, where `--plan` names one.

        Raises:
            KdbenchError: there is no such plan, or other options say what to run, too.
        """
        if self.what.plan is None:
            return self
        other = replace(self.what, plan=None, no_throughput=False)
        if replace(self, what=other) != Asked(options.Grid(), What(), options.Reduction()):
            raise KdbenchError("--plan says what to run; leave methods, pairs, seeds and their like out")
        from kdbench.preview.frozen import read_frozen

        frozen = read_frozen(self.what.plan)
        request = frozen.request
        grid: dict[str, Any] = {**request["grid"], "set": tuple(request["grid"]["set"])}
        grid["teacher_checkpoint"] = _path(grid["teacher_checkpoint"])
        what: dict[str, Any] = {**request["what"], "plan": self.what.plan, "tuned": _path(request["what"]["tuned"])}
        what["no_throughput"] |= self.what.no_throughput
        return Asked(options.Grid(**grid), What(**what), options.Reduction(**request["reduction"]), frozen)

    def plan(self, how: options.ComputeOptions, console: "Console", shard: "Shard | None" = None) -> "Plan":
        """The plan, which is the frozen one where there is one.

        Raises:
            KdbenchError: something is mistyped, missing or broken, or has changed since the plan was frozen.
        """
        from kdbench.results.tuned import read_tuned

        what = self.what
        selection = self.grid.look_up()
        suite = self.reduction.reduce(selection.suite)
        seeds = options.parse_seeds(what.seeds, suite.seeds)
        # What is mistyped is told before torch loads.
        from kdbench.study.plan import make_plan

        compute = how.resolve()
        selection.prepare(compute, how.data, console, suite)
        plugins = selection.ordered
        tuned = read_tuned(what.tuned, suite.protocol, [plugin.name for plugin in plugins]) if what.tuned else None
        chosen = {"settings": selection.settings, "split": what.split, "best": what.best, "tuned": tuned}
        plan = make_plan(
            suite, plugins, selection.pairs, seeds, compute=compute, data_root=how.data, shard=shard, **chosen
        )
        if self.frozen is None or what.plan is None:
            return plan
        from kdbench.preview.frozen import keep_to

        return replace(plan, frozen=keep_to(self.frozen, plan, what.plan))

    def folder(self, suite: "Suite") -> Path:
        """Where the results go by default."""
        from kdbench.api.selection import results_folder

        return results_folder(suite, "" if self.what.split == "test" else "-val")


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


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
    from kdbench.cli.report import write_and_show
    from kdbench.report.so_far import reader
    from kdbench.results.folder import Results

    shard = where.part
    asked = Asked(grid, what, reduction).thawed()
    asked.what.check(whole=shard.whole)
    how_long.check()
    console = open_console(json)
    plan = asked.plan(how, console, shard)

    from kdbench.study.equal_time import train_control
    from kdbench.study.race import race
    from kdbench.study.run import run
    from kdbench.study.session import Session

    results = Results(out or asked.folder(plan.suite))
    session = Session(results, how.data, console, where.workers, where.make(plan.compute), answers=reader(results))
    outcome = (race if asked.what.race else run)(plan, how_long.on(session), not asked.what.no_throughput)
    if asked.what.equal_time:
        outcome += train_control(plan, session)
    code = EXIT_OK if outcome.complete else EXIT_INCOMPLETE
    if plan.compute.replica.rank > 0:
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
