"""Mean rank of every method over the pairs of a group, with its interval."""

import math

from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from kdbench.report import text
from kdbench.report.content import Content
from kdbench.report.plots.layout import ROW, Drawing, head, label_width, panels, rows_of, tell
from kdbench.report.plots.style import SCREEN, Style, looks, styled
from kdbench.results.study import Group


def draw_ranks(content: Content, style: Style = SCREEN) -> Drawing:
    """One panel a group, one row a method that has a rank there, best first."""
    study = content.study
    every: dict[Group, list[str]] = {group: ranked(content, group) for group in study.groups}
    shown: dict[Group, list[str]] = {group: methods for group, methods in every.items() if methods}
    names = [method for methods in shown.values() for method in methods]
    rows = max(map(len, shown.values()))
    noise = "each pair and seed ranked by itself, 95 % interval (stratified t)"
    with styled(style):
        figure, axes = panels(
            len(shown),
            (3.4, max(ROW * (rows + 0.4), 0.8)),
            style=style,
            title="Mean rank by top-1",
            caption=text.caption(study, study.cells, noise),
            left=label_width(names),
            gap_x=label_width(names) + 0.2,
            x_labels=True,
        )
        for axis, (group, methods) in zip(axes, shown.items(), strict=True):
            head(axis, text.plural(len(study.groups[group]), f"{group} pair"))
            axis.set_xlabel("mean rank (1 is best)")
            _panel(axis, content, group, methods)
    return figure


def ranked(content: Content, group: Group) -> list[str]:
    """The methods of the group that have a rank, best first."""
    ranks = {method: content.group_gains[group, method].rank.value for method in content.study.methods}
    return sorted((method for method in ranks if not math.isnan(ranks[method])), key=lambda method: ranks[method])


def _panel(axis: Axes, content: Content, group: Group, methods: list[str]) -> None:
    styles = looks(content.study.methods, content.study.control)
    rows_of(axis, methods, labelled=True)
    axis.set_xlim(0.6, len(methods) + 0.4)
    axis.set_xticks(range(1, len(methods) + 1, 1 + len(methods) // 10))
    ranks = [content.group_gains[group, method].rank for method in methods]
    ends = [[(rank.low, y), (rank.high, y)] for y, rank in enumerate(ranks) if not math.isnan(rank.low)]
    colours = [styles[method].colour for method, rank in zip(methods, ranks, strict=True) if not math.isnan(rank.low)]
    axis.add_collection(LineCollection(ends, colors=colours))
    for marker in dict.fromkeys(styles[method].marker for method in methods):
        own = [y for y, method in enumerate(methods) if styles[method].marker == marker]
        places, inks = [ranks[y].value for y in own], [styles[methods[y]].colour for y in own]
        marks = axis.scatter(places, own, s=5**2, marker=marker, c=inks, linewidths=1, zorder=2)
        tell(axis, marks, [f"{methods[y]}: rank {text.spread(ranks[y])}" for y in own])
