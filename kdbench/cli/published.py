"""`kdbench published`: the published numbers that results are held against, without importing torch."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from kdbench.cli import options
from kdbench.errors import EXIT_OK, KdbenchError

if TYPE_CHECKING:
    from kdbench.analysis.published import Number
    from kdbench.suites.schema import Suite


def add_parser(commands: Any) -> None:
    parser = options.add_command(commands, "published", execute, "look up published numbers")
    parser.add_argument("--suite", help="the numbers for the pairs of this suite, under its protocol")
    parser.add_argument("--pair", metavar="TEACHER:STUDENT", help="by the names of the suite or of the papers")
    parser.add_argument("--method", help="a method of kdbench, or what the papers call one")
    parser.add_argument("--protocol", help="one of the protocols of the table (default: all, or the suite's)")
    options.add_json(parser)


def execute(args: argparse.Namespace) -> int:
    from kdbench.analysis.published import find, numbers, published_name

    suite = _suite(args.suite) if args.suite else None
    protocol = suite.published if suite else None
    if args.protocol:
        protocol = published_name("protocol", args.protocol, (row.protocol for row in numbers()))
    elif suite and not protocol:
        raise KdbenchError(f"nothing published is like suite {suite.name}; name a --protocol, or leave --suite out")
    pairs = None
    if args.pair:
        pairs = [_pair(args.pair, suite)]
    elif suite:
        labels = {name: model.published for name, model in suite.models.items()}
        pairs = [(labels[pair.teacher] or "", labels[pair.student] or "") for pair in suite.pairs]
    rows = find(protocol=protocol, pairs=pairs, methods=_methods(args.method) if args.method else None)
    if args.json:
        options.print_json([{**asdict(row), "gain": row.gain, "epoch": row.epoch} for row in rows])
    else:
        _show(rows)
    return EXIT_OK


def _suite(name: str) -> "Suite":
    from kdbench.suites.loading import load_suite

    return load_suite(name)


def _pair(text: str, suite: "Suite | None") -> tuple[str, str]:
    """Teacher and student by their published names."""
    from kdbench.analysis.published import numbers, published_name

    teacher, colon, student = text.partition(":")
    if not colon:
        raise KdbenchError(f"--pair {text!r} is not of the form teacher:student")
    own = {name: model.published for name, model in suite.models.items() if model.published} if suite else {}
    teachers = {row.teacher: row.teacher for row in numbers()} | own
    students = {row.student: row.student for row in numbers()} | own
    return (
        teachers[published_name("published teacher", teacher, teachers)],
        students[published_name("published student", student, students)],
    )


def _methods(name: str) -> Sequence[str]:
    """What the table calls the method `name`: one of kdbench by name or alias, or one of the table."""
    from kdbench.analysis.published import numbers, published_name
    from kdbench.registry import Registry

    registry = Registry.installed()
    known: dict[str, Sequence[str]] = {row.method: [row.method] for row in numbers()}
    for method in registry.names:
        source = registry.plugins[method].source
        if source.published:
            known |= dict.fromkeys((method, *source.aliases), source.published)
    return known[published_name("published method", name, known)]


def _show(rows: Sequence["Number"]) -> None:
    """One table a protocol, what must be known of single rows below it."""
    from rich.console import Console
    from rich.table import Table

    from kdbench.analysis.published import protocols

    console = Console(highlight=False, markup=False)
    for name, protocol in protocols().items():
        group = [row for row in rows if row.protocol == name]
        if not group:
            continue
        console.print(f"{name} ({protocol.dataset}): {protocol.summary}", style="bold")
        notes = list(dict.fromkeys(row.note for row in group if row.note))
        gap = 1 if console.width < 100 else 2
        table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="none")
        for column in ("teacher", "student"):
            table.add_column(column, no_wrap=True)
        table.add_column("method", overflow="fold")
        for column in ("top-1", "gain", "teacher"):
            table.add_column(column, justify="right", no_wrap=True)
        for column in ("epoch", "source"):
            table.add_column(column, no_wrap=True)
        for row in group:
            mark = f" ({notes.index(row.note) + 1})" if row.note else ""
            table.add_row(
                *(row.teacher or "-", row.student, row.method),
                *(_fixed(row.top1), _fixed(row.gain, "+"), _fixed(row.teacher_top1)),
                *("-" if row.epoch == "unknown" else row.epoch, f"{row.origin}{mark}"),
            )
        console.print(table)
        for number, note in enumerate(notes, 1):
            console.print(f"({number}) {note}", style="dim")
        console.print()
    console.print(
        f"{len(rows)} published number{'s' * (len(rows) != 1)}. gain: over the published student without a teacher; "
        "teacher: its top-1; epoch: whose top-1 is reported, where known. Full sources and addresses: --json.",
        style="dim",
    )


def _fixed(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.2f}"
