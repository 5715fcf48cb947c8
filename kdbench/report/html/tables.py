"""The tables of the page: methods by pairs in several measures, and those of the other reports."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from kdbench.report import text
from kdbench.report.content import Content
from kdbench.report.html.element import Html, element
from kdbench.report.notes import accuracy_scope, cost_scope
from kdbench.report.sections import Section
from kdbench.results.study import Group

Cell = Callable[[Content, "Column", str], tuple[str, bool]]
"""What a measure says of a method in a column, and whether it is complete there."""


@dataclass(frozen=True)
class Column:
    """A column of methods by pairs: the mean over a group, or one of its pairs."""

    title: str
    group: Group
    pair: str | None


def section_table(section: Section) -> Html:
    """A table of text with its title and what stands under it."""
    names = [str(name) for name in section.rows.columns]
    head = element("tr", [_header(name) for name in names])
    body = [
        element("tr", element("th", str(first), scope="row"), [_cell(str(cell)) for cell in others])
        for first, *others in section.rows.to_numpy().tolist()
    ]
    return _table(section.title, section.under, head, body)


def matrices(content: Content) -> list[tuple[str, Html]]:
    """Methods by pairs, by the name of the measure."""
    pairs = content.study.pairs
    tables = []
    if content.has_accuracy:
        control = content.study.control or "the control"
        scope = accuracy_scope(content, pairs)
        tables += [
            (f"Gain over {control}", _matrix(content, f"Gain over {control}, points of top-1", scope, _gain)),
            ("Top-1", _matrix(content, "Top-1 of the last epoch, percent, mean and spread over seeds", scope, _top1)),
        ]
    if content.has_throughput:
        title = f"Training images/s relative to {content.study.control or 'the control'}"
        tables.append(("Training throughput", _matrix(content, title, cost_scope(content, pairs), _speed)))
    return tables


def _matrix(content: Content, title: str, under: str, cell: Cell) -> Html:
    columns = [
        column
        for group, pairs in content.study.groups.items()
        for column in (Column(f"mean {group}", group, None), *(Column(pair, group, pair) for pair in pairs))
    ]
    whys = _reasons(content)
    published = _published(content) if cell is not _speed else {}
    shown = [column for column in columns if column.pair is not None or cell is not _top1]
    head = element("tr", _header("method"), [_header(one.title, one.group, one.pair is not None) for one in shown])
    body = []
    for method in content.study.methods:
        cells = []
        for column in shown:
            words, known = cell(content, column, method)
            why = "" if known else whys.get((column.pair or "", method), "")
            beside = published.get((column.pair or "", method, cell is _gain), [])
            cells.append(_cell(words, known, why, beside))
        body.append(element("tr", element("th", method, scope="row"), cells))
    return _table(title, under, head, body)


def _gain(content: Content, column: Column, method: str) -> tuple[str, bool]:
    row = content.gains[column.pair, method] if column.pair else content.group_gains[column.group, method]
    return text.gain(row), not math.isnan(row.gain.value)


def _top1(content: Content, column: Column, method: str) -> tuple[str, bool]:
    row = content.gains[column.pair or "", method]
    return text.accuracy(row), not math.isnan(row.top1)


def _speed(content: Content, column: Column, method: str) -> tuple[str, bool]:
    if column.pair is None:
        cost = content.group_costs[column.group, method]
        known = cost.measured == cost.pairs
        return (text.ratio(cost.to_control) if known else text.runs(cost.measured, cost.pairs)), known
    cost = content.costs[column.pair, method]
    return text.speed(cost), cost.status == "done"


def _reasons(content: Content) -> dict[tuple[str, str], str]:
    """Why a cell is not done, by pair and method."""
    cells = content.study.cells
    found: dict[tuple[str, str], dict[str, None]] = {}
    columns = (cells[name].tolist() for name in ("pair", "method", "status", "error"))
    for pair, method, status, error in zip(*columns, strict=True):
        if status != "done":
            why = f"{status}: {' '.join(error.split())}" if isinstance(error, str) and error else str(status)
            found.setdefault((pair, method), {})[why] = None
    return {place: "; ".join(whys) for place, whys in found.items()}


def _published(content: Content) -> dict[tuple[str, str, bool], list[tuple[str, str]]]:
    """Published values of the study's own protocol with their source, by pair, method and whether it is a gain."""
    found: dict[tuple[str, str, bool], list[tuple[str, str]]] = {}
    for row in content.own_published:
        why = f", not comparable: {row.reason}" if row.reason else ""
        source = f"published by {', '.join(row.sources)} ({row.protocol}, {row.epoch} epoch){why}"
        for match, of_gain in ((row.top1, False), (row.gain, True)):
            if not math.isnan(match.published):
                value = text.signed(match.published) if of_gain else text.fixed(match.published)
                found.setdefault((row.pair, row.method, of_gain), []).append((value, source))
    return found


def _table(title: str, under: str, head: Html, body: list[Html]) -> Html:
    table = element("table", element("caption", title), element("thead", head), element("tbody", body))
    return element(
        "div",
        # What can be scrolled can be reached by keyboard, and says what it is.
        element("div", table, class_="scroll", tabindex="0", role="region", aria_label=title),
        element("p", under, class_="under"),
        class_="table",
    )


def _header(name: str, group: str | None = None, is_pair: bool = False) -> Html:
    # In two lines: teacher above student, the first word above the others.
    first, second, rest = name.partition(":" if ":" in name else " ")
    button = element("button", f"{first}{second}", element("br") if rest else "", rest, type="button")
    return element("th", button, scope="col", aria_sort="none", data_group=group, data_pair=name if is_pair else None)


def _cell(words: str, known: bool = True, why: str = "", published: list[tuple[str, str]] | None = None) -> Html:
    value, bracket, rest = words.partition(" [")
    ends, _, marks = rest.partition("]")
    interval = element("small", f"[{ends}]") if bracket else ""
    beside = [element("span", f"○ {number}", class_="published", title=source) for number, source in published or []]
    gap = not known or value.startswith(("X", "n/a"))
    return element("td", f"{value}{marks}", interval, beside, class_="gap" if gap else None, title=why or None)
