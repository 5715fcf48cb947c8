"""Gain of every method on every pair, with its interval, the individual seeds and what was published."""

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from kdbench.analysis.comparison import Comparison
from kdbench.report import text
from kdbench.report.content import Content
from kdbench.report.drawing.layout import (
    Drawing,
    estimates,
    label_rows,
    label_width,
    legend_above,
    panel_width,
    panels,
    rows_height,
    tell,
)
from kdbench.report.drawing.style import GREY, Look, Style, hollow, looks
from kdbench.report.plots import Plot

SEEDS = 0.27
"""How far below the interval the seeds lie, in rows."""
MOST_DOTS = 500
"""More seeds in a panel are an image in an SVG, which would else be megabytes of dots."""
PUBLISHED = 0.33
"""How far above it the published gains lie."""


def _figure(content: Content, style: Style) -> Drawing:
    """One panel a pair, one row a method; needs a study with a control."""
    study = content.study
    methods = [method for method in study.methods if method != study.control]
    styles = looks(study.methods, study.control)
    published = _published(content)
    noise = "95 % interval (paired t), dots are seeds"
    noise += f" · hollow: {text.published_as(published)}" if published else ""
    figure, axes = panels(
        study.pairs,
        (panel_width(len(study.pairs)), rows_height(len(methods))),
        style=style,
        title=f"Gain over {study.control} in points of top-1",
        caption=text.caption(study, study.cells, noise),
        left=label_width(methods),
    )
    for axis, pair in zip(axes, study.pairs, strict=True):
        label_rows(axis, methods)
        axis.axvline(0, color=GREY, linewidth=0.9)
        _panel(axis, content, pair, methods, styles)
        for row in published:
            if row.pair == pair and row.method in methods:
                _published_mark(axis, methods.index(row.method), row, styles[row.method])
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


def _panel(axis: Axes, content: Content, pair: str, methods: list[str], styles: dict[str, Look]) -> None:
    """The seeds are one collection: drawn one by one they take three times as long."""
    rows = [content.gains[pair, method] for method in methods]
    dots = [
        (gain, y + SEEDS, styles[row.method].colour, f"{row.method} on {pair}, seed {seed}: {text.signed(gain)}")
        for y, row in enumerate(rows)
        for seed, gain in row.seed_gains
    ]
    if dots:
        x, y, colours, tips = zip(*dots, strict=True)
        raster = len(dots) > MOST_DOTS
        seeds = axis.scatter(x, y, s=2.4**2, c=colours, alpha=0.6, linewidths=0, rasterized=raster)
        if not raster:
            tell(axis, seeds, tips)
    estimates(axis, [(row.gain, styles[row.method], f"{row.method} on {pair}: {text.gain(row)}") for row in rows])
    for y, row in enumerate(rows):
        if math.isnan(row.gain.value):
            place = axis.get_yaxis_transform()
            axis.text(0.99, y, text.gain(row), transform=place, ha="right", va="center", color=GREY)
    if any(row.seed_gains for row in rows):
        axis.autoscale_view(scaley=False)
    else:
        # Nothing is there yet: the span of nothing is rounding.
        axis.set_xlim(-1, 1, auto=True)


def _published_mark(axis: Axes, y: int, row: Comparison, look: Look) -> None:
    colour = GREY if row.reason else look.colour
    (mark,) = axis.plot([row.gain.published], [y - PUBLISHED], **hollow(look.marker, colour))
    tell(axis, mark, [f"{row.method} as published by {row.sources[0]}: {text.signed(row.gain.published)}"])


PLOT = Plot("gains", "Gain by pair", 20, _figure, _table, slow=5)
