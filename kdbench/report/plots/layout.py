"""Where panels, legends and captions go, in inches: figures grow with their content, text keeps its size."""

import math
import textwrap
from collections.abc import Sequence

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kdbench.report.plots.style import GREY

ROW = 0.21
"""Height of one row of a panel that has a method a row."""
CHARACTER = 0.072
"""Width of a character at the size of labels, generous."""
_GAP_X, _TITLE, _TOP, _TICKS, _LABEL, _LINE, _Y_LABEL = 0.3, 0.25, 0.55, 0.24, 0.18, 0.15, 0.4


def label_width(labels: Sequence[str]) -> float:
    """Inches that the longest label takes."""
    return 0.15 + CHARACTER * max((len(label) for label in labels), default=0)


def panel_width(count: int) -> float:
    """Inches of one of `count` panels: a single one is wider."""
    return 4.0 if count == 1 else 2.5


def panels(
    count: int,
    size: tuple[float, float],
    *,
    title: str,
    caption: str,
    left: float,
    right: float = 0.15,
    gap_x: float = _GAP_X,
    x_labels: bool = False,
) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels in rows of up to four, with its title above and the caption below.

    Args:
        count: panels.
        size: width and height of a panel.
        title: above all, at the left.
        caption: below all, wrapped to the width.
        left: room for the labels of the first column.
        right: room for a legend beside the panels.
        gap_x: room between columns.
        x_labels: whether panels get a label below their ticks.
    """
    columns = count if count <= 3 else math.ceil(count / math.ceil(count / 4))
    rows = math.ceil(count / columns)
    width = left + columns * size[0] + (columns - 1) * gap_x + right
    lines = textwrap.wrap(caption, max(40, int((width - 0.2) / (0.82 * CHARACTER))))
    below = _TICKS + (_LABEL if x_labels else 0.0)
    gap_y = below + _TITLE + 0.05
    bottom = below + _LINE * len(lines) + 0.15
    height = _TOP + rows * size[1] + (rows - 1) * gap_y + bottom
    figure = Figure(figsize=(width, height))
    axes = []
    for i in range(count):
        row, column = divmod(i, columns)
        x = left + column * (size[0] + gap_x)
        y = height - _TOP - size[1] - row * (size[1] + gap_y)
        axis = figure.add_axes((x / width, y / height, size[0] / width, size[1] / height))
        # Fixed places: to lay out labels beside the ticks matplotlib measures every tick once more.
        axis.xaxis.set_label_coords(0.5, -_TICKS / size[1])
        axis.yaxis.set_label_coords(-_Y_LABEL / size[0], 0.5)
        axes.append(axis)
    figure.text(0.1 / width, 1 - 0.1 / height, title, va="top", fontsize=10, fontweight="bold")
    figure.text(0.1 / width, 0.07 / height, "\n".join(lines), va="bottom", fontsize=7, color=GREY)
    return figure, axes


def first_in_row(axes: Sequence[Axes]) -> list[Axes]:
    """The panels that carry the labels of the vertical axis: the leftmost of each row."""
    left = min(axis.get_position().x0 for axis in axes)
    return [axis for axis in axes if axis.get_position().x0 == left]


def legend_right(figure: Figure, handles: Sequence[Artist], labels: Sequence[str], right: float) -> None:
    """The legend in the room that `panels` left at the right, from the top down."""
    width, height = figure.get_size_inches()
    anchor = (1 - (right - 0.1) / width, 1 - (_TOP - 0.08) / height)
    figure.legend(handles, labels, loc="upper left", bbox_to_anchor=anchor, borderaxespad=0, handlelength=2.4)


def legend_above(figure: Figure, handles: Sequence[Artist], labels: Sequence[str]) -> None:
    """The legend at the right of the title, in one line."""
    width, height = figure.get_size_inches()
    anchor = (1 - 0.1 / width, 1 - 0.07 / height)
    figure.legend(handles, labels, loc="upper right", bbox_to_anchor=anchor, borderaxespad=0, ncols=len(labels))


def rows_of(axis: Axes, labels: Sequence[str], labelled: bool) -> None:
    """Give the panel one row a label, the first at the top; lines without labels cost a tenth of ticks."""
    axis.set_ylim(len(labels) - 0.4, -0.6)
    axis.set_yticks(range(len(labels)) if labelled else [], labels if labelled else [])
    axis.tick_params(axis="y", length=0)
    axis.grid(False, axis="y")
    axis.hlines(
        range(len(labels)),
        0,
        1,
        transform=axis.get_yaxis_transform(),
        colors=matplotlib.rcParams["grid.color"],
        linewidth=matplotlib.rcParams["grid.linewidth"],
        zorder=0.5,
    )
