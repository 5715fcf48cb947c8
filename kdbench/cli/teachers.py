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

Weights = Annotated[
    Literal["ema", "plain"] | None,
    Parameter(help="Of a file that holds both: the moving average of the weights (ema), or the trained ones (plain)."),
]


def list_(
    *,
    suite: options.SuiteName = "proxy",
    only: Only = None,
    data: options.DataFolder = options.DATA,
    json: options.Json = False,
) -> None:
    """Tell which teachers there are, how good, and how they were made."""
    from kdbench.suites.schema import teacher_file

    loaded, names = _chosen(suite, only)
    paths = {name: loaded.teacher_path(name, data) for name in names}
    if only is None:
        # Imported or trained for models that the suite does not list.
        others = sorted({*loaded.own_teachers(data).glob("*.safetensors")} - {*paths.values()})
        paths |= {path.stem: path for path in others if path.name not in map(teacher_file, names)}
    _show(suite, loaded, paths, data, json)


def train(
    *,
    suite: options.SuiteName = "proxy",
    only: Only = None,
    source: Annotated[Path | None, options.file(name="--from")] = None,
    weights: Weights = None,
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
        TeacherJob(loaded, name, control, seed, compute, how.data, path, command_line(), source, weights)
        for name, path in paths.items()
    ]
    console = open_console(json, quiet=compute.replica.rank > 0)
    for task in tasks:
        opening.open_dataset(task.data, how.data)
        if task.fine_tuned:
            say(console, f"{task.name}: getting the weights to start from")
            # Once, before any worker trains: what cannot be had or does not fit is told now.
            pretrained_model(loaded, task.name, classes, source, weights)
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
    mean: Annotated[str | None, Parameter(metavar="M,...")] = None,
    std: Annotated[str | None, Parameter(metavar="S,...")] = None,
    weights: Weights = None,
    class_map: options.File = None,
    replace: bool = False,
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
        mean: In place of --normalisation, the mean by channel, of pixels in [0, 1], as in 0.49,0.48,0.45.
        std: The standard deviation by channel.
        class_map: The names of the classes in the order of the logits: a line for each, or JSON, a list or a mapping
            from name to number. Default: the order of the data set, and that of timm's folder reader.
        replace: Store the weights though a better teacher is stored.
    """
    from kdbench.api.selection import tell_tried
    from kdbench.engines.display import counted
    from kdbench.study.plan import command_line
    from kdbench.study.teachers import Expects, ImportRequest, import_teacher

    if file is None and (weights is not None or class_map is not None):
        raise KdbenchError("--weights and --class-map are about a FILE of weights; name one")
    expects: Expects | None = normalisation
    if mean is not None or std is not None:
        if mean is None or std is None or normalisation is not None:
            raise KdbenchError("--mean and --std belong together, in place of --normalisation")
        expects = _by_channel("--mean", mean), _by_channel("--std", std, least=1e-6)
    classes = _class_map(class_map) if class_map is not None else None
    loaded, names = _chosen(suite, name)
    if len(names) != 1:
        raise KdbenchError(f"NAME {name!r} is not one teacher; name one of suite {loaded.name}")
    (teacher,) = names
    compute = how.resolve()
    console = open_console(json)
    request = ImportRequest(file, expects, weights, classes, replace)
    with counted(console, f"reading {file or loaded.models[teacher].timm}") as show:
        imported = import_teacher(loaded, teacher, request, compute, how.data, command=command_line(), on_images=show)
    tell_tried(imported.tried, console)
    _show(suite, loaded, {teacher: imported.path}, how.data, json)


def _by_channel(option: str, text: str, least: float = -1e6) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or not all(least <= value <= 1e6 for value in values):
        raise KdbenchError(f"{option} {text!r} is not a number for each channel, as in {option} 0.49,0.48,0.45")
    return values


def _class_map(path: Path) -> tuple[str, ...]:
    """The classes in the order of the logits.

    Raises:
        KdbenchError: the file cannot be read, or does not number the classes from 0.
    """
    import json

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise KdbenchError(f"cannot read --class-map {path}: {error}") from error
    if path.suffix != ".json":
        return tuple(line.strip() for line in text.splitlines() if line.strip())
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise KdbenchError(f"--class-map {path} is not JSON: {error}") from error
    numbers = content if isinstance(content, dict) else {}
    if numbers and sorted(map(str, numbers.values())) == sorted(map(str, range(len(numbers)))):
        content = sorted(numbers, key=lambda name: int(numbers[name]))
    if not isinstance(content, list) or not all(isinstance(name, str) for name in content):
        raise KdbenchError(f"--class-map {path} is neither a list of names nor a mapping from names to numbers from 0")
    return tuple(content)


def verify(
    *,
    suite: options.SuiteName = "proxy",
    only: Only = None,
    how: options.ComputeOptions = options.ComputeOptions(),
    json: options.Json = False,
) -> int:
    """Read stored teachers again, and check hash, values and accuracy."""
    from dataclasses import asdict

    from kdbench.engines.display import counted
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
    with counted(console, "reading the teachers") as show:
        verifications = [verify_teacher(loaded, name, compute, how.data, show) for name in names]
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
    from kdbench.names import split_request
    from kdbench.suites.anymodel import with_model
    from kdbench.suites.loading import load_suite

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
    where = shlex.join(["--suite", suite_name, "--data", str(data)])
    descriptions = [_known(suite, name, path, where) for name, path in paths.items()]
    if json:
        print_json(descriptions)
        return
    console = open_console()
    rows = [
        {
            "teacher": row["teacher"],
            "timm": suite.models[row["teacher"]].timm if row["teacher"] in suite.models else row.get("timm", "-"),
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


def _known(suite: "Suite", name: str, path: Path, where: str) -> dict[str, Any]:
    """What is known of a teacher; where that is nothing the reason, and for models of the suite the ways to get it."""
    from kdbench.suites.anymodel import request_of
    from kdbench.training.teacher import teacher_metadata

    row: dict[str, Any] = {"teacher": name, "published": published_top1(suite, name) if name in suite.models else []}
    try:
        return row | {"file": str(path)} | teacher_metadata(path)
    except KdbenchError as error:
        request = shlex.quote(request_of(suite, name)) if name in suite.models else None
        ways = [
            f"kdbench teachers train --only {request} {where}",
            f"kdbench teachers import {request} FILE {where}",
        ]
        return row | {"error": str(error), "commands": ways if request is not None else []}


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
