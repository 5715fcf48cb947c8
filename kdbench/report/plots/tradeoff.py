"""Mean gain against training throughput, both relative to the control, with the Pareto front."""

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from kdbench.analysis.stats import pareto_front
from kdbench.report import text
from kdbench.report.content import Content
from kdbench.report.drawing.layout import ROW, Drawing, panels, tell
from kdbench.report.drawing.style import GREY, Look, Style, looks
from kdbench.report.plots import Plot
from kdbench.results.study import Group

LINE, WIDEST = 8.0, 60.0
"""Points that a name takes, by height and at most by width."""


def _figure(content: Content, style: Style) -> Drawing:
    """One panel a group of pairs, one point a method; methods without an average are named in the caption."""
    study = content.study
    styles = looks(study.methods, study.control)
    shown: dict[Group, list[str]] = {
        group: [method for method in study.methods if not math.isnan(_point(content, group, method)[1])]
        for group in study.groups
    }
    absent = [
        f"not shown for {group} pairs (incomplete): {', '.join(left)}"
        for group, methods in shown.items()
        if (left := [method for method in study.methods if method not in methods])
    ]
    caption = text.caption(study, study.throughput, "95 % interval (stratified t), line: Pareto front")
    figure, axes = panels(
        [f"mean over {text.plural(len(pairs), f'{group} pair')}" for group, pairs in study.groups.items()],
        (3.9, max(3.2, ROW * len(study.methods) - 0.2)),
        style=style,
        title=f"Gain over {study.control} against training throughput",
        caption=" · ".join([caption, *absent]),
        left=0.6,
        gap_x=0.6,
        x_label=f"training images/s relative to {study.control}",
        y_label="gain in points of top-1",
        legend={
            name: Line2D([], [], color=look.colour, marker=look.marker, linestyle="", markersize=6)
            for name, look in styles.items()
        },
    )
    for axis, (group, methods) in zip(axes, shown.items(), strict=True):
        _panel(axis, content, group, methods, styles)
    return figure


def _table(content: Content) -> pd.DataFrame:
    """Mean gain and relative throughput by group and method."""
    rows = [
        (group, method, row.gain.value, row.gain.low, row.gain.high, content.group_costs[group, method].to_control)
        for (group, method), row in content.group_gains.items()
    ]
    return pd.DataFrame(rows, columns=["group", "method", "gain", "low", "high", "speed_to_control"])


def _point(content: Content, group: Group, method: str) -> tuple[float, float]:
    """Throughput and gain; NaN in both when either is unknown."""
    speed = content.group_costs[group, method].to_control
    gain = content.group_gains[group, method].gain.value
    return (math.nan, math.nan) if math.isnan(speed + gain) else (speed, gain)


def _panel(axis: Axes, content: Content, group: Group, methods: list[str], styles: dict[str, Look]) -> None:
    points = np.array([_point(content, group, method) for method in methods]).reshape(-1, 2)
    axis.axhline(0, color=GREY, linewidth=0.7)
    axis.axvline(1, color=GREY, linewidth=0.7)
    best = pareto_front(points[:, 0], points[:, 1])
    front = points[best]
    front = front[front[:, 0].argsort()]
    axis.plot(front[:, 0], front[:, 1], color="#BBBBBB", drawstyle="steps-pre", linewidth=2.5)
    for method, (speed, gain) in zip(methods, points, strict=True):
        look, interval = styles[method], content.group_gains[group, method].gain
        axis.plot([speed, speed], [interval.low, interval.high], color=look.colour, linewidth=1, alpha=0.7)
        edge = {"markeredgecolor": "white", "markeredgewidth": 0.5}
        (mark,) = axis.plot([speed], [gain], look.marker, color=look.colour, markersize=7, **edge)
        tell(axis, mark, [f"{method}: {text.difference(interval)} points at {text.ratio(speed)} the images/s"])
    axis.margins(0.08)
    axis.autoscale_view()
    fast_first = np.flatnonzero(best)[points[best, 0].argsort()[::-1]]
    _name(axis, [(methods[i], points[i]) for i in fast_first if methods[i] != content.study.control], styles)


def _name(axis: Axes, front: list[tuple[str, np.ndarray]], styles: dict[str, Look]) -> None:
    """Write names at the front, from its fast end, where it is lowest, on: with many methods the legend is far."""
    left, top = np.inf, -np.inf
    for method, point in front:
        x, y = axis.transData.transform(point) * 72 / axis.figure.dpi
        # The room above and to the right of a front is empty, but for the name before.
        above = max(5.0, top - y) if left - x < WIDEST else 5.0
        near = {"textcoords": "offset points", "xytext": (5, above), "fontsize": "small"}
        axis.annotate(method, tuple(point), color=styles[method].colour, **near)
        left, top = x, y + above + LINE


def _lacks(content: Content) -> str | None:
    return None if content.has_gains and content.has_throughput else ""


PLOT = Plot("tradeoff", "Gain against training throughput", 10, _figure, _table, _lacks)
