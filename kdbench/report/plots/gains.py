"""Gain of every method on every pair, with its interval, the individual seeds and what was published."""

import math

from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D

from kdbench.analysis.comparison import Comparison
from kdbench.report import text
from kdbench.report.content import Content
from kdbench.report.plots.layout import (
    ROW,
    Drawing,
    first_in_row,
    head,
    label_width,
    legend_above,
    panel_width,
    panels,
    rows_of,
    tell,
)
from kdbench.report.plots.style import GREY, SCREEN, Look, Style, hollow, looks, styled

SEEDS = 0.27
"""How far below the interval the seeds lie, in rows."""
MOST_DOTS = 500
"""More seeds in a panel are an image in an SVG, which would else be megabytes of dots."""
PUBLISHED = 0.33
"""How far above it the published gains lie."""


def draw_gains(content: Content, style: Style = SCREEN) -> Drawing:
    """One panel a pair, one row a method; needs a study with a control."""
    study = content.study
    methods = [method for method in study.methods if method != study.control]
    noise = "95 % interval (paired t), dots are seeds"
    published = [row for row in content.own_published if not math.isnan(row.gain.published)]
    if published:
        noise += f" · {text.published_note(published)}"
    with styled(style):
        figure, axes = panels(
            len(study.pairs),
            (panel_width(len(study.pairs)), max(ROW * (len(methods) + 0.4), 0.8)),
            style=style,
            title=f"Gain over {study.control} in points of top-1",
            caption=text.caption(study, study.cells, noise),
            left=label_width(methods),
        )
        labelled = first_in_row(axes)
        styles = looks(study.methods, study.control)
        for axis, pair in zip(axes, study.pairs, strict=True):
            head(axis, pair)
            rows_of(axis, methods, axis in labelled)
            axis.axvline(0, color=GREY, linewidth=0.9)
            _panel(axis, content, pair, methods, styles)
            for row in published:
                if row.pair == pair and row.method in methods:
                    _published(axis, methods.index(row.method), row, styles[row.method])
        if published:
            handles = [Line2D([], [], **hollow("o", GREY)), Line2D([], [], color=GREY, marker="o", markersize=5)]
            legend_above(figure, handles, ["published", "ours"])
    return figure


def _panel(axis: Axes, content: Content, pair: str, methods: list[str], styles: dict[str, Look]) -> None:
    """Seeds, intervals and means are collections: drawn one by one they take three times as long."""
    rows = [content.gains[pair, method] for method in methods]
    dots = [(gain, y + SEEDS, styles[row.method].colour) for y, row in enumerate(rows) for _, gain in row.seed_gains]
    if dots:
        x, y, colours = zip(*dots, strict=True)
        raster = len(dots) > MOST_DOTS
        seeds = axis.scatter(x, y, s=2.4**2, c=colours, alpha=0.6, linewidths=0, rasterized=raster)
        if not raster:
            tips = [
                f"{row.method} on {pair}, seed {seed}: {text.signed(gain)}"
                for row in rows
                for seed, gain in row.seed_gains
            ]
            tell(axis, seeds, tips)
    known = [(y, row) for y, row in enumerate(rows) if not math.isnan(row.gain.low)]
    ends = [[(row.gain.low, y), (row.gain.high, y)] for y, row in known]
    axis.add_collection(LineCollection(ends, colors=[styles[row.method].colour for _, row in known]))
    means: dict[str, list[tuple[float, int, str, str]]] = {}
    for y, row in enumerate(rows):
        look = styles[row.method]
        if math.isnan(row.gain.value):
            place = axis.get_yaxis_transform()
            axis.text(0.99, y, text.gain(row), transform=place, ha="right", va="center", color=GREY)
        else:
            tip = f"{row.method} on {pair}: {text.gain(row)}"
            means.setdefault(look.marker, []).append((row.gain.value, y, look.colour, tip))
    for marker, points in means.items():
        x, y, colours, tips = zip(*points, strict=True)
        tell(axis, axis.scatter(x, y, s=5**2, marker=marker, c=colours, linewidths=1), tips)
    if dots or means:
        axis.autoscale_view(scaley=False)
    else:
        # Nothing is there yet: the span of nothing is rounding.
        axis.set_xlim(-1, 1, auto=True)


def _published(axis: Axes, y: int, row: Comparison, look: Look) -> None:
    colour = GREY if row.reason else look.colour
    (mark,) = axis.plot([row.gain.published], [y - PUBLISHED], **hollow(look.marker, colour))
    tell(axis, mark, [f"{row.method} as published by {row.sources[0]}: {text.signed(row.gain.published)}"])
