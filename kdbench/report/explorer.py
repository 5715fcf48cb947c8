"""Methods by pairs in several measures: the tables whose rows and columns the reader of a page chooses."""

import math
from collections.abc import Mapping, Sequence

from kdbench.report import text
from kdbench.report.content import Content, Gap
from kdbench.report.notes import accuracy_scope, cost_scope
from kdbench.report.tables import Row, Table, TableCell
from kdbench.results.study import Group

Place = tuple[str, str]
"""A pair and a method; or a group of pairs and a method, for their mean."""
Published = dict[Place, list[tuple[str, str]]]
"""Values of the literature, each with its source."""


def measures(content: Content) -> list[Table]:
    """A table a measure, which its `name` tells."""
    study = content.study
    control = study.control or "the control"
    tables = []
    if content.has_accuracy:
        scope, reasons = accuracy_scope(content, study.pairs), _reasons(content.cell_gaps)
        gains = {place: text.gain(row) for rows in (content.gains, content.group_gains) for place, row in rows.items()}
        cells = _cells(gains, reasons, _published(content, of_gain=True))
        tables.append(_table(content, f"Gain over {control}", f"Gain over {control}, points of top-1", cells, scope))
        top1 = {place: text.accuracy(row) for place, row in content.gains.items()}
        cells = _cells(top1, reasons, _published(content, of_gain=False))
        title = "Top-1 of the last epoch, percent, mean and spread over seeds"
        tables.append(_table(content, "Top-1", title, cells, scope))
    if content.has_throughput:
        speeds: dict[Place, str] = {place: text.speed(cost) for place, cost in content.costs.items()}
        speeds |= {place: text.mean_speed(cost) for place, cost in content.group_costs.items()}
        cells, title = _cells(speeds, _reasons(content.timing_gaps), {}), f"Training images/s relative to {control}"
        tables.append(_table(content, "Training throughput", title, cells, cost_scope(content, study.pairs)))
    return tables


def _cells(texts: Mapping[Place, str], reasons: Mapping[Place, str], published: Published) -> dict[Place, TableCell]:
    return {
        place: TableCell(words, why=reasons.get(place, ""), published=published.get(place, ()))
        for place, words in texts.items()
    }


def _table(content: Content, name: str, title: str, cells: Mapping[Place, TableCell], note: str) -> Table:
    """The methods by the pairs of each group, after their mean where there is one."""
    study = content.study
    rows: list[Row] = [{"method": method} for method in content.order]
    groups: dict[str, Group] = {}
    for group, pairs in study.groups.items():
        for column, place in [(f"mean {group}", group), *((pair, pair) for pair in pairs)]:
            groups[column] = group
            for row in rows:
                if (place, row["method"]) in cells:
                    row[column] = cells[place, row["method"]]
    return Table(name, title, rows, note, groups, roles=study.roles)


def _reasons(gaps: Sequence[Gap]) -> dict[Place, str]:
    """Why something is not done, by pair and method."""
    found: dict[Place, dict[str, None]] = {}
    for gap in gaps:
        reason = f"{gap.status}: {' '.join(gap.error.split())}" if gap.error else gap.status
        found.setdefault((gap.pair, gap.method), {})[reason] = None
    return {place: "; ".join(reasons) for place, reasons in found.items()}


def _published(content: Content, of_gain: bool) -> Published:
    """The published values of the study's own protocol."""
    found: Published = {}
    for row in content.own_published:
        match = row.gain if of_gain else row.top1
        if not math.isnan(match.published):
            value = text.published_value(row, of_gain)
            reason = f", not comparable: {row.reason}" if row.reason else ""
            source = f"published by {', '.join(row.sources)} ({row.protocol}, {row.epoch} epoch){reason}"
            found.setdefault((row.pair, row.method), []).append((value, source))
    return found
