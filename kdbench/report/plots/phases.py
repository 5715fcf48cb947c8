"""Where the time of a training step goes, method by method."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.patches import Patch

from kdbench.report import text
from kdbench.report.content import Content
from kdbench.report.drawing.layout import Drawing, label_rows, label_width, panel_width, panels, rows_height, tell
from kdbench.report.drawing.style import GREY, PHASE_COLOURS, Style
from kdbench.report.notes import cost_scope
from kdbench.report.plots import Plot

BAR = 0.36
"""Half the height of a bar, in rows."""


def _figure(content: Content, style: Style) -> Drawing:
    """One panel a pair, one bar a method, its parts in the order of a step and its length in milliseconds."""
    study = content.study
    figure, axes = panels(
        study.pairs,
        (panel_width(len(study.pairs)), rows_height(len(study.methods))),
        style=style,
        title="Milliseconds a training step, by phase",
        caption=text.caption(study, study.throughput, "medians of a separate pass"),
        left=label_width(study.methods),
        legend={name: Patch(color=_colour(number)) for number, name in enumerate(content.phases)},
    )
    for axis, pair in zip(axes, study.pairs, strict=True):
        label_rows(axis, study.methods)
        axis.grid(False, axis="y")
        _bars(axis, content, pair)
    return figure


def _table(content: Content) -> pd.DataFrame:
    """Milliseconds by pair, method and phase."""
    costs = content.costs.values()
    rows = [(cost.pair, cost.method, phase, value) for cost in costs for phase, value in cost.phases.items()]
    return pd.DataFrame(rows, columns=["pair", "method", "phase", "milliseconds"])


def _colour(phase: int) -> str:
    return PHASE_COLOURS[phase % len(PHASE_COLOURS)]


def _bars(axis: Axes, content: Content, pair: str) -> None:
    """One collection for all bars of a panel: a patch for each would take most of the time of a large report."""
    boxes, colours, tips = [], [], []
    for y, method in enumerate(content.study.methods):
        cost = content.costs[pair, method]
        if not cost.phases:
            axis.text(0, y, f" {'n/a' if cost.status == 'unsupported' else 'X'}", va="center", color=GREY)
        start = 0.0
        for i, name in enumerate(content.phases):
            end = start + cost.phases.get(name, 0.0)
            tips.append(f"{method} on {pair}, {name}: {end - start:.2f} ms")
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
