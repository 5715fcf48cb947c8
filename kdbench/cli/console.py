"""How commands print: one console, lines of one or several styles, tables, JSON, and the one line of an error."""

import json
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, NoReturn

from kdbench.errors import EXIT_USAGE, one_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

LONGEST_LINE = 2000
"""Characters of an error's line; a word on the command line may have a hundred thousand."""


def open_console(as_json: bool = False, quiet: bool = False) -> "Console":
    """The console of a command: standard output, or standard error where the output is to be JSON and nothing else.

    No text that it prints is markup: names of models hold brackets.
    """
    from rich.console import Console

    return Console(stderr=as_json, quiet=quiet, highlight=False, markup=False)


def say(console: "Console", *pieces: "str | tuple[str, str]", style: str = "", wrap: bool = False) -> None:
    """Print a line of text as it is: no word in it is markup.

    Args:
        console: where to print.
        pieces: texts, or pairs of a text and its style.
        style: the style of the whole line.
        wrap: break the line where the terminal ends; else it stays one line that can be copied, however long.
    """
    from rich.text import Text

    console.print(Text.assemble(*pieces, style=style), soft_wrap=not wrap)


def make_table(
    rows: Sequence[Mapping[str, object]],
    *,
    unbroken: Collection[str] = (),
    numbers: Collection[str] = (),
    title: str | None = None,
) -> "Table":
    """A table of `rows`, whose keys are its head. A cell is shown as text, in a style where it is a `rich.text.Text`.

    Args:
        rows: the rows, all with the same keys.
        unbroken: the columns that are not broken into several lines.
        numbers: the columns that are aligned to the right, and not broken either.
        title: what stands above it.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    for column in rows[0] if rows else ():
        right = column in numbers
        table.add_column(
            column, justify="right" if right else "left", no_wrap=right or column in unbroken, overflow="fold"
        )
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in row.values()))
    return table


def print_json(value: object) -> None:
    """Print the machine-readable result of a command."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    # What is no text in a file's name is escaped as JSON escapes it.
    print(text.encode(errors="backslashreplace").decode())


def fail(message: str, exit_code: int = EXIT_USAGE) -> NoReturn:
    """Print `message` in one line on standard error and end the process with `exit_code`."""
    line = one_line(message)
    if len(line) > LONGEST_LINE:
        line = f"{line[: LONGEST_LINE - 300]} ... {line[-300:]}"
    say(open_console(as_json=True), ("kdbench:", "bold red"), f" {line}")
    sys.exit(exit_code)
