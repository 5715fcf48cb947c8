"""The report on the console: the averages of each group of pairs, then the gains pair by pair."""

from dataclasses import replace

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kdbench.report import text
from kdbench.report.content import Content
from kdbench.report.notes import completeness, notes
from kdbench.report.sections import Section, group_sections, pair_sections

OVERHEAD = 3
"""Columns that a cell takes beside its text."""
MARKS = "*▲▼="


def print_report(content: Content, console: Console) -> None:
    """Print the tables; a console of some 140 columns shows tests and intervals of every pair too.

    A study without accuracies gets the cost of every pair in their place.
    """
    manifest = content.study.manifest
    console.print(f"{manifest['suite']} ({manifest['protocol']})", style="bold", highlight=False, markup=False)
    for group in content.study.groups:
        sections = group_sections(content, group)
        if _total_width(sections[0].rows) > console.width:
            sections = group_sections(content, group, full=False)
        for section in sections:
            print_section(console, section)
    legends = [text.LEGEND, text.SCOPE, *([text.PUBLISHED_LEGEND] if content.own_published else [])]
    if content.has_accuracy:
        console.print(completeness(content), style="bold", highlight=False, markup=False)
    else:
        for pair in content.study.pairs:
            for section in pair_sections(content, pair):
                print_section(console, replace(section, title=f"{section.title} on {pair}"))
        legends = [text.SPEED_LEGEND]
    for line in [*notes(content), *legends]:
        console.print(line, style="dim", highlight=False, markup=False)


def print_section(console: Console, section: Section) -> None:
    """The title, the table in as many parts as the width asks for, and what stands under it."""
    console.print(section.title, style="bold", highlight=False, markup=False)
    rows = section.rows
    first, *others = rows.columns
    headers = {name: max(map(len, _header(str(name)).split("\n"))) for name in others}
    aligned = pd.DataFrame(
        {first: rows[first]}
        | {name: [cell.rjust(headers[name]) for cell in _aligned(rows[name].tolist())] for name in others}
    )
    for part in _wrapped(aligned, console.width):
        console.print(_table(part))
    console.print(f" {section.under}\n", style="dim", highlight=False, markup=False)


def _aligned(cells: list[str]) -> list[str]:
    """The cells of a column at one width: to the right, with room for marks, so that digits stand below digits."""
    bare = [cell.rstrip(MARKS) for cell in cells]
    tail = max(len(cell) - len(body) for cell, body in zip(cells, bare, strict=True))
    width = max(map(len, bare))
    return [(" " * (width - len(body)) + cell).ljust(width + tail) for cell, body in zip(cells, bare, strict=True)]


def _table(rows: pd.DataFrame) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in rows.columns:
        side = "left" if name == rows.columns[0] else "right"
        # Rich drops the trailing blanks of a cell it aligns to the right, so the cells bring their own alignment.
        table.add_column(Text(_header(str(name)), justify=side), no_wrap=True)
    for line in rows.to_numpy().tolist():
        table.add_row(*map(Text, line))
    return table


def _header(name: str) -> str:
    """The names of a pair, or of two contenders, on a line each."""
    return name.replace(":", ":\n", 1)


def _width(rows: pd.DataFrame, name: str) -> int:
    lines = [*_header(name).split("\n"), *rows[name].tolist()]
    return max(map(len, lines)) + OVERHEAD


def _total_width(rows: pd.DataFrame) -> int:
    return sum(_width(rows, str(name)) for name in rows.columns)


def _wrapped(rows: pd.DataFrame, width: int) -> list[pd.DataFrame]:
    """The table cut into several that fit the width, each with the first column and at least one other."""
    first, *others = map(str, rows.columns)
    parts: list[list[str]] = [[]]
    used = start = _width(rows, first)
    for name in others:
        needed = _width(rows, name)
        if parts[-1] and used + needed > width:
            parts.append([])
            used = start
        parts[-1].append(name)
        used += needed
    return [rows[[first, *names]] for names in parts]
