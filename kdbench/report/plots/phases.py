"""Where the time of a training step goes, method by method."""

from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.patches import Patch

from kdbench.report import text
from kdbench.report.content import Content
from kdbench.report.plots.layout import (
    ROW,
    Drawing,
    first_in_row,
    head,
    label_width,
    legend_right,
    panel_width,
    panels,
    rows_of,
    tell,
)
from kdbench.report.plots.style import GREY, PHASE_COLOURS, SCREEN, Style, styled
from kdbench.report.tables import phases

BAR = 0.36
"""Half the height of a bar, in rows."""


def draw_phases(content: Content, style: Style = SCREEN) -> Drawing:
    """One panel a pair, one bar a method, its parts in the order of a step and its length in milliseconds."""
    study = content.study
    names = phases(content)
    right = label_width(names) + 0.5
    with styled(style):
        figure, axes = panels(
            len(study.pairs),
            (panel_width(len(study.pairs)), max(ROW * (len(study.methods) + 0.4), 0.8)),
            style=style,
            title="Milliseconds a training step, by phase",
            caption=text.caption(study, study.throughput, "medians of a separate pass"),
            left=label_width(study.methods),
            right=right,
        )
        labelled = first_in_row(axes)
        for axis, pair in zip(axes, study.pairs, strict=True):
            head(axis, pair)
            rows_of(axis, study.methods, axis in labelled)
            axis.grid(False, axis="y")
            _bars(axis, content, pair, names)
        handles = [Patch(color=PHASE_COLOURS[i % len(PHASE_COLOURS)]) for i in range(len(names))]
        legend_right(figure, handles, names, right)
    return figure


def _bars(axis: Axes, content: Content, pair: str, names: list[str]) -> None:
    """One collection for all bars of a panel: a patch for each would take most of the time of a large report."""
    boxes, colours, tips = [], [], []
    for y, method in enumerate(content.study.methods):
        cost = content.costs[pair, method]
        if not cost.phases:
            axis.text(0, y, f" {'n/a' if cost.status == 'unsupported' else 'X'}", va="center", color=GREY)
        start = 0.0
        for i, name in enumerate(names):
            end = start + cost.phases.get(name, 0.0)
            tips.append(f"{method} on {pair}, {name}: {end - start:.2f} ms")
            boxes.append([(start, y - BAR), (start, y + BAR), (end, y + BAR), (end, y - BAR)])
            colours.append(PHASE_COLOURS[i % len(PHASE_COLOURS)])
            start = end
    bars = PolyCollection(boxes, facecolors=colours, edgecolors="none")
    axis.add_collection(bars, autolim=False)
    tell(axis, bars, tips)
    longest = max(corner[0] for box in boxes for corner in box)
    axis.set_xlim(0, 1.05 * longest or 1.0)
