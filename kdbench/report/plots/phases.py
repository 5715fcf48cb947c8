"""Where the time of a training step goes, method by method."""

import math
from collections.abc import Mapping
from statistics import fmean

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.patches import Patch

from kdbench.report import text
from kdbench.report.content import Content
from kdbench.report.drawing.layout import Drawing, label_rows, label_width, panels, rows_height, tell
from kdbench.report.drawing.style import GREY, PHASE_COLOURS, Style
from kdbench.report.notes import cost_scope
from kdbench.report.plots import Plot
from kdbench.results.study import Group

BAR = 0.36
"""Half the height of a bar, in rows."""


def _figure(content: Content, style: Style) -> Drawing:
    """One panel a group of pairs, one bar a method, the shortest first, its parts in the order of a step."""
    study = content.study
    rows = {group: _means(content, group) for group in study.groups}
    left = label_width(study.methods)
    figure, axes = panels(
        [f"mean over {text.plural(len(pairs), f'{group} pair')}" for group, pairs in study.groups.items()],
        (5.0, rows_height(len(study.methods))),
        style=style,
        title="Milliseconds a training step, by phase",
        caption=text.caption(study, study.throughput, "means over pairs of medians of a separate pass"),
        left=left,
        gap_x=left + 0.2,
        legend={name: Patch(color=_colour(number)) for number, name in enumerate(content.phases)},
        least=2.0,
    )
    for axis, means in zip(axes, rows.values(), strict=True):
        label_rows(axis, list(means), every_panel=True)
        axis.grid(False, axis="y")
        _bars(axis, content, means)
    return figure


def _means(content: Content, group: Group) -> dict[str, dict[str, float]]:
    """Milliseconds by method and phase, mean over the pairs of the group; no phases where a pair was not measured."""
    found: dict[str, dict[str, float]] = {}
    for method in content.study.methods:
        own = [content.costs[pair, method].phases for pair in content.study.groups[group]]
        whole = all(own)
        found[method] = {name: fmean(one.get(name, 0.0) for one in own) for name in content.phases} if whole else {}
    return dict(sorted(found.items(), key=lambda item: sum(item[1].values()) or math.inf))


def _table(content: Content) -> pd.DataFrame:
    """Milliseconds by pair, method and phase."""
    costs = content.costs.values()
    rows = [(cost.pair, cost.method, phase, value) for cost in costs for phase, value in cost.phases.items()]
    return pd.DataFrame(rows, columns=["pair", "method", "phase", "milliseconds"])


def _colour(phase: int) -> str:
    return PHASE_COLOURS[phase % len(PHASE_COLOURS)]


def _bars(axis: Axes, content: Content, means: Mapping[str, Mapping[str, float]]) -> None:
    """One collection for all bars of a panel: a patch for each would take most of the time of a large report."""
    boxes, colours, tips = [], [], []
    for y, (method, phases) in enumerate(means.items()):
        if not phases:
            axis.text(0, y, " not measured on all pairs", va="center", color=GREY)
        start = 0.0
        for i, name in enumerate(content.phases):
            end = start + phases.get(name, 0.0)
            tips.append(f"{method}, {name}: {end - start:.2f} ms")
            boxes.append([(start, y - BAR), (start, y + BAR), (end, y + BAR), (end, y - BAR)])
            colours.append(_colour(i))
            start = end
    bars = PolyCollection(boxes, facecolors=colours, edgecolors="none")
    axis.add_collection(bars, autolim=False)
    tell(axis, bars, tips)
    longest = max(corner[0] for box in boxes for corner in box)
    axis.set_xlim(0, 1.05 * longest or 1.0)


def _lacks(content: Content) -> str | None:
    return None if content.phases else ""


PLOT = Plot("phases", "Where the time of a step goes", 90, _figure, _table, _lacks, scope=cost_scope, slow=3)
