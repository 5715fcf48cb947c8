"""Gain of every method on every pair, with its interval, the individual seeds and what was published."""

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kdbench.analysis.comparison import Comparison
from kdbench.report import text
from kdbench.report.content import Content
from kdbench.report.plots.layout import (
    ROW,
    first_in_row,
    label_width,
    legend_above,
    panel_width,
    panels,
    rows_of,
)
from kdbench.report.plots.style import GREY, Look, hollow, looks, styled

SEEDS = 0.27
"""How far below the interval the seeds lie, in rows."""
PUBLISHED = 0.33
"""How far above it the published gains lie."""


def draw_gains(content: Content) -> Figure:
    """One panel a pair, one row a method; needs a study with a control."""
    study = content.study
    methods = [method for method in study.methods if method != study.control]
    noise = "95 % interval (paired t), dots are seeds"
    published = [row for row in content.own_published if not math.isnan(row.gain.published)]
    if published:
        noise += f" · {text.published_note(published)}"
    with styled():
        figure, axes = panels(
            len(study.pairs),
            (panel_width(len(study.pairs)), max(ROW * (len(methods) + 0.4), 0.8)),
            title=f"Gain over {study.control} in points of top-1",
            caption=text.caption(study, study.cells, noise),
            left=label_width(methods),
        )
        labelled = first_in_row(axes)
        styles = looks(study.methods, study.control)
        for axis, pair in zip(axes, study.pairs, strict=True):
            axis.set_title(pair)
            rows_of(axis, methods, axis in labelled)
            axis.axvline(0, color=GREY, linewidth=0.9)
            for y, method in enumerate(methods):
                _row(axis, y, content, (pair, method), styles[method])
                _published(
                    axis, y, [row for row in published if (row.pair, row.method) == (pair, method)], styles[method]
                )
        if published:
            handles = [Line2D([], [], **hollow("o", GREY)), Line2D([], [], color=GREY, marker="o", markersize=5)]
            legend_above(figure, handles, ["published", "ours"])
    return figure


def _row(axis: Axes, y: int, content: Content, place: tuple[str, str], look: Look) -> None:
    row = content.gains[place]
    seeds = [gain for _, gain in row.seed_gains]
    axis.plot(seeds, [y + SEEDS] * len(seeds), "o", markersize=2.4, color=look.colour, alpha=0.6, markeredgewidth=0)
    if math.isnan(row.gain.value):
        axis.text(0.99, y, text.gain(row), transform=axis.get_yaxis_transform(), ha="right", va="center", color=GREY)
        return
    if not math.isnan(row.gain.low):
        axis.plot([row.gain.low, row.gain.high], [y, y], color=look.colour)
    axis.plot([row.gain.value], [y], look.marker, color=look.colour, markersize=5)


def _published(axis: Axes, y: int, rows: list[Comparison], look: Look) -> None:
    for row in rows:
        colour = GREY if row.reason else look.colour
        axis.plot([row.gain.published], [y - PUBLISHED], **hollow(look.marker, colour))
