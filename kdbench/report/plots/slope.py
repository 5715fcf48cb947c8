"""What a method gains on heterogeneous pairs against what it gains on homogeneous ones."""

import math

import pandas as pd
from matplotlib.axes import Axes

from kdbench.report import text
from kdbench.report.content import Content
from kdbench.report.drawing.layout import ROW, Drawing, label_width, panels, spaced, tell
from kdbench.report.drawing.style import GREY, Style, looks
from kdbench.report.plots import Plot

LABEL = 0.8 * ROW
"""Height of a label."""


def _figure(content: Content, style: Style) -> Drawing:
    """One line a method that is complete on both kinds of pairs; the others are named in the caption."""
    study = content.study
    methods = _slopes(content)
    absent = [method for method in study.methods if method not in methods and method != study.control]
    caption = text.caption(study, study.cells, "means over pairs and seeds")
    caption += f" · not shown (incomplete): {', '.join(absent)}" if absent else ""
    height = max(2.6, LABEL * (len(methods) + 1))
    figure, (axis,) = panels(
        [""],
        (2.6, height),
        style=style,
        title=f"Gain over {study.control} by kind of pair",
        caption=caption,
        left=0.6,
        right=label_width(list(methods)) + 0.25,
        y_label="gain in points of top-1",
    )
    axis.set_xlim(-0.08, 1.04)
    axis.set_xticks([0, 1], [f"{group} ({len(pairs)})" for group, pairs in study.groups.items()])
    axis.grid(False, axis="x")
    axis.axhline(0, color=GREY, linewidth=0.7)
    _lines(axis, content, methods, LABEL / height)
    return figure


def _table(content: Content) -> pd.DataFrame:
    """Mean gain over the pairs of both kinds."""
    rows = [(method, *gains) for method, gains in _slopes(content).items()]
    return pd.DataFrame(rows, columns=["method", *content.study.groups])


def _slopes(content: Content) -> dict[str, tuple[float, float]]:
    """Mean gain over the pairs of both kinds, for every method that has both."""
    study = content.study
    if len(study.groups) < 2:
        return {}
    first, last = (
        {method: content.group_gains[group, method].gain.value for method in study.methods} for group in study.groups
    )
    methods = [method for method in study.methods if method != study.control]
    return {name: (first[name], last[name]) for name in methods if not math.isnan(first[name] + last[name])}


def _lines(axis: Axes, content: Content, methods: dict[str, tuple[float, float]], label: float) -> None:
    styles = looks(content.study.methods, content.study.control)
    for method, gains in methods.items():
        look = styles[method]
        (line,) = axis.plot([0, 1], gains, linestyle=look.line, marker=look.marker, color=look.colour, markersize=4)
        tip = f"{method}: {text.signed(gains[0])} heterogeneous, {text.signed(gains[1])} homogeneous"
        # The line and its two markers say the same.
        tell(axis, line, [tip] * 3)
    low, high = axis.get_ylim()
    ends = [(gains[1] - low) / (high - low) for gains in methods.values()]
    for method, end, place in zip(methods, ends, spaced(ends, label, 0.0, 1.0), strict=True):
        colour = styles[method].colour
        places = [(1.0, end), (1.045, place), (1.06, place)]
        to_data = axis.transAxes
        axis.plot(*zip(*places, strict=True), color=colour, linewidth=0.5, transform=to_data, clip_on=False)
        axis.text(1.07, place, method, transform=to_data, va="center", color=colour)


def _lacks(content: Content) -> str | None:
    return None if _slopes(content) else "methods complete on both kinds"


PLOT = Plot("slope", "Heterogeneous against homogeneous pairs", 40, _figure, _table, _lacks)
