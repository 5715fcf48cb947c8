"""`kdbench published`: the published numbers that results are held against, without importing torch."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from kdbench.cli import completion, options
from kdbench.cli.console import open_console, print_json, say
from kdbench.errors import KdbenchError

if TYPE_CHECKING:
    from kdbench.analysis.published import Number
    from kdbench.suites.schema import Suite


def published(
    *,
    suite: Annotated[str | None, Parameter(completer=completion.suite_names)] = None,
    pair: Annotated[str | None, Parameter(metavar="TEACHER:STUDENT", completer=completion.pair_names)] = None,
    method: Annotated[str | None, Parameter(completer=completion.method_names)] = None,
    protocol: Annotated[str | None, Parameter(completer=completion.protocol_names)] = None,
    json: options.Json = False,
) -> None:
    """Look up published numbers.

    Args:
        suite: The numbers for the pairs of this suite, under its protocol.
        pair: A pair by the names of the suite or of the papers.
        method: A method of kdbench, or what the papers call one.
        protocol: One of the protocols of the table. Default: the suite's, or all.
    """
    from kdbench.analysis.published import find_published, numbers, published_name
    from kdbench.suites.loading import load_suite

    loaded = load_suite(suite) if suite else None
    name = loaded.published if loaded else None
    if protocol:
        name = published_name("protocol", protocol, (row.protocol for row in numbers()))
    elif loaded and not name:
        raise KdbenchError(f"nothing published is like suite {loaded.name}; name a --protocol, or leave --suite out")
    pairs = None
    if pair:
        pairs = [_pair(pair, loaded)]
    elif loaded:
        labels = {name: model.published for name, model in loaded.models.items()}
        pairs = [(labels[pair.teacher] or "", labels[pair.student] or "") for pair in loaded.pairs]
    rows = find_published(protocol=name, pairs=pairs, methods=_methods(method) if method else None)
    if json:
        print_json([{**asdict(row), "gain": row.gain, "epoch": row.epoch} for row in rows])
    else:
        _show(rows)


def _pair(text: str, suite: "Suite | None") -> tuple[str, str]:
    """Teacher and student by their published names."""
    from kdbench.analysis.published import numbers, published_name

    teacher, colon, student = text.partition(":")
    if not colon:
        raise KdbenchError(f"--pair {text!r} is not of the form teacher:student")
    names_of_suite = {name: model.published for name, model in suite.models.items() if model.published} if suite else {}
    teachers = {row.teacher: row.teacher for row in numbers()} | names_of_suite
    students = {row.student: row.student for row in numbers()} | names_of_suite
    return (
        teachers[published_name("published teacher", teacher, teachers)],
        students[published_name("published student", student, students)],
    )


def _methods(name: str) -> Sequence[str]:
    """What the table calls the method `name`: one of kdbench by name or alias, or one of the table."""
    from kdbench.analysis.published import numbers, published_name
    from kdbench.registry import Registry

    registry = Registry.installed()
    published_names: dict[str, Sequence[str]] = {row.method: [row.method] for row in numbers()}
    for method in registry.names:
        source = registry.plugins[method].source
        if source.published:
            published_names |= dict.fromkeys((method, *source.aliases), source.published)
    return published_names[published_name("published method", name, published_names)]


def _show(rows: Sequence["Number"]) -> None:
    """One table a protocol, what must be known of single rows below it."""
    from rich.table import Table

    from kdbench.analysis.published import protocols

    console = open_console()
    for name, protocol in protocols().items():
        group = [row for row in rows if row.protocol == name]
        if not group:
            continue
        say(console, f"{name} ({protocol.dataset}): {protocol.summary}", style="bold", wrap=True)
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
            say(console, f"({number}) {note}", style="dim", wrap=True)
        console.print()
    say(
        console,
        f"{len(rows)} published number{'s' * (len(rows) != 1)}. gain: over the published student without a teacher; "
        "teacher: its top-1; epoch: whose top-1 is reported, where known. Full sources and addresses: --json.",
        style="dim",
        wrap=True,
    )


def _fixed(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.2f}"
