"""The headline: gain of every method with its interval, and what a step of it costs, best first."""

import math
from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from kdbench.analysis.gains import GroupGain, standing
from kdbench.analysis.stats import LEVEL, Interval
from kdbench.report import text
from kdbench.report.content import Content
from kdbench.report.drawing.layout import Drawing, label_rows, label_width, outside, panels, rows_height, tell
from kdbench.report.drawing.style import GREY, STANDINGS, Style
from kdbench.report.message import ALONE, sensitivity
from kdbench.report.plots import Plot, colours, reach
from kdbench.results.study import Group

SPLIT, GAP = 0.72, 0.03
"""Where the gains end and what lies between them and the costs, as shares of a panel."""
ROOM = 1.2
"""Rows above the first, for what the lines are called."""
THICK, THIN = 3.0, 0.9
BELOW = 0.3
"""How far below the others the interval of the difference from the baseline lies, in rows."""


def _figure(content: Content, style: Style) -> Drawing:
    """One panel a group of pairs, one row a method; costs on the right where they were measured."""
    study = content.study
    rows: dict[Group, list[str]] = {group: content.by_gain(group) for group in study.groups}
    caption = " · ".join([_explained(content), text.caption(study, study.cells, "stratified t-intervals")])
    heads = [f"mean over {text.plural(len(pairs), f'{group} pair')}" for group, pairs in study.groups.items()]
    left = label_width(study.methods)
    figure, axes = panels(
        heads,
        (4.55, rows_height(len(study.methods) + 1)),
        style=style,
        title=f"Gain over {ALONE} and cost, by method",
        caption=caption,
        left=left,
        gap_x=left + 0.2,
        right=0.3,
        x_label=f"gain over {study.control}, points of top-1",
        least=3.0,
    )
    for axis, (group, methods) in zip(axes, rows.items(), strict=True):
        label_rows(axis, methods, every_panel=True)
        axis.set_ylim(len(methods) - 0.4, -0.6 - ROOM)
        if content.has_throughput:
            _costs(_split(axis), content, group, methods)
        _gains(axis, content, group, methods)
    return figure


def _explained(content: Content) -> str:
    """What colours and lines mean."""
    baseline = content.study.baseline
    or_baseline = f" or {baseline}" if baseline else ""
    worse = f"orange: worse than {baseline}; " if baseline else ""
    found = [line for group in content.study.groups if (line := sensitivity(content, group))]
    dashed = f"; dashed: that of the difference from {baseline}, to be read against the dashed line" if baseline else ""
    parts = [
        f"blue: shown better than {ALONE}{or_baseline}; grey: no difference shown; {worse}red: worse than {ALONE}",
        f"thick: {LEVEL:.0%} interval of the gain; thin: the same after Holm's correction, to be read against the "
        f"solid line{dashed}",
        "a difference is shown exactly where such a line stays clear of its own",
        *found,
    ]
    return ". ".join(part[0].upper() + part[1:].rstrip(".") for part in parts) + "."


def _split(axis: Axes) -> Axes:
    """A panel for the costs in the right part of the panel's place."""
    box, (x, y) = axis.get_position(), axis.xaxis.label.get_position()
    axis.set_position((box.x0, box.y0, SPLIT * box.width, box.height))
    place = (box.x0 + (SPLIT + GAP) * box.width, box.y0, (1 - SPLIT - GAP) * box.width, box.height)
    costs = axis.figure.add_axes(place)
    costs.xaxis.set_label_coords(x, y)
    costs.set(ylim=axis.get_ylim(), yticks=[])
    costs.grid(False)
    return costs


def _gains(axis: Axes, content: Content, group: Group, methods: Sequence[str]) -> None:
    study, colour = content.study, colours(content, group)
    rows = [content.group_gains[group, method] for method in methods]
    _limit(axis, rows, reach(content, group))
    axis.axvline(0, color=STANDINGS["control"], linewidth=0.9)
    baseline = content.group_gains[group, study.baseline].gain.value if study.baseline else math.nan
    if not math.isnan(baseline):
        axis.axvline(baseline, color=GREY, linewidth=0.9, linestyle=(0, (4, 3)))
        _called(axis, baseline, str(study.baseline), "left" if baseline >= 0 else "right")
    _called(axis, 0, ALONE, "right" if math.isnan(baseline) or baseline >= 0 else "left")
    low, high = axis.get_xlim()
    for y, row in enumerate(rows):
        if row.role != "control" and low <= row.gain.value <= high:
            _intervals(axis, y, row, baseline, colour[row.method])
    known = [(row.gain.value, y, colour[row.method], _tip(content, row)) for y, row in enumerate(rows)]
    known = [point for point in known if not math.isnan(point[0])]
    if known:
        x, y, shades, tips = zip(*known, strict=True)
        tell(axis, axis.scatter(x, y, s=5.5**2, c=shades, linewidths=0, zorder=3), tips)
    outside(axis, [(row.gain.value, colour[row.method]) for row in rows])
    for y, row in enumerate(rows):
        if math.isnan(row.gain.value):
            axis.text(0.01, y, text.gain(row), transform=axis.get_yaxis_transform(), va="center", color=GREY)
    for label, method in zip(axis.get_yticklabels(), methods, strict=True):
        shown = standing(content.group_gains[group, method])
        label.set(color=colour[method], fontweight="bold" if shown in ("better", "control") else "normal")


def _intervals(axis: Axes, y: float, row: GroupGain, baseline: float, colour: str) -> None:
    """The interval at 95 %, that at Holm's level, and that of the difference from the baseline, counted from there."""
    over = row.gain_baseline_holm
    moved = Interval(row.gain.value, baseline + over.low, baseline + over.high)
    lines = [(row.gain_holm, 0.0, THIN, "-"), (row.gain, 0.0, THICK, "-"), (moved, BELOW, THIN, (0, (3, 2)))]
    known = [line for line in lines if not math.isnan(line[0].low)]
    ends = [[(interval.low, y + shift), (interval.high, y + shift)] for interval, shift, *_ in known]
    widths, styles = [width for *_, width, _ in known], [style for *_, style in known]
    axis.add_collection(LineCollection(ends, colors=colour, linewidths=widths, linestyles=styles), autolim=False)


def _limit(axis: Axes, rows: Sequence[GroupGain], far: float) -> None:
    """Show as much of the intervals as there is, up to `far` on both sides."""
    intervals = [interval for row in rows for interval in (row.gain, row.gain_holm)]
    ends = [end for one in intervals for end in (one.low, one.high, one.value) if not math.isnan(end)]
    low, high = max(-far, min(ends, default=-1)), min(far, max(ends, default=1))
    edge = 0.06 * (high - low or 1.0)
    axis.set_xlim(min(low, 0) - edge, max(high, 0) + edge)


def _called(axis: Axes, x: float, name: str, side: str) -> None:
    """What a vertical line is called, above the rows."""
    shift = {"left": 3, "right": -3}[side]
    place = {"textcoords": "offset points", "xytext": (shift, 0), "ha": side, "va": "center"}
    axis.annotate(name, (x, -0.5 - ROOM / 2), fontsize="small", **place)


def _tip(content: Content, row: GroupGain) -> str:
    if row.role == "control":
        return f"{row.method}: {ALONE}"
    study, time = content.study, content.times[row.group, row.method]
    parts = [f"{row.method}: {text.difference(row.gain)}", f"after Holm {text.ends(row.gain_holm)}"]
    parts.append(f"against {study.control}: {text.found(row.gain_holm)}")
    parts += [f"against {study.baseline}: {text.found(row.gain_baseline_holm)}"] if row.role == "method" else []
    return "; ".join([*parts, *([] if math.isnan(time) else [f"step time {time:.2f}x"])])


def _costs(axis: Axes, content: Content, group: Group, methods: Sequence[str]) -> None:
    """A bar a method."""
    colour = colours(content, group)
    times = [content.times[group, method] for method in methods]
    known = [(y, time, colour[method]) for y, (method, time) in enumerate(zip(methods, times, strict=True)) if time > 0]
    if known:
        places, lengths, shades = zip(*known, strict=True)
        axis.barh(places, lengths, height=0.62, color=shades, alpha=0.85)
        axis.set_xlim(0, 1.32 * max(lengths))
        for y, time, _ in known:
            place = {"textcoords": "offset points", "xytext": (3, 0), "va": "center_baseline"}
            axis.annotate(f"{time:.1f}x", (time, y), fontsize="small", **place)
    axis.axvline(1, color=STANDINGS["control"], linewidth=0.7)
    axis.set_xlabel(f"step time, x {ALONE}")


def _table(content: Content) -> pd.DataFrame:
    """Gain, both intervals, what is shown, and step time, by group and method, as drawn."""
    rows = []
    for group in content.study.groups:
        for method in content.by_gain(group):
            row = content.group_gains[group, method]
            intervals = row.gain.value, row.gain.low, row.gain.high, row.gain_holm.low, row.gain_holm.high
            rows.append((group, method, *intervals, standing(row), content.times[group, method]))
    columns = ["group", "method", "gain", "low", "high", "holm_low", "holm_high", "shown", "step_time"]
    return pd.DataFrame(rows, columns=columns)


def _lacks(content: Content) -> str | None:
    known = any(not math.isnan(row.gain.value) for row in content.group_gains.values() if row.role != "control")
    return None if known else ""


PLOT = Plot("headline", "Gain and cost of every method", 5, _figure, _table, _lacks, slow=2)
