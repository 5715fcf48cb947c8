"""The figures of a report: each file of this package exports one `PLOT`, and is found by that alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pkgutil import iter_modules

import pandas as pd

from kdbench.report.content import Content
from kdbench.report.drawing.layout import Drawing
from kdbench.report.drawing.style import SCREEN, Style, styled
from kdbench.report.notes import accuracy_scope


@dataclass(frozen=True)
class Plot:
    """A figure that a report may have.

    Attributes:
        name: of its files.
        title: what stands over it on a page.
        order: figures come by this number.
        figure: makes the figure, within matplotlib's settings of the style.
        table: the numbers that it shows.
        lacks: what the study lacks to draw it, None where it lacks nothing; empty where another note tells it.
        scope: what the numbers are of (n, and what is missing), for the pairs that it shows.
        tabled: whether a table of report.md says the same, so that the figure is left to report.html.
        slow: how long drawing takes beside other figures; the slowest are begun first.
    """

    name: str
    title: str
    order: int
    figure: Callable[[Content, Style], Drawing]
    table: Callable[[Content], pd.DataFrame]
    lacks: Callable[[Content], str | None] = lambda content: None if content.has_gains else ""
    scope: Callable[[Content, Sequence[str]], str] = accuracy_scope
    tabled: bool = False
    slow: int = 0

    def draw(self, content: Content, style: Style = SCREEN) -> Drawing:
        """The figure in a style."""
        with styled(style):
            return self.figure(content, style)


@cache
def plots() -> list[Plot]:
    """Every figure, in the order of a report."""
    modules = [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)]
    return sorted((module.PLOT for module in modules), key=lambda plot: plot.order)


def planned(content: Content) -> list[Plot]:
    """The figures that the records allow."""
    return [plot for plot in plots() if plot.lacks(content) is None]


def left_out(content: Content) -> list[str]:
    """A line about the others, but for what other notes tell; none when the study trained nothing."""
    absent = [f"{plot.title.lower()} ({lacking})" for plot in plots() if (lacking := plot.lacks(content))]
    if not absent or not content.has_accuracy:
        return []
    return [f"Figures left out for want of what they need: {', '.join(absent)}."]
