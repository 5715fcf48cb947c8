"""Gain of every method on every pair at a glance: colour and number, a dot where it is shown."""

import math

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection

from kdbench.analysis.gains import PairGain, finding
from kdbench.report import text
from kdbench.report.content import Content
from kdbench.report.drawing.layout import CHARACTER, ROW, Drawing, label_width, panels, tell
from kdbench.report.drawing.style import GREY, Style
from kdbench.report.plots import Plot
from kdbench.results.study import Group

COLUMN, ROOM = 0.5, 0.36
"""Width of a column, and below which a number does not fit into one."""
GAP = 0.3
"""Between two students, in columns."""
COLOURS = "RdBu"
"""Red below zero, blue above: those who confuse red with green tell them apart."""
LAST = 0.95
"""The colours end at this quantile of the gains' size, so that one outlier does not pale the others."""
SHORT: dict[Group, str] = {"heterogeneous": "hetero", "homogeneous": "homo"}
"""As the command line says it: a group may have a single column."""
PALE = 0.55
"""Share of the scale from which on a number is white on its colour."""


def _figure(content: Content, style: Style) -> Drawing:
    """Methods by mean gain, pairs by group and student: a method may help one student and hurt another."""
    study = content.study
    methods = [method for method in content.order if method != study.control]
    blocks = _blocks(content)
    pairs = [pair for own in blocks.values() for pair in own]
    places = [pairs.index(pair) + GAP * number for number, own in enumerate(blocks.values()) for pair in own]
    teachers = [pair.partition(":")[0] for pair in pairs]
    figure, (axis,) = panels(
        [""],
        (max(1.2, COLUMN * (places[-1] + 1)), ROW * len(methods)),
        style=style,
        title=f"Gain over {study.control} in points of top-1",
        caption=text.caption(
            study,
            study.cells,
            "columns: teachers, by student; means over seeds; dot: shown better or worse on the pair",
        ),
        left=label_width(methods),
        # Long names end beyond the last column.
        right=0.2 + CHARACTER * max(len(student) for _, student in blocks) / 2,
        below=0.6 * CHARACTER * max(map(len, teachers)),
        least=COLUMN * (places[-1] + 1) * 0.75,
    )
    width = axis.get_position().width * figure.get_figwidth() / (places[-1] + 1) / style.scale
    _cells(axis, [[content.gains[pair, method] for pair in pairs] for method in methods], places, width)
    for (group, student), own in blocks.items():
        words = student if len(study.groups) == 1 else f"{student}\n({SHORT[group]})"
        # The name has the width of its columns, or is made smaller.
        size = min(1.0, width * len(own) / (CHARACTER * max(map(len, words.split("\n")))))
        above = {"fontsize": size * float(matplotlib.rcParams["axes.titlesize"]), "fontweight": "bold"}
        axis.text(places[pairs.index(own[0])], -0.3, words, va="bottom", **above)
    axis.set(xlim=(0, places[-1] + 1), ylim=(len(methods), 0))
    axis.grid(False)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    axis.set_yticks([y + 0.5 for y in range(len(methods))], methods)
    axis.set_xticks([x + 0.5 for x in places], teachers, rotation=45, ha="right", rotation_mode="anchor")
    return figure


def _blocks(content: Content) -> dict[tuple[Group, str], list[str]]:
    """The pairs by group and student, in the order of the study."""
    found: dict[tuple[Group, str], list[str]] = {}
    for group, pairs in content.study.groups.items():
        for pair in pairs:
            found.setdefault((group, pair.partition(":")[2]), []).append(pair)
    return found


def _table(content: Content) -> pd.DataFrame:
    """Methods by pairs; empty where there is no average."""
    rows = {
        method: {pair: content.gains[pair, method].gain.value for pair in content.study.pairs}
        for method in content.study.methods
        if method != content.study.control
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method").reset_index()


def _cells(axis: Axes, rows: list[list[PairGain]], places: list[float], width: float) -> None:
    """All cells as one collection, and in each the number that its colour stands for."""
    sizes = [abs(row.gain.value) for line in rows for row in line if not math.isnan(row.gain.value)]
    limit = max(float(np.quantile(sizes, LAST)) if sizes else 0.0, 1e-9)
    colours, boxes, tips, dots = [], [], [], []
    for y, line in enumerate(rows):
        for x, row in zip(places, line, strict=True):
            value = row.gain.value
            known = not math.isnan(value)
            share = min(1.0, max(-1.0, value / limit)) if known else 0.0
            boxes.append([(x, y), (x + 1, y), (x + 1, y + 1), (x, y + 1)])
            colours.append(matplotlib.colormaps[COLOURS](0.5 + 0.5 * share) if known else "#eeeeee")
            tips.append(f"{row.method} on {row.pair}: {text.gain(row)}")
            if finding(row.gain_holm) in ("better", "worse"):
                dots.append((x + 0.88, y + 0.2, "#fefefe" if abs(share) > PALE else "#111111"))
            if known and width < ROOM:
                continue
            ink = GREY if not known else "#fefefe" if abs(share) > PALE else "#111111"
            words = text.signed(value, 1 if abs(value) >= 10 else 2) if known else text.gain(row)
            axis.text(x + 0.5, y + 0.5, words, ha="center", va="center_baseline", color=ink, fontsize="small")
    cells = PolyCollection(boxes, facecolors=colours, edgecolors="white", linewidths=0.8)
    axis.add_collection(cells)
    tell(axis, cells, tips)
    if dots:
        x, y, shades = zip(*dots, strict=True)
        axis.scatter(x, y, s=2.5**2, c=shades, linewidths=0)


PLOT = Plot("heatmap", "Gain by method and pair", 30, _figure, _table, tabled=True, slow=2)
