"""Mean gain against the time of a training step: what more time buys."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator

from kdbench.analysis.gains import standing
from kdbench.report import text
from kdbench.report.content import Content
from kdbench.report.drawing.layout import Drawing, panels, spaced, tell
from kdbench.report.drawing.style import PALE, STANDINGS, Style
from kdbench.report.message import ALONE
from kdbench.report.plots import Plot, colours, reach
from kdbench.results.study import Group

LINE = 9.0
"""Points that a name takes by its height."""
TICKS = (0.5, 0.7, 1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32)


def _figure(content: Content, style: Style) -> Drawing:
    """One panel a group of pairs, one point a method; methods without an average are named in the caption."""
    study = content.study
    shown: dict[Group, list[str]] = {
        group: [method for method in study.methods if _is_known(content, group, method)] for group in study.groups
    }
    absent = [
        f"not shown for {group} pairs (incomplete): {', '.join(left)}"
        for group, methods in shown.items()
        if (left := [method for method in study.methods if method not in methods])
    ]
    caption = text.caption(study, study.throughput, "bars: 95 % intervals of what is shown better or worse")
    figure, axes = panels(
        [f"mean over {text.plural(len(pairs), f'{group} pair')}" for group, pairs in study.groups.items()],
        (5.6, 4.2),
        style=style,
        title=f"Gain over {ALONE} against the time of a step",
        caption=" · ".join([_explained(content), caption, *absent]),
        left=0.6,
        gap_x=0.6,
        x_label=f"time of a training step, x {ALONE}",
        y_label="gain in points of top-1",
        least=3.0,
    )
    for axis, (group, methods) in zip(axes, shown.items(), strict=True):
        _panel(axis, content, group, methods)
    return figure


def _explained(content: Content) -> str:
    """What the line is, where there is one."""
    fronts = [choice.front for choice in content.choices.values() if len(choice.front) > 1]
    if not fronts:
        return "no line: no dearer method is shown better than a cheaper one on the way up"
    return f"line: each step is dearer and shown better than the one before ({'; '.join(map(', '.join, fronts))})"


def _table(content: Content) -> pd.DataFrame:
    """Mean gain and the time of a step by group and method."""
    rows = [
        (*place, row.gain.value, row.gain.low, row.gain.high, content.times[place], standing(row))
        for place, row in content.group_gains.items()
    ]
    return pd.DataFrame(rows, columns=["group", "method", "gain", "low", "high", "step_time", "shown"])


def _is_known(content: Content, group: Group, method: str) -> bool:
    return not math.isnan(content.times[group, method] + content.group_gains[group, method].gain.value)


def _panel(axis: Axes, content: Content, group: Group, methods: Sequence[str]) -> None:
    gains = {method: content.group_gains[group, method] for method in methods}
    times = {method: content.times[group, method] for method in methods}
    colour, far = colours(content, group), reach(content, group)
    values = [row.gain.value for row in gains.values()]
    low, high = max(-far, min(values, default=-1)), min(far, max(values, default=1))
    edge = 0.12 * (high - low or 1.0)
    axis.set_ylim(low - edge, high + edge)
    _time_axis(axis, list(times.values()))
    axis.axhline(0, color=STANDINGS["control"], linewidth=0.8)
    front = content.choices[group].front
    if len(front) > 1:
        x, y = [times[method] for method in front], [gains[method].gain.value for method in front]
        axis.plot(x, y, color=PALE, drawstyle="steps-post", linewidth=2.5, zorder=1)
    standings = {method: standing(row) for method, row in gains.items()}
    told = [method for method in methods if standings[method] not in ("not shown", "control")]
    for method in told:
        interval = gains[method].gain
        axis.plot([times[method]] * 2, [interval.low, interval.high], color=colour[method], linewidth=0.9, alpha=0.6)
    inside = [min(max(gains[method].gain.value, low - edge), high + edge) for method in methods]
    if methods:
        sizes = [5.5**2 if standings[method] == "not shown" else 7**2 for method in methods]
        shades, x = [colour[method] for method in methods], list(times.values())
        points = axis.scatter(x, inside, s=sizes, c=shades, edgecolors="white", linewidths=0.5, zorder=3, clip_on=False)
        differences = {method: text.difference(row.gain) for method, row in gains.items()}
        tell(
            axis,
            points,
            [f"{method}: {differences[method]} points, step time {times[method]:.2f}x" for method in methods],
        )
    dearest = max(methods, key=lambda method: times[method], default=None)
    extra = [method for method in (content.study.control, content.study.baseline, dearest) if method in methods]
    _name(axis, content, group, list(dict.fromkeys([*told, *filter(None, extra)])))


def _time_axis(axis: Axes, times: Sequence[float]) -> None:
    axis.set_xscale("log")
    least, most = min([1.0, *times]), max([1.0, *times])
    axis.set_xlim(least / 1.25, most * 1.25)
    axis.set_xticks([tick for tick in TICKS if least / 1.25 <= tick <= most * 1.25])
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))


def _name(axis: Axes, content: Content, group: Group, methods: Sequence[str]) -> None:
    """Names beside the points: left of the crowd of cheap ones, right of the others, and apart from each other."""
    if not methods:
        return
    colour, times = colours(content, group), {method: content.times[group, method] for method in methods}
    middle = float(np.median(list(times.values())))
    least, most = axis.get_xlim()
    end = least * (most / least) ** 0.7
    for is_left in (True, False):
        own = [method for method in methods if (times[method] <= middle) == is_left]
        crowd = [times[method] for method in own if times[method] > 1.0] or [1.0]
        scale = axis.get_window_extent().height * 72 / axis.figure.dpi
        low, high = axis.get_ylim()
        values = [content.group_gains[group, method].gain.value for method in own]
        inside = [min(max(value, low), high) for value in values]
        places = spaced(inside, LINE * (high - low) / scale, low, high)
        for method, value, point, place in zip(own, values, inside, places, strict=True):
            alone = method == content.study.control
            edge = times[method] if alone or not is_left else min(crowd)
            words = f"{method} {value:+.2f}" if value != point else method
            # At the right end of the panel there is no room for a name either.
            before = not alone and (is_left or times[method] > end)
            at = edge / 1.07 if before else edge * 1.05
            side: dict[str, Any] = {"ha": "right" if before else "left", "fontsize": "small"}
            side["va"] = "bottom" if alone else "center"
            line = {"arrowstyle": "-", "color": PALE, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 2}
            axis.annotate(words, (times[method], point), (at, place), color=colour[method], arrowprops=line, **side)


def _lacks(content: Content) -> str | None:
    return None if content.has_gains and content.has_throughput else ""


PLOT = Plot("tradeoff", "Gain against the time of a step", 10, _figure, _table, _lacks)
