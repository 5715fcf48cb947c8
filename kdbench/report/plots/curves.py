"""Accuracy by epoch, mean and range over the seeds of each method."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from kdbench.analysis.comparison import Comparison
from kdbench.report import text
from kdbench.report.content import Content
from kdbench.report.drawing.layout import ROW, Drawing, panel_width, panels, tell
from kdbench.report.drawing.style import GREY, Look, Style, hollow
from kdbench.report.plots import Plot, emphasised, named

SHOWN_FROM = 0.3
"""The vertical axis starts at the lowest value after this share of the epochs, without the first rise."""
PUBLISHED_AT = 1.05
"""Where published numbers stand, as a share of the epochs: behind the end of the curves."""
MOST_BANDS = 8
"""With more methods the bands hide each other, and are left out."""
MOST_EPOCHS = 60
"""Of longer curves every n-th evaluation is shown."""


def _figure(content: Content, style: Style) -> Drawing:
    """One panel a pair; a method of which a seed is not done has no curve there."""
    study = content.study
    styles = emphasised(content)
    rows = max(1, -(-len(study.pairs) // 4))
    published = [row for row in content.own_published if not row.reason and row.seeds]
    banded = len(study.methods) <= MOST_BANDS and len(study.manifest["seeds"]) > 1
    noise = "means over seeds" + (", band: lowest to highest seed" if banded else "")
    if study.curve_split != "test" and "val" not in study.cells["split"].tolist():
        # Published numbers are of the test split, and have no place beside these.
        published, noise = [], f"{noise}, on held-out training images"
    noise += f" · hollow: {text.published_as(published)}" if published else ""
    figure, axes = panels(
        study.pairs,
        (panel_width(len(study.pairs)), max(1.9, (ROW * len(named(styles)) - 0.5) / rows)),
        style=style,
        title="Top-1 by epoch",
        caption=text.caption(study, study.cells, noise),
        left=0.5,
        gap_x=0.45,
        x_label="epoch",
        legend={name: Line2D([], [], color=look.colour, linestyle=look.line) for name, look in named(styles).items()},
    )
    table = _table(content)
    for axis, pair in zip(axes, study.pairs, strict=True):
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        own = table[table["pair"] == pair]
        _curves(axis, own, styles, banded)
        _published(axis, own, styles, [row for row in published if row.pair == pair])
        absent = sum(content.gains[pair, method].state != "complete" for method in study.methods)
        if absent:
            note = f"not shown: {text.plural(absent, 'incomplete method')}"
            axis.text(0.02, 0.97, note, transform=axis.transAxes, va="top", color=GREY, fontsize="small")
    return figure


def _table(content: Content) -> pd.DataFrame:
    """Mean, lowest and highest seed by pair, method and epoch, of the methods that are complete on the pair."""
    curves = content.study.curves
    epochs = np.sort(curves["epoch"].unique())
    shown = epochs[:: -max(1, -(-len(epochs) // MOST_EPOCHS))]
    if len(shown) < len(epochs):
        curves = curves[curves["epoch"].isin(shown)]
    by_place = curves.groupby(["pair", "method", "epoch"], observed=True)["top1"]
    table = by_place.agg(["mean", "min", "max"]).set_axis(["top1", "lowest", "highest"], axis=1).reset_index()
    states = [content.gains[place].state for place in zip(table["pair"], table["method"], strict=True)]
    return table[[state == "complete" for state in states]]


def _curves(axis: Axes, own: pd.DataFrame, styles: dict[str, Look], banded: bool) -> None:
    lines, bands, shown, tips = [], [], [], []
    floor: list[float] = []
    by_method = {str(method): curve for method, curve in own.groupby("method", observed=True)}
    # Pale ones first, so that they lie behind.
    for method, curve in ((method, by_method[method]) for method in styles if method in by_method):
        epochs, top1, lowest, highest = curve[["epoch", "top1", "lowest", "highest"]].to_numpy(dtype=float).T
        lines.append(np.column_stack([epochs, top1]))
        there, back = np.column_stack([epochs, lowest]), np.column_stack([epochs, highest])[::-1]
        bands.append(np.concatenate([there, back]))
        shown.append(styles[method])
        tips.append(f"{method}: {top1[-1]:.2f} [{lowest[-1]:.2f}, {highest[-1]:.2f}] after {epochs[-1]:.0f} epochs")
        floor += (lowest if banded else top1)[epochs >= SHOWN_FROM * epochs.max()].tolist()
    colours = [look.colour for look in shown]
    if banded:
        axis.add_collection(PolyCollection(bands, facecolors=colours, alpha=0.15, linewidths=0))
    # All curves at once: a line for each is half the time of a large report.
    means = LineCollection(lines, colors=colours, linestyles=[look.line for look in shown])
    axis.add_collection(means)
    tell(axis, means, tips)
    axis.autoscale_view()
    _end_at(axis, floor)


def _published(axis: Axes, own: pd.DataFrame, styles: dict[str, Look], rows: list[Comparison]) -> None:
    for row in rows:
        look = styles[row.method]
        place = [PUBLISHED_AT * own["epoch"].max()], [row.top1.published]
        (mark,) = axis.plot(*place, **hollow(look.marker, look.colour))
        tell(axis, mark, [f"{row.method} as published by {row.sources[0]}: {row.top1.published:.2f}"])
    if rows:
        _end_at(axis, [axis.get_ylim()[0], *(row.top1.published for row in rows)])


def _end_at(axis: Axes, floor: list[float]) -> None:
    """Begin the vertical axis below the lowest of these."""
    if floor:
        axis.set_ylim(bottom=min(floor) - 0.03 * (max(floor) - min(floor)) - 0.1)


def _lacks(content: Content) -> str | None:
    return None if len(content.study.curves) else "curves in the records"


PLOT = Plot("curves", "Learning curves", 80, _figure, _table, _lacks, slow=4)
