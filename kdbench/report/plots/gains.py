"""Gain of every method on every pair, with its interval, the individual seeds and what was published."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from kdbench.analysis.comparison import Comparison
from kdbench.analysis.gains import standing
from kdbench.report import text
from kdbench.report.content import Content
from kdbench.report.drawing.layout import (
    Drawing,
    estimates,
    label_rows,
    label_width,
    legend_above,
    outside,
    panel_width,
    panels,
    rows_height,
    tell,
)
from kdbench.report.drawing.style import GREY, STANDINGS, Look, Style, hollow
from kdbench.report.plots import Plot

SEEDS = 0.27
"""How far below the interval the seeds lie, in rows."""
MOST_DOTS = 500
"""More seeds in a panel are an image in an SVG, which would else be megabytes of dots."""
MOST = 0.95
"""The scale is for this share of the means; arrows and numbers stand for those beyond."""
PUBLISHED = 0.33
"""How far above it the published gains lie."""


def _figure(content: Content, style: Style) -> Drawing:
    """One panel a pair, one row a method; needs a study with a control."""
    study = content.study
    methods = [method for method in content.order if method != study.control]
    published = _published(content)
    noise = "95 % interval (paired t), dots are seeds, colour: what is shown on the pair, methods by mean gain"
    noise += f" · hollow: {text.published_as(published)}" if published else ""
    figure, axes = panels(
        study.pairs,
        (panel_width(len(study.pairs)), rows_height(len(methods))),
        style=style,
        title=f"Gain over {study.control} in points of top-1",
        caption=text.caption(study, study.cells, noise),
        left=label_width(methods),
    )
    limits = _limits(content, published)
    for axis, pair in zip(axes, study.pairs, strict=True):
        label_rows(axis, methods)
        axis.axvline(0, color=GREY, linewidth=0.9)
        axis.set_xlim(*limits)
        _panel(axis, content, pair, methods)
        for row in published:
            if row.pair == pair and row.method in methods:
                _published_mark(axis, methods.index(row.method), row)
    if published:
        ours = Line2D([], [], color=GREY, marker="o", markersize=5)
        legend_above(figure, {"published": Line2D([], [], **hollow("o", GREY)), "ours": ours})
    return figure


def _table(content: Content) -> pd.DataFrame:
    """Gain with its interval by pair and method, published gains as rows of their own."""
    rows = []
    for row in content.gains.values():
        if row.role != "control":
            seeds = " ".join(f"{gain:.4g}" for _, gain in row.seed_gains)
            interval = row.gain.value, row.gain.low, row.gain.high
            rows.append((row.pair, row.method, "ours", row.n, row.planned, *interval, seeds))
    for row in _published(content):
        interval = row.gain.published, math.nan, math.nan
        rows.append((row.pair, row.method, row.sources[0], None, None, *interval, ""))
    return pd.DataFrame(rows, columns=["pair", "method", "source", "n", "planned", "gain", "low", "high", "by_seed"])


def _published(content: Content) -> list[Comparison]:
    return [row for row in content.own_published if not math.isnan(row.gain.published)]


def _limits(content: Content, published: Sequence[Comparison]) -> tuple[float, float]:
    """One scale for all pairs, on which nearly all means and what was published have room."""
    means = [row.gain.value for row in content.gains.values() if not math.isnan(row.gain.value)]
    far = 1.3 * float(np.quantile(np.abs(means), MOST)) if means else 1.0
    known = [*np.clip(means, -far, far), *(row.gain.published for row in published), 0.0]
    edge = 0.3 * (max(known) - min(known) or 1.0)
    return min(known) - edge, max(known) + edge


def _panel(axis: Axes, content: Content, pair: str, methods: list[str]) -> None:
    """The seeds are one collection: drawn one by one they take three times as long."""
    rows = [content.gains[pair, method] for method in methods]
    styles = [Look(STANDINGS[standing(row)], "o", "-") for row in rows]
    dots = [
        (gain, y + SEEDS, styles[y].colour, f"{row.method} on {pair}, seed {seed}: {text.signed(gain)}")
        for y, row in enumerate(rows)
        for seed, gain in row.seed_gains
    ]
    if dots:
        x, y, colours, tips = zip(*dots, strict=True)
        raster = len(dots) > MOST_DOTS
        seeds = axis.scatter(x, y, s=2.4**2, c=colours, alpha=0.6, linewidths=0, rasterized=raster)
        if not raster:
            tell(axis, seeds, tips)
    tips = [f"{row.method} on {pair}: {text.gain(row)}" for row in rows]
    estimates(axis, list(zip((row.gain for row in rows), styles, tips, strict=True)))
    outside(axis, [(row.gain.value, look.colour) for row, look in zip(rows, styles, strict=True)])
    for y, row in enumerate(rows):
        if math.isnan(row.gain.value):
            place = axis.get_yaxis_transform()
            axis.text(0.99, y, text.gain(row), transform=place, ha="right", va="center", color=GREY)


def _published_mark(axis: Axes, y: int, row: Comparison) -> None:
    colour = GREY if row.reason else STANDINGS["control"]
    (mark,) = axis.plot([row.gain.published], [y - PUBLISHED], **hollow("o", colour))
    tell(axis, mark, [f"{row.method} as published by {row.sources[0]}: {text.signed(row.gain.published)}"])


PLOT = Plot("gains", "Gain by pair", 20, _figure, _table, slow=5)
