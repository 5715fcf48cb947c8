"""`kdbench teachers list|train|import|verify`: the trained teachers of a suite."""

import argparse
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdbench.cli import options
from kdbench.errors import EXIT_INCOMPLETE, EXIT_OK, KdbenchError

if TYPE_CHECKING:
    from kdbench.suites.schema import Suite


SUMMARY = "list, train, import or verify the teachers of a suite"


def add_parser(commands: Any) -> None:
    parser = commands.add_parser("teachers", help=SUMMARY, description=SUMMARY, allow_abbrev=False)
    actions = parser.add_subparsers(title="actions", dest="action", metavar="ACTION", required=True)

    listing = options.add_command(actions, "list", _list, "which teachers there are, how good, how they were made")
    training = options.add_command(actions, "train", _train, "train teachers, or fine-tune pretrained weights")
    importing = options.add_command(actions, "import", _import, "store weights that were trained elsewhere")
    verifying = options.add_command(actions, "verify", _verify, "read stored teachers again: hash, values, accuracy")

    importing.add_argument("name", metavar="NAME", help="a teacher of the suite")
    importing.add_argument(
        "file",
        metavar="FILE",
        nargs="?",
        type=Path,
        help="safetensors, or a torch checkpoint (default: timm's pretrained weights of the model)",
    )
    importing.add_argument(
        "--normalisation",
        choices=["suite", "timm", "imagenet", "inception"],
        help="what the weights expect of their input: the suite's mean and std (default for FILE), "
        "those of timm's pretrained weights (default without), ImageNet's, or .5 and .5",
    )
    for sub in (listing, training, importing, verifying):
        options.add_suite(sub)
        if sub is not importing:
            sub.add_argument("--only", metavar="NAME,...", help="these teachers (default: all of the suite)")
    training.add_argument(
        "--from", dest="source", type=Path, metavar="FILE", help="weights to start from (needs --only NAME)"
    )
    training.add_argument("--seed", type=options.whole(0), default=0)
    training.add_argument("--out", type=Path, metavar="DIR", help="folder to write to (default: DATA/teachers/SUITE)")
    options.add_workers(training)
    options.add_reduction(training)
    options.add_data(listing)
    for sub in (training, importing, verifying):
        options.add_compute(sub)
    for sub in (listing, training, importing, verifying):
        options.add_json(sub)


def _chosen(args: argparse.Namespace, only: str | None) -> tuple["Suite", list[str]]:
    """The suite and the teachers that `only` names, its own or other models of timm's (None: all its own).

    Raises:
        KdbenchError: no such suite, or no such model.
    """
    from kdbench.suites.anymodel import with_model
    from kdbench.suites.loading import load_suite
    from kdbench.suites.request import split

    suite = load_suite(args.suite)
    if only is None:
        return suite, list(dict.fromkeys(pair.teacher for pair in suite.pairs))
    names: dict[str, None] = {}
    for word in split(only):
        suite, name = with_model(suite, word, as_teacher=True)
        names[name] = None
    return suite, list(names)


def _list(args: argparse.Namespace) -> int:
    suite, names = _chosen(args, args.only)
    _show(args, suite, {name: suite.teacher_path(name, args.data) for name in names})
    return EXIT_OK


def _train(args: argparse.Namespace) -> int:
    from rich.console import Console

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

    suite, names = _chosen(args, args.only)
    suite = options.reduce(suite, args)
    if args.source is not None and (args.only is None or len(names) != 1):
        raise KdbenchError("--from FILE holds the weights of one model; say which with --only NAME")
    compute = options.resolve_compute(args)
    classes = len(opening.open_dataset(suite.data, args.data).classes)
    registry = Registry.installed()
    control = registry.plugins[registry.by_role("control")]
    folder = args.out or suite.own_teachers(args.data)
    paths = {name: folder / teacher_file(name) for name in names}
    command = command_line()
    tasks = [
        TeacherJob(suite, name, control, args.seed, compute, args.data, path, command, args.source)
        for name, path in paths.items()
    ]
    console = Console(stderr=args.json, quiet=compute.replica.rank > 0)
    for task in tasks:
        opening.open_dataset(task.data, args.data)
        if task.fine_tuned:
            console.print(f"{task.name}: getting the weights to start from", highlight=False, markup=False)
            # Once, before any worker trains: what cannot be had or does not fit is told now.
            pretrained_model(suite, task.name, classes, args.source)
    display = Display(console, "teachers", len(tasks))
    with display.shown():
        engine = InProcessEngine() if compute.replica.world > 1 else LocalEngine()
        engine.run(tasks, workers=min(args.workers or default_workers(compute), len(tasks)), display=display)
    if display.failures:
        return EXIT_INCOMPLETE
    if compute.replica.rank == 0:
        _show(args, suite, paths)
    return EXIT_OK


def _import(args: argparse.Namespace) -> int:
    from kdbench.study.plan import command_line
    from kdbench.study.teachers import import_teacher

    suite, (name,) = _chosen(args, args.name)
    compute = options.resolve_compute(args)
    path = import_teacher(suite, name, args.file, args.normalisation, compute, args.data, command=command_line())
    _show(args, suite, {name: path})
    return EXIT_OK


def _verify(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from rich.console import Console
    from rich.markup import escape

    from kdbench.study.teachers import TOLERANCE, verify_teacher

    suite, names = _chosen(args, args.only)
    if args.only is None:
        names = [name for name in names if suite.teacher_path(name, args.data).is_file()]
    if not names:
        raise KdbenchError(f"no teacher of suite {suite.name} is stored; `kdbench teachers list` tells how to get them")
    compute = options.resolve_compute(args)
    console = Console(stderr=args.json)
    with console.status("measuring"):
        found = [verify_teacher(suite, name, compute, args.data) for name in names]
    if args.json:
        options.print_json([asdict(one) for one in found])
    else:
        rows = [
            {
                "teacher": one.teacher,
                "stored": _percent(one.stored),
                "measured": _percent(one.measured),
                "verdict": "ok" if one.error is None else "OFF",
            }
            for one in found
        ]
        _print_table(console, rows)
        for one in found:
            if one.error is not None:
                console.print(f"[red]{escape(one.teacher)}:[/red] {escape(one.error)}", highlight=False, soft_wrap=True)
        console.print(f"Verdict: hash, finite values, top-1 within {TOLERANCE} points.", highlight=False)
    return EXIT_INCOMPLETE if any(one.error for one in found) else EXIT_OK


def _show(args: argparse.Namespace, suite: "Suite", paths: dict[str, Path]) -> None:
    """Print what is known of teachers, and how to get those that are not there."""
    from rich.console import Console
    from rich.markup import escape

    from kdbench.suites.anymodel import request_of
    from kdbench.training.teacher import teacher_metadata

    found: list[dict[str, Any]] = []
    for name, path in paths.items():
        row: dict[str, Any] = {"teacher": name, "published": published_top1(suite, name)}
        try:
            row |= {"file": str(path), **teacher_metadata(path)}
        except KdbenchError as error:
            row |= {"error": str(error), "commands": _commands(args, shlex.quote(request_of(suite, name)))}
        found.append(row)
    if args.json:
        options.print_json(found)
        return
    console = Console()
    rows = [
        {
            "teacher": row["teacher"],
            "timm": suite.models[row["teacher"]].timm,
            "top-1": _percent(row.get("top1")),
            "published": ", ".join(map(_percent, row["published"])) or "-",
            "from": _origin(row),
        }
        for row in found
    ]
    if not any(row["published"] for row in found):
        rows = [{column: text for column, text in row.items() if column != "published"} for row in rows]
    _print_table(console, rows)
    for row in found:
        if "commands" not in row:
            continue
        there = paths[row["teacher"]].is_file()
        console.print(
            f"[yellow]{escape(row['teacher'])}[/yellow] {escape(row['error']) if there else 'is not there'}: "
            "train or import it",
            highlight=False,
            soft_wrap=True,
        )
        for command in row["commands"]:
            console.print(f"  {command}", highlight=False, markup=False, soft_wrap=True)


def _commands(args: argparse.Namespace, name: str) -> list[str]:
    """How to get a teacher, as a user would type it."""
    where = shlex.join(["--suite", args.suite, "--data", str(args.data)])
    return [f"kdbench teachers train --only {name} {where}", f"kdbench teachers import {name} FILE {where}"]


def _origin(row: dict[str, Any]) -> str:
    """Where the weights of a teacher are from, in a few words."""
    if "error" in row:
        return "-"
    if "imported_from" in row:
        return " ".join(("imported:", *(row["imported_from"].get(key, "") for key in ("timm", "file")))).rstrip()
    return ("fine-tuned on " if "started_from" in row else "trained on ") + row["trained_on"]


def published_top1(suite: "Suite", name: str) -> list[float]:
    """Top-1 that the published tables tell of a teacher, the one that most rows tell first; papers differ."""
    from kdbench.analysis.published import find

    published = suite.models[name].published
    if suite.published is None or published is None:
        return []
    told: Counter[float] = Counter()
    for number in find(protocol=suite.published):
        if number.teacher == published and number.teacher_top1 is not None:
            told[number.teacher_top1] += 1
        elif number.student == published and number.method == "teacher":
            told[number.top1] += 1
    return [top1 for top1, _ in told.most_common()]


def _percent(top1: float | None) -> str:
    return "-" if top1 is None else f"{top1:.2f}"


def _print_table(console: Any, rows: Sequence[dict[str, str]]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in rows[0]:
        number = column in ("top-1", "stored", "measured")
        table.add_column(
            column, overflow="fold", no_wrap=number or column == "teacher", justify="right" if number else "left"
        )
    for row in rows:
        table.add_row(*map(Text, row.values()))
    console.print(table)
