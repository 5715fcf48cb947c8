"""The report on the console: the averages of each group of pairs, the gains pair by pair, at last what they say."""

from collections.abc import Sequence
from dataclasses import replace

import rich.table
from rich import box
from rich.console import Console
from rich.text import Text

from kdbench.report.content import Content
from kdbench.report.message import conclusion
from kdbench.report.notes import completeness, legends, notes
from kdbench.report.tables import Table, group_tables, pair_tables

OVERHEAD, EDGE = 2, 1
"""Columns that a cell takes beside its text, and a line beside its cells."""
MARKS = "*▲▼="
SPARED = ("differs", "extra parameters", "after Holm")
"""Columns that a narrow console goes without, in this order: report.html and report.md have them."""

Column = list[str]
"""What stands over a column, in one line or two, and its cells."""


def print_report(content: Content, console: Console) -> None:
    """Print the tables, what is to be known beside them, and last of all what the study says.

    Where the console has room for it, intervals of every pair are shown. A study without accuracies gets the cost of
    every pair in their place.
    """
    manifest = content.study.manifest
    print_line(console, f"{manifest['suite']} ({manifest['protocol']})", "bold")
    for group in content.study.groups:
        with_ends, without = group_tables(content, group), group_tables(content, group, with_ends=False)
        for wide, narrow in zip(with_ends, without, strict=True):
            fits = _total(_columns(wide.parts[0])) <= console.width
            print_table(console, _fitting((wide if fits else narrow).parts[0], console.width))
    if content.has_accuracy:
        print_line(console, completeness(content), "bold")
    else:
        for pair in content.study.pairs:
            for table in pair_tables(content, pair):
                print_table(console, replace(table, title=f"{table.title} on {pair}"))
    for line in [*notes(content), *legends(content)]:
        print_line(console, line, "dim")
    if content.has_accuracy:
        console.print()
        for line in conclusion(content):
            print_line(console, line, "bold")


def _fitting(table: Table, width: int) -> Table:
    """The table without the columns that a narrow console is spared, as far as it takes."""
    for column in SPARED:
        if _total(_columns(table)) <= width:
            break
        rows = [{name: cell for name, cell in row.items() if name != column} for row in table.rows]
        table = replace(table, rows=rows)
    return table


def print_table(console: Console, table: Table) -> None:
    """The title, the table in as many parts as the width asks for, and what stands under it."""
    print_line(console, table.title, "bold")
    first, *others = _columns(table)
    for part in _wrapped([first, *map(_aligned, others)], console.width):
        console.print(_grid(part))
    print_line(console, f" {table.note}\n", "dim")


def print_line(console: Console, line: str, style: str) -> None:
    """A line of free text, wrapped at words."""
    console.print(line, style=style, highlight=False, markup=False)


def _columns(table: Table) -> list[Column]:
    """The columns of a table; a name of two parts, such as that of a pair, has a line for each."""
    cells = zip(*table.lines, strict=True)
    return [[_in_lines(name), *column] for name, column in zip(table.columns, cells, strict=True)]


def _in_lines(name: str) -> str:
    return name.replace(":", ":\n", 1) if ":" in name else name.replace(" ", "\n", 1)


def _aligned(column: Column) -> Column:
    """The cells at one width: to the right, with room for marks, so that digits stand below digits."""
    head, *cells = column
    bare = [cell.rstrip(MARKS) for cell in cells]
    tail = max(len(cell) - len(body) for cell, body in zip(cells, bare, strict=True))
    width = max(map(len, bare))
    aligned = [(" " * (width - len(body)) + cell).ljust(width + tail) for cell, body in zip(cells, bare, strict=True)]
    return [head, *(cell.rjust(max(map(len, head.split("\n")))) for cell in aligned)]


def _grid(columns: list[Column]) -> rich.table.Table:
    grid = rich.table.Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0, 0, 1))
    for column in columns:
        side = "left" if column is columns[0] else "right"
        # Rich drops the trailing blanks of a cell it aligns to the right, so the cells bring their own alignment.
        grid.add_column(Text(column[0], justify=side), no_wrap=True)
    for line in list(zip(*columns, strict=True))[1:]:
        grid.add_row(*map(Text, line))
    return grid


def _width(column: Column) -> int:
    return max(len(line) for cell in column for line in cell.split("\n")) + OVERHEAD


def _total(columns: Sequence[Column]) -> int:
    """Characters of a line of them."""
    return EDGE + sum(_width(_aligned(column) if number else column) for number, column in enumerate(columns))


def _wrapped(columns: list[Column], width: int) -> list[list[Column]]:
    """The columns in several parts that fit the width, each with the first column and at least one other."""
    first, *others = columns
    parts = [[first]]
    for column in others:
        if len(parts[-1]) > 1 and EDGE + sum(map(_width, [*parts[-1], column])) > width:
            parts.append([first])
        parts[-1].append(column)
    return parts
