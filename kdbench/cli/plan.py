"""`kdbench plan`: what a run would do and need, before it runs; and a plan frozen in a file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from kdbench.cli import options
from kdbench.cli.console import make_table, open_console, print_json, say
from kdbench.cli.options import OUTPUT, WHERE
from kdbench.cli.run import Asked, What
from kdbench.errors import EXIT_INCOMPLETE, EXIT_OK
from kdbench.names import plural

if TYPE_CHECKING:
    from rich.console import Console

    from kdbench.preview.needs import RunNeeds


def plan(
    *,
    grid: options.Grid = options.Grid(),
    what: What = What(),
    how: options.ComputeOptions = options.ComputeOptions(),
    out: Annotated[Path | None, options.folder(group=WHERE)] = None,
    workers: options.Workers = None,
    reduction: options.Reduction = options.Reduction(),
    freeze: Annotated[Path | None, options.file(group=OUTPUT)] = None,
    json: options.Json = False,
) -> int:
    """Tell what a run needs: cells, time, memory, disk, and what is missing; nothing is trained to its end.

    The options are those of `kdbench run`. A few steps are timed on each pair, while the machine does nothing else.

    Args:
        out: The results folder of the run, whose finished cells need no time. Default: results/SUITE.
        freeze: Write suite, methods, hyperparameters, pairs, seeds and the rule of decision into this file instead, for
            `kdbench run --plan FILE`: it proves that they were chosen before the results were known.
    """
    asked = Asked(grid, what, reduction).thawed()
    asked.what.check(whole=True)
    console = open_console(json)
    if missing := _missing(asked, how):
        if json:
            print_json({"missing": missing})
        else:
            for what_to_do in missing:
                say(console, ("missing:", "yellow"), f" {what_to_do}")
        return EXIT_INCOMPLETE

    from kdbench.preview.frozen import freeze as write
    from kdbench.preview.needs import estimate
    from kdbench.results.folder import Results

    made = asked.plan(how, console)
    if freeze is not None:
        frozen = write(made, asked.request, freeze)
        if json:
            print_json(frozen.model_dump(mode="json"))
        else:
            say(console, f"frozen: {freeze} (sha256 {frozen.sha256[:12]}); run it with `kdbench run --plan {freeze}`")
        return EXIT_OK
    results = Results(out or asked.folder(made.suite))
    with console.status("timing a few steps") as status:
        needs = estimate(
            made,
            results,
            how.data,
            workers=workers,
            throughput=not asked.what.no_throughput,
            on_pair=lambda pair: status.update(f"timing a few steps of {pair}"),
        )
    if json:
        print_json(_as_json(needs))
    else:
        _show(needs, console)
    return EXIT_OK


def _missing(asked: Asked, how: options.ComputeOptions) -> list[str]:
    """What the user has to get first; a teacher whose checkpoint is named is imported by the run."""
    from kdbench.errors import KdbenchError

    selection = asked.grid.look_up()
    suite = asked.reduction.reduce(selection.suite)
    from kdbench.data.opening import open_dataset
    from kdbench.preview.needs import missing_teachers

    try:
        open_dataset(suite.data, how.data)
    except KdbenchError as error:
        return [str(error)]
    if selection.checkpoint is not None:
        return []
    return list(missing_teachers(suite, selection.pairs, how.data).values())


def _as_json(needs: "RunNeeds") -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(needs) | {"seconds": dict(zip(("accuracy", "throughput"), needs.seconds, strict=True))}


def _show(needs: "RunNeeds", console: "Console") -> None:
    from kdbench.engines.display import duration
    from kdbench.report.text import size

    left = needs.cells - needs.finished
    say(console, f"{plural(needs.cells, 'cell')}, {needs.finished} finished, {left} to train")
    if not left:
        return
    rows = [
        {
            "pair": each.pair,
            "time of a seed": duration(each.seconds),
            "throughput": duration(each.throughput),
            "memory": size(each.memory),
            "disk of a seed": size(each.disk),
        }
        for each in needs.pairs
    ]
    console.print(make_table(rows, numbers=tuple(rows[0])[1:]))
    for each in needs.pairs:
        for method, reason in each.failed.items():
            say(console, f"{method} on {each.pair}: {reason}")
    accuracy, throughput = needs.seconds
    trainings = f"about {duration(accuracy)} for the trainings ({needs.workers} side by side)"
    say(console, f"time: {trainings}, {duration(throughput)} for throughput")
    for what, need, free in (
        ("memory", needs.memory, needs.memory_free),
        ("disk", needs.disk, needs.disk_free),
    ):
        style = "red" if need > free else ""
        say(console, f"{what}: {size(need)} of {size(free)} free", style=style)
