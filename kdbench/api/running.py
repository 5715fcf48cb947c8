"""A run, started from Python."""

import inspect
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kdbench.errors import KdbenchError

if TYPE_CHECKING:
    from rich.console import Console

    from kdbench.api.selection import Selection
    from kdbench.api.studies import AnalysedStudy


def list_methods(pattern: str = "*") -> list[str]:
    """The names of the installed methods that match a pattern such as `*kd`: control and baseline, then the others."""
    from kdbench.registry import Registry

    return [name for name in Registry.installed().names if fnmatch(name, pattern)]


def run(
    suite: str = "proxy",
    methods: str | Sequence[str] = "all",
    pairs: str | Sequence[str] | None = None,
    seeds: int | Sequence[int] | None = None,
    *,
    out: str | Path | None = None,
    data: str | Path = "data",
    hyperparameters: Mapping[str, Mapping[str, Any]] | None = None,
    split: Literal["test", "val"] = "test",
    throughput: bool = True,
    epochs: int | None = None,
    limit: tuple[int, int] | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    workers: int | None = None,
    console: "Console | None" = None,
) -> "AnalysedStudy":
    """Train every method on every pair and measure, as `kdbench run` does; what is finished is kept.

    Work is done in processes of their own. A script therefore calls this below `if __name__ == "__main__":`, as Python
    asks of everything that starts processes; a notebook need not.

    Args:
        suite: the name of a suite, or the path of a TOML file.
        methods: names, files or dotted names of methods; the control and the baseline are always added.
        pairs: `hetero`, `homo`, `all`, or pairs as `teacher:student`; by default the pairs that the suite usually runs.
        seeds: how many seeds, or which; by default as many as the suite says.
        out: the results folder; by default results/SUITE, as on the command line.
        data: the folder of data sets and teachers that do not come with kdbench.
        hyperparameters: by method and name, where they are not the suite's.
        split: what accuracy is measured on; `val` holds out a part of the training images.
        throughput: measure throughput after the accuracies.
        epochs: train for so many epochs, whatever the recipes say.
        limit: numbers of training and of test images, to use a part of the data only.
        device: the device to compute on; `auto` takes a GPU where there is one.
        precision: of training; `auto` takes bf16 where the device has units for it.
        workers: processes side by side; by default one for each core, or one for each GPU.
        console: where progress is shown; by default standard output.

    Returns:
        The study of the results folder; a cell that is not done has another status in `cells`.

    Raises:
        KdbenchError: something is mistyped, a method is broken, or data or a teacher is missing.
    """
    given = locals()
    from kdbench.api.selection import look_up
    from kdbench.api.studies import load

    settings = {method: dict(values) for method, values in (hyperparameters or {}).items()}
    selection = look_up(suite, _joined(methods), _joined(pairs), settings)
    selection.add_references()
    selection.suite = selection.suite.reduced(epochs, *(limit or (None, None)))
    folder = _train(selection, given)
    return load(folder)


def _train(selection: "Selection", given: Mapping[str, Any]) -> Path:
    """Run what is selected, with the arguments of `run`; returns the results folder."""
    from rich.console import Console

    from kdbench.api.selection import results_folder
    from kdbench.compute.device import resolve
    from kdbench.results.folder import Results
    from kdbench.study.plan import make_plan
    from kdbench.study.run import run
    from kdbench.study.session import Session

    suite, data = selection.suite, Path(given["data"])
    seeds = _numbers(given["seeds"], suite.seeds)
    console = given["console"] or Console(highlight=False)
    compute = resolve(given["device"], given["precision"])
    selection.prepare(compute, data, console)
    plan = make_plan(
        suite,
        selection.ordered,
        selection.pairs,
        seeds,
        compute=compute,
        data_root=data,
        settings=selection.settings,
        split=given["split"],
        command=_call(given),
    )
    folder = Path(given["out"] or results_folder(suite, "" if given["split"] == "test" else "-val"))
    run(plan, Session(Results(folder), data, console, given["workers"]), given["throughput"])
    return folder


def _joined(names: str | Sequence[str] | None) -> str:
    return names if isinstance(names, str) else ",".join(names or ())


def _numbers(seeds: int | Sequence[int] | None, default: int) -> list[int]:
    numbers = range(default if seeds is None else seeds) if seeds is None or isinstance(seeds, int) else seeds
    if not numbers or min(numbers) < 0:
        raise KdbenchError(f"seeds={seeds!r} names no seed; give a number of seeds or a list such as [0, 1, 2]")
    return sorted(set(numbers))


def _call(arguments: Mapping[str, Any]) -> str:
    """The call that makes the run again: the arguments that are not the default ones."""
    usual = {name: parameter.default for name, parameter in inspect.signature(run).parameters.items()}
    given = [
        f"{name}={str(value)!r}" if isinstance(value, Path) else f"{name}={value!r}"
        for name, value in arguments.items()
        if name != "console" and value != usual[name]
    ]
    return f"kdbench.run({', '.join(given)})"
