"""`kdbench status`: how far a run is."""

from typing import TYPE_CHECKING

from kdbench.cli import options
from kdbench.cli.console import make_table, open_console, print_json, say
from kdbench.errors import EXIT_INCOMPLETE, EXIT_OK
from kdbench.names import plural

if TYPE_CHECKING:
    from kdbench.report.so_far import FirstAnswers
    from kdbench.results.status import RunState


def status(results: options.Results, /, *, json: options.Json = False) -> int:
    """Tell what of a run is done, running, failed and to do.

    Args:
        results: A results folder, also one that a run is at work in.
    """
    from kdbench.analysis.stability import unstable_cells
    from kdbench.report.so_far import first_answers
    from kdbench.results.folder import Results
    from kdbench.results.schema import FINISHED
    from kdbench.results.status import run_state
    from kdbench.results.study import read_study

    progress = run_state(Results(results))
    study = read_study(Results(results))
    unstable, answers = [str(cell) for cell in unstable_cells(study)], first_answers(study)
    if json:
        print_json(
            {
                "cells": dict(progress.total),
                "pairs": {pair: dict(counts) for pair, counts in progress.by_pair.items()},
                "errors": dict(progress.errors),
                "unstable": unstable,
                "so_far": {row.method: row.gain.value for row in answers.rows} if answers else {},
                "throughput": {"measured": progress.measured, "planned": progress.to_measure},
                "seconds_left": progress.seconds_left,
            }
        )
    else:
        _show(progress, unstable, answers)
    complete = set(progress.total) <= FINISHED and progress.measured == progress.to_measure
    return EXIT_OK if complete else EXIT_INCOMPLETE


def _show(progress: "RunState", unstable: list[str], answers: "FirstAnswers | None") -> None:
    from kdbench.engines.display import duration
    from kdbench.results.status import RUNNING

    console = open_console()
    statuses = list(progress.total)
    lines = [*progress.by_pair.items(), ("all", progress.total)]
    rows = [{"pair": pair} | {status: counts[status] or "-" for status in statuses} for pair, counts in lines]
    console.print(make_table(rows, numbers=statuses))
    for error, count in progress.errors.most_common():
        say(console, f"{count} x {error}")
    if answers:
        console.print(answers.table())
    for cell in unstable:
        say(console, ("unstable:", "yellow"), f" {cell}")
    if progress.to_measure:
        say(console, f"throughput: {progress.measured} of {progress.to_measure} measured")
    if progress.seconds_left is not None:
        say(console, f"about {duration(progress.seconds_left)} left for {plural(progress.left, 'cell')}")
    elif running := progress.total[RUNNING]:
        say(console, f"{plural(running, 'cell')} of {progress.left} left are trained now")
    elif progress.left:
        say(console, f"nothing runs; this goes on: {progress.command}")
