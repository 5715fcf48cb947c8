"""`kdbench bench`: the throughput phase alone, nothing is trained to its end."""

from pathlib import Path
from typing import Annotated

from kdbench.cli import options
from kdbench.cli.console import open_console, print_json, say
from kdbench.cli.options import WHERE
from kdbench.errors import EXIT_INCOMPLETE, EXIT_OK


def bench(
    *,
    grid: options.Grid = options.Grid(),
    how: options.ComputeOptions = options.ComputeOptions(),
    out: Annotated[Path | None, options.folder(group=WHERE)] = None,
    json: options.Json = False,
) -> int:
    """Measure the training throughput of methods; none is trained.

    Args:
        out: The results folder. Default: results/SUITE-bench.
    """
    from kdbench.results.folder import Results

    selection = grid.look_up()
    console = open_console(json)

    from kdbench.cli.report import write_and_show
    from kdbench.study.plan import make_plan
    from kdbench.study.run import measure_throughput
    from kdbench.study.session import Session

    compute = how.resolve()
    selection.prepare(compute, how.data, console)
    suite = selection.suite
    plan = make_plan(
        suite, selection.ordered, selection.pairs, [], compute=compute, data_root=how.data, settings=selection.settings
    )
    results = Results(out or Path("results") / f"{suite.name}-bench")
    outcome = measure_throughput(plan, Session(results, how.data, console))
    files = write_and_show(results, results.folder / "report", None if json else console)
    if json:
        report = [str(file) for file in files]
        print_json({"results": str(results.folder), "measurements": outcome.statuses, "report": report})
    for error, count in outcome.errors.items():
        say(console, f"  {count} x {error}")
    return EXIT_OK if outcome.complete else EXIT_INCOMPLETE
