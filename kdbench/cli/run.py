"""`kdbench run`: the grid, the throughput phase, the report."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from kdbench.cli import options
from kdbench.cli.console import open_console, print_json, say
from kdbench.cli.options import OUTPUT, WHAT, WHERE
from kdbench.errors import EXIT_INCOMPLETE, EXIT_OK, KdbenchError


def run(
    *,
    grid: options.Grid = options.Grid(),
    tuned: Annotated[Path | None, options.file(group=WHAT)] = None,
    seeds: Annotated[str | None, Parameter(group=WHAT)] = None,
    split: Annotated[Literal["test", "val"], Parameter(group=WHAT)] = "test",
    best: Annotated[bool, Parameter(group=WHAT)] = False,
    equal_time: Annotated[bool, Parameter(group=WHAT)] = False,
    no_throughput: Annotated[bool, Parameter(group=WHAT)] = False,
    how: options.ComputeOptions = options.ComputeOptions(),
    out: Annotated[Path | None, options.folder(group=WHERE)] = None,
    where: options.EngineOptions = options.EngineOptions(),
    reduction: options.Reduction = options.Reduction(),
    how_long: options.CareOptions = options.CareOptions(),
    no_report: Annotated[bool, Parameter(group=OUTPUT)] = False,
    json: options.Json = False,
) -> int:
    """Train every method on every pair, measure, and write the report.

    Args:
        tuned: The hyperparameters that `kdbench tune` chose; those of --set go before them.
        seeds: How many seeds, or which: 5 or 0,1,2. Default: as many as the suite says.
        split: What accuracy is measured on; `val` holds out a part of the training images, to choose things on.
        best: Read the test split for the whole learning curve, for the best epoch that much of the literature reports;
            without this option it is read once, after the last epoch.
        equal_time: Train the control also for as long as each method takes, by the throughput measured, to compare
            with.
        no_throughput: Measure accuracy only.
        out: The results folder. Default: results/SUITE.
        no_report: Write the records only.
    """
    from kdbench.cli.report import write_and_show
    from kdbench.results.records import Results
    from kdbench.results.tuned import read_tuned

    share = where.share
    if equal_time and no_throughput:
        raise KdbenchError("--equal-time goes by the measured throughput; leave --no-throughput out")
    if equal_time and not share.whole:
        raise KdbenchError("--equal-time goes by the throughput of all pairs; run it without --shard when all are done")
    selection = grid.look_up()
    suite = reduction.reduce(selection.suite)
    numbers = options.parse_seeds(seeds, suite.seeds)
    care, halt = how_long.read()
    console = open_console(json)

    from kdbench.study.equal_time import train_control
    from kdbench.study.plan import make_plan
    from kdbench.study.run import run

    compute = selection.prepare(how, console)
    plugins = selection.ordered
    chosen = read_tuned(tuned, suite.protocol, [plugin.name for plugin in plugins]) if tuned else None
    plan = make_plan(
        suite, plugins, selection.pairs, numbers, selection.settings, split, compute, how.data, best, chosen
    )
    plan = replace(plan, share=share)
    results = Results(out or options.results_folder(suite, "" if split == "test" else "-val"))
    engine = where.make(compute)
    outcome = run(plan, results, console, how.data, where.workers, not no_throughput, care, halt, engine)
    if equal_time:
        outcome += train_control(plan, results, console, how.data, where.workers, care, halt, engine)
    code = EXIT_OK if outcome.complete else EXIT_INCOMPLETE
    if compute.shard.rank > 0:
        return code
    files = [] if no_report else write_and_show(results, results.folder / "report", None if json else console)
    if json:
        print_json({"results": str(results.folder), "cells": outcome.statuses, "report": [str(f) for f in files]})
    elif not outcome.complete:
        left = ", ".join(f"{count} {status}" for status, count in sorted(outcome.statuses.items()))
        of = "" if share.whole else f" of {share}"
        say(console, (f"not every cell{of} is done:", "red"), f" {left}; the same command tries the rest again")
        for error, count in outcome.errors.items():
            say(console, f"  {count} x {error}")
    return code
