"""`kdbench teachers list|train|import|verify`: the trained teachers of a suite."""

import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from kdbench.cli import completion, options
from kdbench.cli.console import make_table, open_console, print_json, say
from kdbench.cli.options import WHERE
from kdbench.errors import EXIT_INCOMPLETE, EXIT_OK, KdbenchError

if TYPE_CHECKING:
    from kdbench.suites.schema import Suite

Only = Annotated[
    str | None,
    Parameter(
        metavar="NAME,...", completer=completion.teacher_names, help="These teachers. Default: all of the suite."
    ),
]


def list_(
    *,
    suite: options.SuiteName = "proxy",
    only: Only = None,
    data: options.DataFolder = options.DATA,
    json: options.Json = False,
) -> None:
    """Tell which teachers there are, how good, and how they were made."""
    loaded, names = _chosen(suite, only)
    _show(suite, loaded, {name: loaded.teacher_path(name, data) for name in names}, data, json)


def train(
    *,
    suite: options.SuiteName = "proxy",
    only: Only = None,
    source: Annotated[Path | None, options.file(name="--from")] = None,
    seed: Annotated[int, options.number(0, metavar="SEED")] = 0,
    how: options.ComputeOptions = options.ComputeOptions(),
    out: Annotated[Path | None, options.folder(group=WHERE)] = None,
    workers: options.Workers = None,
    reduction: options.Reduction = options.Reduction(),
    json: options.Json = False,
) -> int:
    """Train teachers, or fine-tune pretrained weights.

    Args:
        source: The weights to start from; they are of one model, which --only names.
        seed: The seed of the training.
        out: The folder to write to. Default: DATA/teachers/SUITE.
    """
    from kdbench.compute.device import default_workers
    from kdbench.data import opening
    from kdbench.engines.display import Display
    from kdbench.engines.inprocess import InProcessEngine
    from kdbench.engines.local import LocalEngine
    from kdbench.registry import Registry
    from kdbench.study.plan import command_line
    from kdbench.study.teachers import TeacherJob
    from kdbench.suites.schema import teacher_file
    from kdbench.training.teacher import pretrained_model

    loaded, names = _chosen(suite, only)
    loaded = reduction.reduce(loaded)
    if source is not None and (only is None or len(names) != 1):
        raise KdbenchError("--from FILE holds the weights of one model; say which with --only NAME")
    compute = how.resolve()
    classes = len(opening.open_dataset(loaded.data, how.data).classes)
    registry = Registry.installed()
    control = registry.plugins[registry.by_role("control")]
    paths = {name: (out or loaded.own_teachers(how.data)) / teacher_file(name) for name in names}
    tasks = [
        TeacherJob(loaded, name, control, seed, compute, how.data, path, command_line(), source)
        for name, path in paths.items()
    ]
    console = open_console(json, quiet=compute.replica.rank > 0)
    for task in tasks:
        opening.open_dataset(task.data, how.data)
        if task.fine_tuned:
            say(console, f"{task.name}: getting the weights to start from")
            # Once, before any worker trains: what cannot be had or does not fit is told now.
            pretrained_model(loaded, task.name, classes, source)
    display = Display(console, "teachers", len(tasks))
    with display.shown():
        engine = InProcessEngine() if compute.replica.world > 1 else LocalEngine()
        engine.run(tasks, workers=min(workers or default_workers(compute), len(tasks)), display=display)
    if display.failures:
        return EXIT_INCOMPLETE
    if compute.replica.rank == 0:
        _show(suite, loaded, paths, how.data, json)
    return EXIT_OK


def import_(
    name: Annotated[str, Parameter(completer=completion.teacher_names)],
    file: Path | None = None,
    /,
    *,
    normalisation: Literal["suite", "timm", "imagenet", "inception"] | None = None,
    suite: options.SuiteName = "proxy",
    how: options.ComputeOptions = options.ComputeOptions(),
    json: options.Json = False,
) -> None:
    """Store weights that were trained elsewhere.

    Args:
        name: A teacher of the suite.
        file: The weights, as safetensors or as a torch checkpoint. Default: timm's pretrained weights of the model.
        normalisation: What the weights expect of their input: the mean and std of the suite (the default for FILE),
            those of timm's pretrained weights (the default without FILE), those of ImageNet, or .5 and .5 (inception).
    """
    from kdbench.study.plan import command_line
    from kdbench.study.teachers import import_teacher

    loaded, names = _chosen(suite, name)
    if len(names) != 1:
        raise KdbenchError(f"NAME {name!r} is not one teacher; name one of suite {loaded.name}")
    (teacher,) = names
    compute = how.resolve()
    path = import_teacher(loaded, teacher, file, normalisation, compute, how.data, command=command_line())
    _show(suite, loaded, {teacher: path}, how.data, json)


def verify(
    *,
    suite: options.SuiteName = "proxy",
    only: Only = None,
    how: options.ComputeOptions = options.ComputeOptions(),
    json: options.Json = False,
) -> int:
    """Read stored teachers again, and check hash, values and accuracy."""
    from dataclasses import asdict

    from kdbench.study.teachers import TOLERANCE, verify_teacher

    loaded, names = _chosen(suite, only)
    if only is None:
        names = [name for name in names if loaded.teacher_path(name, how.data).is_file()]
    if not names:
        raise KdbenchError(
            f"no teacher of suite {loaded.name} is stored; `kdbench teachers list` tells how to get them"
        )
    compute = how.resolve()
    console = open_console(json)
    with console.status("measuring"):
        verifications = [verify_teacher(loaded, name, compute, how.data) for name in names]
    if json:
        print_json([asdict(one) for one in verifications])
    else:
        rows = [
            {
                "teacher": one.teacher,
                "stored": _percent(one.stored),
                "measured": _percent(one.measured),
                "verdict": "ok" if one.error is None else "OFF",
            }
            for one in verifications
        ]
        console.print(make_table(rows, unbroken=("teacher",), numbers=("stored", "measured")))
        for one in verifications:
            if one.error is not None:
                say(console, (f"{one.teacher}:", "red"), f" {one.error}")
        say(console, f"Verdict: hash, finite values, top-1 within {TOLERANCE} points.")
    return EXIT_INCOMPLETE if any(one.error for one in verifications) else EXIT_OK


def _chosen(suite_name: str, only: str | None) -> tuple["Suite", list[str]]:
    """The suite and the teachers that `only` names, its own or other models of timm's (None: all its own).

    Raises:
        KdbenchError: no such suite, or no such model.
    """
    from kdbench.suites.anymodel import with_model
    from kdbench.suites.loading import load_suite
    from kdbench.suites.request import split_request

    suite = load_suite(suite_name)
    if only is None:
        return suite, list(dict.fromkeys(pair.teacher for pair in suite.pairs))
    names: dict[str, None] = {}
    for word in split_request(only):
        suite, name = with_model(suite, word, as_teacher=True)
        names[name] = None
    return suite, list(names)


def _show(suite_name: str, suite: "Suite", paths: dict[str, Path], data: Path, json: bool) -> None:
    """Print what is known of teachers, and how to get those that are not there."""
    from kdbench.suites.anymodel import request_of
    from kdbench.training.teacher import teacher_metadata

    where = shlex.join(["--suite", suite_name, "--data", str(data)])
    descriptions: list[dict[str, Any]] = []
    for name, path in paths.items():
        row: dict[str, Any] = {"teacher": name, "published": published_top1(suite, name)}
        try:
            row |= {"file": str(path), **teacher_metadata(path)}
        except KdbenchError as error:
            request = shlex.quote(request_of(suite, name))
            ways = [
                f"kdbench teachers train --only {request} {where}",
                f"kdbench teachers import {request} FILE {where}",
            ]
            row |= {"error": str(error), "commands": ways}
        descriptions.append(row)
    if json:
        print_json(descriptions)
        return
    console = open_console()
    rows = [
        {
            "teacher": row["teacher"],
            "timm": suite.models[row["teacher"]].timm,
            "top-1": _percent(row.get("top1")),
            "published": ", ".join(map(_percent, row["published"])) or "-",
            "from": _origin(row),
        }
        for row in descriptions
    ]
    if not any(row["published"] for row in descriptions):
        rows = [{column: text for column, text in row.items() if column != "published"} for row in rows]
    console.print(make_table(rows, unbroken=("teacher",), numbers=("top-1",)))
    for row in descriptions:
        if "commands" in row:
            missing = row["error"] if paths[row["teacher"]].is_file() else "is not there"
            say(console, (row["teacher"], "yellow"), f" {missing}: train or import it")
            for command in row["commands"]:
                say(console, f"  {command}")


def _origin(row: dict[str, Any]) -> str:
    """Where the weights of a teacher are from, in a few words."""
    if "error" in row:
        return "-"
    if "imported_from" in row:
        return " ".join(("imported:", *(row["imported_from"].get(key, "") for key in ("timm", "file")))).rstrip()
    return ("fine-tuned on " if "started_from" in row else "trained on ") + row["trained_on"]


def published_top1(suite: "Suite", name: str) -> list[float]:
    """Top-1 that the published tables tell of a teacher, the one that most rows tell first; papers differ."""
    from kdbench.analysis.published import find_published

    published = suite.models[name].published
    if suite.published is None or published is None:
        return []
    counts: Counter[float] = Counter()
    for number in find_published(protocol=suite.published):
        if number.teacher == published and number.teacher_top1 is not None:
            counts[number.teacher_top1] += 1
        elif number.student == published and number.method == "teacher":
            counts[number.top1] += 1
    return [top1 for top1, _ in counts.most_common()]


def _percent(top1: float | None) -> str:
    return "-" if top1 is None else f"{top1:.2f}"


SUMMARY = "List, train, import or verify the teachers of a suite."
COMMANDS = list_, train, import_, verify
