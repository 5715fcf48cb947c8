"""The figures of a report: each file of this package exports one `PLOT`, and is found by that alone."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pkgutil import iter_modules

import numpy as np
import pandas as pd

from kdbench.analysis.gains import standing
from kdbench.report.content import Content
from kdbench.report.drawing.layout import Drawing
from kdbench.report.drawing.style import PALE, SCREEN, STANDINGS, Look, Style, looks, styled
from kdbench.report.notes import accuracy_scope
from kdbench.results.study import Group

MANY = 10
"""Of more methods than these no reader tells the colours apart."""
FIRST = 3
"""How many of many have a colour, beside the control, the baseline and the worst."""


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


def emphasised(content: Content) -> dict[str, Look]:
    """The look of each method, those behind first: of many, all but a few are pale."""
    study = content.study
    if len(study.methods) <= MANY:
        return looks(study.methods, study.control)
    known = [
        method for method in content.order if not math.isnan(content.group_gains[_first(content), method].gain.value)
    ]
    others = [method for method in known if study.roles[method] == "method"]
    chosen = [study.baseline, *others[:FIRST], *others[-1:]] if others else [study.baseline]
    strong = [method for method in study.methods if method in (study.control, *chosen)]
    pale = dict.fromkeys((method for method in content.order if method not in strong), Look(PALE, "o", "-"))
    return pale | looks(strong, study.control)


def named(styles: Mapping[str, Look]) -> dict[str, Look]:
    """What a legend of these looks has: all of them, or those that stand out and the others in one line."""
    strong = {name: look for name, look in styles.items() if look.colour != PALE}
    return strong if len(strong) == len(styles) else strong | {"the others": Look(PALE, "o", "-")}


def colours(content: Content, group: Group) -> dict[str, str]:
    """The colour of each method by what the study shows of it over the group."""
    return {method: STANDINGS[standing(content.group_gains[group, method])] for method in content.study.methods}


def reach(content: Content, group: Group) -> float:
    """How far from zero an axis of gains goes: what the study can detect and nearly all methods have room there."""
    gains = [abs(row.gain.value) for (own, _), row in content.group_gains.items() if own == group]
    known = [gain for gain in gains if not math.isnan(gain)]
    detectable = content.sensitivities[group].own
    wide = 2.5 * detectable if not math.isnan(detectable) else 0.0
    return max(wide, 1.2 * float(np.quantile(known, 0.9)) if known else 0.0) or 1.0


def _first(content: Content) -> Group:
    return next(iter(content.study.groups))


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
