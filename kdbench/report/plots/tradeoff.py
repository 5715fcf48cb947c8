"""Mean gain against training throughput, both relative to the control, with the Pareto front."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from kdbench.analysis.stats import pareto_front
from kdbench.report import text
from kdbench.report.content import Content
from kdbench.report.plots.layout import ROW, Drawing, head, label_width, legend_right, panels, tell
from kdbench.report.plots.style import GREY, SCREEN, Look, Style, looks, styled
from kdbench.results.study import Group

LINE, WIDEST = 8.0, 60.0
"""Points that a name takes, by height and at most by width."""


def draw_tradeoff(content: Content, style: Style = SCREEN) -> Drawing:
    """One panel a group of pairs, one point a method; methods without an average are named in the caption."""
    study = content.study
    styles = looks(study.methods, study.control)
    shown = {
        group: [method for method in study.methods if not math.isnan(_point(content, group, method)[1])]
        for group in study.groups
    }
    noise = "95 % interval (stratified t), line: Pareto front"
    absent = [
        f"not shown for {group} pairs (incomplete): {', '.join(left)}"
        for group, methods in shown.items()
        if (left := [method for method in study.methods if method not in methods])
    ]
    right = label_width(study.methods) + 0.5
    with styled(style):
        figure, axes = panels(
            len(study.groups),
            (3.9, max(3.2, ROW * len(study.methods) - 0.2)),
            style=style,
            title=f"Gain over {study.control} against training throughput",
            caption=" · ".join([text.caption(study, study.throughput, noise), *absent]),
            left=0.6,
            right=right,
            x_labels=True,
            gap_x=0.6,
        )
        for axis, (group, pairs) in zip(axes, study.groups.items(), strict=True):
            head(axis, f"mean over {text.plural(len(pairs), f'{group} pair')}")
            axis.set_xlabel(f"training images/s relative to {study.control}")
            axis.set_ylabel("gain in points of top-1")
            _panel(axis, content, group, shown[group], styles)
        handles = [_point_of(styles[method], method) for method in study.methods]
        legend_right(figure, handles, study.methods, right)
    return figure


def _point(content: Content, group: Group, method: str) -> tuple[float, float]:
    """Throughput and gain; NaN in both when either is unknown."""
    speed = content.group_costs[group, method].to_control
    gain = content.group_gains[group, method].gain.value
    return (math.nan, math.nan) if math.isnan(speed + gain) else (speed, gain)


def _point_of(look: Look, label: str) -> Line2D:
    return Line2D([], [], color=look.colour, marker=look.marker, linestyle="", markersize=6, label=label)


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
    _name(axis, [(methods[i], points[i]) for i in fast_first], styles, content)


def _name(axis: Axes, front: list[tuple[str, np.ndarray]], styles: dict[str, Look], content: Content) -> None:
    """Write names at the front, from its fast end, where it is lowest, on: with many methods the legend is far."""
    left, top = np.inf, -np.inf
    for method, point in front:
        x, y = axis.transData.transform(point) * 72 / axis.figure.dpi
        # The room above and to the right of a front is empty, but for the name before.
        above = max(5.0, top - y) if left - x < WIDEST else 5.0
        if method != content.study.control:
            near = {"textcoords": "offset points", "xytext": (5, above), "fontsize": "small"}
            axis.annotate(method, tuple(point), color=styles[method].colour, **near)
            left, top = x, y + above + LINE
