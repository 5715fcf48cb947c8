"""Accuracy by epoch, mean over the seeds of each method."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kdbench.analysis.comparison import Comparison
from kdbench.report import text
from kdbench.report.content import Content
from kdbench.report.plots.layout import ROW, label_width, legend_right, panel_width, panels
from kdbench.report.plots.style import GREY, Look, hollow, looks, styled

SHOWN_FROM = 0.3
"""The vertical axis starts at the lowest value after this share of the epochs, without the first rise."""

PUBLISHED_AT = 1.05
"""Where published numbers stand, as a share of the epochs: behind the end of the curves."""


def draw_curves(content: Content) -> Figure:
    """One panel a pair; a method of which a seed is not done has no curve there."""
    study = content.study
    styles = looks(study.methods, study.control)
    right = label_width(study.methods) + 0.5
    legend_rows = ROW * len(study.methods)
    rows = max(1, -(-len(study.pairs) // 4))
    published = [row for row in content.own_published if not row.reason and row.seeds]
    noise = "means over seeds"
    if study.curve_split != "test" and "val" not in study.cells["split"].tolist():
        # Published numbers are of the test split, and have no place beside these.
        published, noise = [], f"{noise}, on held-out training images"
    noise = noise + (f" · {text.published_note(published)}" if published else "")
    with styled():
        figure, axes = panels(
            len(study.pairs),
            (panel_width(len(study.pairs)), max(1.9, (legend_rows - 0.5) / rows)),
            title="Top-1 by epoch",
            caption=text.caption(study, study.cells, noise),
            left=0.5,
            right=right,
            x_labels=True,
            gap_x=0.45,
        )
        for axis, pair in zip(axes, study.pairs, strict=True):
            axis.set_title(pair)
            axis.set_xlabel("epoch")
            _panel(axis, content, pair, styles, [row for row in published if row.pair == pair])
        handles = [Line2D([], [], color=styles[name].colour, linestyle=styles[name].line) for name in study.methods]
        legend_right(figure, handles, study.methods, right)
    return figure


def _panel(axis: Axes, content: Content, pair: str, styles: dict[str, Look], published: list[Comparison]) -> None:
    curves = content.study.curves
    own = curves[curves["pair"] == pair]
    means = own.groupby(["method", "epoch"], observed=True)["top1"].mean()
    floor: list[float] = []
    lines, shown, absent = [], [], 0
    for method in content.study.methods:
        row = content.gains[pair, method]
        if row.state != "complete":
            absent += 1
            continue
        mean = means.loc[method]
        epochs, top1 = mean.index.to_numpy(dtype=float), mean.to_numpy(dtype=float)
        lines.append(np.column_stack([epochs, top1]))
        shown.append(styles[method])
        floor += top1[epochs >= SHOWN_FROM * epochs.max()].tolist() if len(epochs) else []
    # All curves at once: a line for each is half the time of a large report.
    axis.add_collection(
        LineCollection(lines, colors=[look.colour for look in shown], linestyles=[look.line for look in shown])
    )
    axis.autoscale_view()
    for row in published:
        look = styles[row.method]
        end = PUBLISHED_AT * float(own["epoch"].max())
        axis.plot([end], [row.top1.published], **hollow(look.marker, look.colour))
        floor.append(row.top1.published)
    if floor:
        axis.set_ylim(bottom=min(floor) - 0.03 * (max(floor) - min(floor)) - 0.1)
    if absent:
        note = f"not shown: {text.plural(absent, 'incomplete method')}"
        axis.text(0.02, 0.97, note, transform=axis.transAxes, va="top", color=GREY, fontsize=7)
