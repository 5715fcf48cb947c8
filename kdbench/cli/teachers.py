"""`kdbench teachers list|train`: the trained teachers of a suite."""

import argparse
from pathlib import Path
from typing import Any

from kdbench.cli import options
from kdbench.errors import EXIT_INCOMPLETE, EXIT_OK, KdbenchError, unknown_name


def add_parser(commands: Any) -> None:
    parser = options.add_command(commands, "teachers", execute, "list or train the teachers of a suite")
    parser.add_argument("action", choices=["list", "train"])
    options.add_suite(parser)
    parser.add_argument("--only", metavar="NAME,...", help="these teachers (default: all of the suite)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder to write to (default: the suite's own)")
    parser.add_argument("--workers", type=int, help="processes side by side (default: one a core, one on a GPU)")
    options.add_compute(parser)
    options.add_json(parser)


def execute(args: argparse.Namespace) -> int:
    from kdbench.suites.schema import load

    suite = load(args.suite)
    names = list(dict.fromkeys(pair.teacher for pair in suite.pairs))
    if args.only:
        for name in args.only.split(","):
            if name not in names:
                raise unknown_name(f"teacher of suite {suite.name}", name, names)
        names = args.only.split(",")
    if args.action == "train":
        return _train(args, suite, names)
    return _list(args, suite, names)


def _list(args: argparse.Namespace, suite: Any, names: list[str], folder: Path | None = None) -> int:
    from rich.console import Console

    from kdbench.training.teacher import teacher_metadata

    rows = []
    for name in names:
        path = folder / f"{name}.safetensors" if folder else suite.teacher_path(name, args.data)
        try:
            metadata = teacher_metadata(path)
        except KdbenchError as error:
            rows.append({"teacher": name, "error": str(error)})
            continue
        rows.append({"teacher": name, "file": str(path), **metadata})
    if args.json:
        options.print_json(rows)
        return EXIT_OK
    console = Console()
    for row in rows:
        if "error" in row:
            console.print(f"[yellow]{row['teacher']}[/yellow] {row['error']}", highlight=False)
        else:
            console.print(
                f"[bold]{row['teacher']}[/bold] top-1 {row['top1']:.2f} %, trained on {row['trained_on']}, "
                f"sha256 {row['sha256'][:12]}, `{row['command']}`",
                highlight=False,
            )
    return EXIT_OK


def _train(args: argparse.Namespace, suite: Any, names: list[str]) -> int:
    from rich.console import Console

    from kdbench.registry import Registry
    from kdbench.study.engine import run_tasks
    from kdbench.study.plan import command_line
    from kdbench.study.progress import Display
    from kdbench.study.teachers import TeacherTask
    from kdbench.training.arena import load_data
    from kdbench.training.device import default_workers, resolve

    compute = resolve(args.device, args.precision)
    load_data(suite.data.teacher_source or suite.data.source, args.data)
    registry = Registry.installed()
    control = registry.plugins[registry.by_role("control")]
    folder = args.out or suite.own_teachers(args.data)
    tasks = [
        TeacherTask(
            suite,
            name,
            control,
            args.seed,
            compute,
            args.data,
            folder / f"{name}.safetensors",
            command_line(),
        )
        for name in names
    ]
    console = Console(stderr=args.json)
    workers = args.workers or default_workers(compute)
    display = Display(console, "teachers", len(tasks))
    with display.shown():
        run_tasks(tasks, min(workers, len(tasks)), display)
    if display.failures:
        return EXIT_INCOMPLETE
    return _list(args, suite, names, folder)
