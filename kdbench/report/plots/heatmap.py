"""Gain of every method on every pair at a glance: colour and number."""

import math

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection

from kdbench.analysis.gains import PairGain
from kdbench.report import text
from kdbench.report.content import Content
from kdbench.report.drawing.layout import CHARACTER, ROW, Drawing, label_width, panels, tell
from kdbench.report.drawing.style import GREY, Style
from kdbench.report.plots import Plot
from kdbench.results.study import Group

COLUMN, ROOM = 0.5, 0.36
"""Width of a column, and below which a number does not fit into one."""
GAP = 0.3
"""Between the heterogeneous and the homogeneous pairs, in columns."""
COLOURS = "RdBu"
"""Red below zero, blue above: those who confuse red with green tell them apart."""
LAST = 0.95
"""The colours end at this quantile of the gains' size, so that one outlier does not pale the others."""
SHORT: dict[Group, str] = {"heterogeneous": "hetero", "homogeneous": "homo"}
"""As the command line says it: a group may have a single column."""
PALE = 0.55
"""Share of the scale from which on a number is white on its colour."""


def _figure(content: Content, style: Style) -> Drawing:
    """Methods by mean gain over the first group, pairs by group; what is missing is told in its cell."""
    study = content.study
    methods = _by_gain(content)
    groups = list(study.groups.values())
    pairs = [pair for group in groups for pair in group]
    places = [pairs.index(pair) + GAP * number for number, group in enumerate(groups) for pair in group]
    figure, (axis,) = panels(
        [""],
        (max(1.2, COLUMN * (places[-1] + 1)), ROW * len(methods)),
        style=style,
        title=f"Gain over {study.control} in points of top-1",
        caption=text.caption(study, study.cells, "means over seeds, methods by their mean gain"),
        left=label_width(methods),
        # Long names end beyond the last column.
        right=0.2,
        below=0.6 * CHARACTER * max(map(len, pairs)),
        least=COLUMN * (places[-1] + 1) * 0.75,
    )
    width = axis.get_position().width * figure.get_figwidth() / (places[-1] + 1) / style.scale
    _cells(axis, [[content.gains[pair, method] for pair in pairs] for method in methods], places, width)
    for group, own in study.groups.items():
        above = {"fontsize": matplotlib.rcParams["axes.titlesize"], "fontweight": "bold"}
        axis.text(places[pairs.index(own[0])], -0.3, SHORT[group], va="bottom", **above)
    axis.set(xlim=(0, places[-1] + 1), ylim=(len(methods), 0))
    axis.grid(False)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    axis.set_yticks([y + 0.5 for y in range(len(methods))], methods)
    axis.set_xticks([x + 0.5 for x in places], pairs, rotation=45, ha="right", rotation_mode="anchor")
    return figure


def _table(content: Content) -> pd.DataFrame:
    """Methods by pairs; empty where there is no average."""
    rows = {
        method: {pair: content.gains[pair, method].gain.value for pair in content.study.pairs}
        for method in content.study.methods
        if method != content.study.control
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method").reset_index()


def _by_gain(content: Content) -> list[str]:
    """The methods by mean gain over the first group that has one, those without a mean last."""
    study = content.study
    first = next(iter(study.groups))
    values = {method: content.group_gains[first, method].gain.value for method in study.methods}
    known = [method for method in study.methods if method != study.control]
    return sorted(known, key=lambda method: -values[method] if not math.isnan(values[method]) else math.inf)


def _cells(axis: Axes, rows: list[list[PairGain]], places: list[float], width: float) -> None:
    """All cells as one collection, and in each the number that its colour stands for."""
    sizes = [abs(row.gain.value) for line in rows for row in line if not math.isnan(row.gain.value)]
    limit = max(float(np.quantile(sizes, LAST)) if sizes else 0.0, 1e-9)
    colours, boxes, tips = [], [], []
    for y, line in enumerate(rows):
        for x, row in zip(places, line, strict=True):
            value = row.gain.value
            known = not math.isnan(value)
            share = min(1.0, max(-1.0, value / limit)) if known else 0.0
            boxes.append([(x, y), (x + 1, y), (x + 1, y + 1), (x, y + 1)])
            colours.append(matplotlib.colormaps[COLOURS](0.5 + 0.5 * share) if known else "#eeeeee")
            tips.append(f"{row.method} on {row.pair}: {text.gain(row)}")
            if known and width < ROOM:
                continue
            ink = GREY if not known else "#fefefe" if abs(share) > PALE else "#111111"
            words = text.signed(value, 1 if abs(value) >= 10 else 2) if known else text.gain(row)
            axis.text(x + 0.5, y + 0.5, words, ha="center", va="center_baseline", color=ink, fontsize="small")
    cells = PolyCollection(boxes, facecolors=colours, edgecolors="white", linewidths=0.8)
    axis.add_collection(cells)
    tell(axis, cells, tips)


PLOT = Plot("heatmap", "Gain by method and pair", 30, _figure, _table, tabled=True, slow=2)
