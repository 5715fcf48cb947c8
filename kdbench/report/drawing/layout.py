"""Where panels, legends and captions go, in inches: figures grow with their content, text keeps its size.

All lengths that are given are those of the screen style; a smaller style scales them.
"""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from kdbench.analysis.stats import Interval
from kdbench.report.drawing.style import GREY, Look, Style

ROW = 0.21
"""Height of one row of a panel that has a method a row."""
CHARACTER = 0.072
"""Width of a character at the size of labels, generous."""
_GAP_X, _TITLE, _TOP, _TICKS, _LABEL, _LINE, _Y_LABEL = 0.3, 0.25, 0.55, 0.24, 0.18, 0.15, 0.4
_UNFRAMED_TOP = 0.42
"""Above the panels of a figure without a title."""
_HEAD = 0.27
"""Of these, what the title takes."""
_LEAST = 1.4
"""Width of a panel below which a figure gets fewer columns, or the next larger width."""


class Drawing(Figure):
    """A figure that also knows what its marks say to who points at them.

    Attributes:
        style: its own.
        caption: what stands under it, whether it is in the figure or not.
        leftmost: the panels of the first column, which carry the labels of the rows.
        tips: by the id of an artist, what each of its marks says, in the order in which they are drawn.
        head, foot: inches at the top and at the bottom that hold title and caption alone.
    """

    def __init__(self, size: tuple[float, float], style: Style, caption: str) -> None:
        super().__init__(figsize=size)
        self.style = style
        self.caption = caption
        self.leftmost: list[Axes] = []
        self.tips: dict[str, list[str]] = {}
        self.head = self.foot = 0.0


def tell(axis: Axes, artist: Artist, tips: Sequence[str]) -> None:
    """Remember what each mark of the artist says."""
    drawing = cast(Drawing, axis.figure)
    name = f"tips-{len(drawing.tips)}"
    artist.set_gid(name)
    drawing.tips[name] = list(tips)


def label_width(labels: Sequence[str]) -> float:
    """Inches that the longest label takes."""
    return 0.15 + CHARACTER * max((len(label) for label in labels), default=0)


def panel_width(count: int) -> float:
    """Inches of one of `count` panels: a single one is wider."""
    return 4.0 if count == 1 else 2.5


def rows_height(count: int) -> float:
    """Inches of a panel of `count` rows."""
    return max(ROW * (count + 0.4), 0.8)


def panels(
    heads: Sequence[str],
    size: tuple[float, float],
    *,
    style: Style,
    title: str,
    caption: str,
    left: float,
    right: float = 0.15,
    gap_x: float = _GAP_X,
    x_label: str = "",
    y_label: str = "",
    legend: Mapping[str, Artist] | None = None,
    below: float = 0.0,
    least: float = _LEAST,
) -> tuple[Drawing, list[Axes]]:
    """A figure of panels in rows of up to four, with its title above and the caption below.

    Args:
        heads: what stands over each panel.
        size: width and height of a panel; a style of given widths has a width of its own.
        title, caption: above and below all; the caption is wrapped to the width.
        left: room for the labels of the first column.
        right: room beside the panels, where there is no legend.
        gap_x: room between columns.
        x_label, y_label: what the axes of every panel show.
        legend: what stands for each name, written beside the panels from the top down.
        below: room for long labels of the ticks.
        least: width of a panel, where the style may choose it.
    """
    scale = style.scale
    right = right if legend is None else label_width(list(legend)) + 0.5
    legend_room = scale * (right - 0.1)
    left, right, gap_x = scale * left, scale * right, scale * gap_x
    columns, wide = _columns(len(heads), scale * size[0], left + right, gap_x, style, scale * least)
    high, rows = scale * size[1], math.ceil(len(heads) / columns)
    title_width = 0.2 + 1.25 * CHARACTER * len(title) if style.framed else 0.0
    width = max(left + columns * wide + (columns - 1) * gap_x + right, title_width)
    lines = textwrap.wrap(caption, max(40, int((width - 0.2) / (0.82 * CHARACTER)))) if style.framed else []
    ticks = scale * (_TICKS + (_LABEL if x_label else 0.0) + below)
    gap_y = ticks + scale * (_TITLE + 0.05)
    top = _TOP if style.framed else scale * _UNFRAMED_TOP
    foot = _LINE * len(lines) + 0.05
    height = top + rows * high + (rows - 1) * gap_y + ticks + foot + 0.1
    figure = Drawing((width, height), style, caption)
    for number, words in enumerate(heads):
        row, column = divmod(number, columns)
        x, y = left + column * (wide + gap_x), height - top - high - row * (high + gap_y)
        axis = figure.add_axes((x / width, y / height, wide / width, high / height))
        # Fixed places: to lay out labels beside the ticks matplotlib measures every tick once more.
        axis.xaxis.set_label_coords(0.5, -scale * (_TICKS + below) / high)
        axis.yaxis.set_label_coords(-scale * _Y_LABEL / wide, 0.5)
        axis.set(xlabel=x_label, ylabel=y_label)
        _head(axis, words)
    figure.leftmost = figure.axes[::columns]
    if style.framed:
        _frame(figure, title, "\n".join(lines), foot)
    if legend:
        _legend(figure, legend, "upper left", (1 - legend_room / width, 1 - (top - 0.08) / height), handlelength=2.4)
    return figure, figure.axes


def _frame(figure: Drawing, title: str, caption: str, foot: float) -> None:
    """Title and caption, which a page cuts away and says in its own words."""
    width, height = figure.get_size_inches()
    head = figure.text(0.1 / width, 1 - 0.1 / height, title, va="top", fontsize="large", fontweight="bold")
    under = figure.text(0.1 / width, 0.07 / height, caption, va="bottom", fontsize="small", color=GREY)
    head.set_gid("title")
    under.set_gid("caption")
    figure.head, figure.foot = _HEAD, foot


def _columns(count: int, width: float, beside: float, gap: float, style: Style, least: float) -> tuple[int, float]:
    """Panels in a row, and the width of each."""
    most = count if count <= 3 else math.ceil(count / math.ceil(count / 4))
    if not style.widths:
        return most, width
    fitting = [
        (columns, (whole - beside - (columns - 1) * gap) / columns)
        for whole in style.widths
        for columns in range(most, 0, -1)
        # A narrow figure is for what fits beside each other; more panels get the whole width.
        if columns == most or whole == style.widths[-1]
    ]
    return next(((columns, room) for columns, room in fitting if room >= least), (1, max(least, fitting[-1][1])))


def _head(axis: Axes, words: str) -> None:
    """The title of a panel, smaller where it is longer than the panel is wide."""
    drawing = cast(Drawing, axis.figure)
    room = axis.get_position().width * drawing.get_figwidth() / (1.05 * CHARACTER * drawing.style.scale)
    size = float(matplotlib.rcParams["axes.titlesize"]) * min(1.0, room / max(1, len(words)))
    axis.set_title(words, fontsize=max(4.5, size))


def legend_above(figure: Drawing, legend: Mapping[str, Artist]) -> None:
    """The legend at the right of the title, in one line."""
    width, height = figure.get_size_inches()
    figure.head = 0.0
    _legend(figure, legend, "upper right", (1 - 0.1 / width, 1 - 0.07 / height), ncols=len(legend))


def _legend(
    figure: Drawing,
    legend: Mapping[str, Artist],
    corner: Literal["upper left", "upper right"],
    place: tuple[float, float],
    **options: Any,
) -> None:
    handles, names = list(legend.values()), list(legend)
    figure.legend(handles, names, loc=corner, bbox_to_anchor=place, borderaxespad=0, **options)


def label_rows(axis: Axes, labels: Sequence[str], *, every_panel: bool = False) -> None:
    """Give the panel one row a label, the first at the top; lines without labels cost a tenth of ticks."""
    labelled = every_panel or axis in cast(Drawing, axis.figure).leftmost
    axis.set_ylim(len(labels) - 0.4, -0.6)
    axis.set_yticks(range(len(labels)) if labelled else [], labels if labelled else [])
    axis.tick_params(axis="y", length=0)
    axis.grid(False, axis="y")
    grid = {"colors": matplotlib.rcParams["grid.color"], "linewidth": matplotlib.rcParams["grid.linewidth"]}
    axis.hlines(range(len(labels)), 0, 1, transform=axis.get_yaxis_transform(), zorder=0.5, **grid)


def estimates(axis: Axes, rows: Sequence[tuple[Interval, Look, str]], layer: float = 1) -> None:
    """The value and the interval of each row where they are known, and what the mark of the value says.

    All marks of a kind are one collection: drawn one by one they take three times as long.
    """
    bars = [(y, interval, look.colour) for y, (interval, look, _) in enumerate(rows) if not math.isnan(interval.low)]
    ends = [[(interval.low, y), (interval.high, y)] for y, interval, _ in bars]
    axis.add_collection(LineCollection(ends, colors=[colour for *_, colour in bars]))
    points = [(interval.value, y, look, tip) for y, (interval, look, tip) in enumerate(rows)]
    known = [point for point in points if not math.isnan(point[0])]
    for marker in dict.fromkeys(look.marker for _, _, look, _ in known):
        x, y, looks, tips = zip(*(point for point in known if point[2].marker == marker), strict=True)
        colours = [look.colour for look in looks]
        tell(axis, axis.scatter(x, y, s=5**2, marker=marker, c=colours, linewidths=1, zorder=layer), tips)


def outside(axis: Axes, rows: Sequence[tuple[float, str]]) -> None:
    """An arrow and the number at the edge of the panel for each value (with its colour) that lies beyond its limits."""
    low, high = axis.get_xlim()
    for y, (value, colour) in enumerate(rows):
        if not math.isnan(value) and not low <= value <= high:
            edge, marker, side, x = (low, "<", "left", 7) if value < low else (high, ">", "right", -7)
            axis.plot([edge], [y], marker, color=colour, markersize=5, clip_on=False, zorder=3)
            place = {"textcoords": "offset points", "xytext": (x, 0), "ha": side, "va": "center_baseline"}
            axis.annotate(f"{value:+.2f}", (edge, y), color=colour, fontsize="small", fontweight="bold", **place)


def spaced(places: Sequence[float], least: float, low: float, high: float) -> NDArray[np.float64]:
    """The `places` moved apart to be `least` from each other, in the same order and no farther than it takes."""
    order = np.argsort(places, kind="stable")
    steps = least * np.arange(len(places))
    # Isotonic regression of what is left without the steps: neighbours that would cross share their mean.
    blocks: list[tuple[float, int]] = []
    for value in np.asarray(places, dtype=float)[order] - steps:
        blocks.append((float(value), 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (a, m), (b, n) = blocks[-2:]
            blocks[-2:] = [((a * m + b * n) / (m + n), m + n)]
    moved = np.concatenate([np.full(number, value) for value, number in blocks]) if blocks else np.empty(0)
    room = max(low, high - least * (len(places) - 1))
    found = np.empty(len(places))
    found[order] = np.clip(moved, low, room) + steps
    return found
