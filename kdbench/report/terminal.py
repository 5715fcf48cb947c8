"""The report on the console: the averages of each group of pairs, then the gains pair by pair."""

from dataclasses import replace

import rich.table
from rich import box
from rich.console import Console
from rich.text import Text

from kdbench.report.content import Content
from kdbench.report.notes import completeness, legends, notes
from kdbench.report.tables import Table, group_tables, pair_tables

OVERHEAD = 3
"""Columns that a cell takes beside its text."""
MARKS = "*▲▼="

Column = list[str]
"""What stands over a column, in one line or two, and its cells."""


def print_report(content: Content, console: Console) -> None:
    """Print the tables; a console of some 140 columns shows tests and intervals of every pair too.

    A study without accuracies gets the cost of every pair in their place.
    """
    manifest = content.study.manifest
    print_line(console, f"{manifest['suite']} ({manifest['protocol']})", "bold")
    for group in content.study.groups:
        tables = group_tables(content, group)
        if sum(map(_width, _columns(tables[0]))) > console.width:
            tables = group_tables(content, group, full=False)
        for table in tables:
            print_table(console, table)
    if content.has_accuracy:
        print_line(console, completeness(content), "bold")
    else:
        for pair in content.study.pairs:
            for table in pair_tables(content, pair):
                print_table(console, replace(table, title=f"{table.title} on {pair}"))
    for line in [*notes(content), *legends(content)]:
        print_line(console, line, "dim")


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
    """The columns of a table; the names of a pair, or of two contenders, are on a line each."""
    cells = zip(*table.lines, strict=True)
    return [[name.replace(":", ":\n", 1), *column] for name, column in zip(table.columns, cells, strict=True)]


def _aligned(column: Column) -> Column:
    """The cells at one width: to the right, with room for marks, so that digits stand below digits."""
    head, *cells = column
    bare = [cell.rstrip(MARKS) for cell in cells]
    tail = max(len(cell) - len(body) for cell, body in zip(cells, bare, strict=True))
    width = max(map(len, bare))
    aligned = [(" " * (width - len(body)) + cell).ljust(width + tail) for cell, body in zip(cells, bare, strict=True)]
    return [head, *(cell.rjust(max(map(len, head.split("\n")))) for cell in aligned)]


def _grid(columns: list[Column]) -> rich.table.Table:
    grid = rich.table.Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        side = "left" if column is columns[0] else "right"
        # Rich drops the trailing blanks of a cell it aligns to the right, so the cells bring their own alignment.
        grid.add_column(Text(column[0], justify=side), no_wrap=True)
    for line in list(zip(*columns, strict=True))[1:]:
        grid.add_row(*map(Text, line))
    return grid


def _width(column: Column) -> int:
    return max(len(line) for cell in column for line in cell.split("\n")) + OVERHEAD


def _wrapped(columns: list[Column], width: int) -> list[list[Column]]:
    """The columns in several parts that fit the width, each with the first column and at least one other."""
    first, *others = columns
    parts = [[first]]
    for column in others:
        if len(parts[-1]) > 1 and sum(map(_width, [*parts[-1], column])) > width:
            parts.append([first])
        parts[-1].append(column)
    return parts
