"""Mean rank of every method over the pairs of a group, with its interval."""

import math

import pandas as pd
from matplotlib.axes import Axes

from kdbench.report import text
from kdbench.report.content import Content
from kdbench.report.drawing.layout import Drawing, estimates, label_rows, label_width, panels, rows_height
from kdbench.report.drawing.style import Look, Style
from kdbench.report.plots import Plot, colours
from kdbench.results.study import Group


def _figure(content: Content, style: Style) -> Drawing:
    """One panel a group, one row a method that has a rank there, best first."""
    study = content.study
    shown = _ranked(content)
    names = [method for methods in shown.values() for method in methods]
    noise = "each pair and seed ranked by itself, 95 % interval (stratified t)"
    figure, axes = panels(
        [text.plural(len(study.groups[group]), f"{group} pair") for group in shown],
        (3.4, rows_height(max(map(len, shown.values())))),
        style=style,
        title="Mean rank by top-1",
        caption=text.caption(study, study.cells, noise),
        left=label_width(names),
        gap_x=label_width(names) + 0.2,
        x_label="mean rank (1 is best)",
    )
    for axis, (group, methods) in zip(axes, shown.items(), strict=True):
        _panel(axis, content, group, methods)
    return figure


def _table(content: Content) -> pd.DataFrame:
    """Mean rank with its interval by group and method, best first."""
    rows = [
        (group, method, rank.value, rank.low, rank.high)
        for group, methods in _ranked(content).items()
        for method in methods
        for rank in [content.group_gains[group, method].rank]
    ]
    return pd.DataFrame(rows, columns=["group", "method", "rank", "low", "high"])


def _ranked(content: Content) -> dict[Group, list[str]]:
    """The methods of each group that have a rank, best first; groups without any are left out."""
    found = {}
    for group in content.study.groups:
        ranks = {method: content.group_gains[group, method].rank.value for method in content.study.methods}
        known = [method for method in ranks if not math.isnan(ranks[method])]
        found |= {group: sorted(known, key=ranks.__getitem__)} if known else {}
    return found


def _panel(axis: Axes, content: Content, group: Group, methods: list[str]) -> None:
    colour = colours(content, group)
    label_rows(axis, methods, every_panel=True)
    axis.set_xlim(0.6, len(methods) + 0.4)
    axis.set_xticks(range(1, len(methods) + 1, 1 + len(methods) // 10))
    ranks = {method: content.group_gains[group, method].rank for method in methods}
    rows = [
        (rank, Look(colour[method], "o", "-"), f"{method}: rank {text.spread(rank)}") for method, rank in ranks.items()
    ]
    estimates(axis, rows, layer=2)


def _lacks(content: Content) -> str | None:
    return None if _ranked(content) else "methods complete on all pairs of a kind"


PLOT = Plot("ranks", "Mean ranks", 50, _figure, _table, _lacks, tabled=True)
