"""The figures of a report, one file each; `style` holds looks, `layout` holds where panels go."""

from collections.abc import Iterator
from typing import NamedTuple

from matplotlib.figure import Figure

from kdbench.report.content import Content
from kdbench.report.plots.critical import draw_critical
from kdbench.report.plots.curves import draw_curves
from kdbench.report.plots.gains import draw_gains
from kdbench.report.plots.phases import draw_phases
from kdbench.report.plots.style import FORMATS, render
from kdbench.report.plots.tradeoff import draw_tradeoff

__all__ = ["FORMATS", "Plot", "draw", "render"]


class Plot(NamedTuple):
    """A figure with the name of its files and its title."""

    name: str
    title: str
    figure: Figure


def draw(content: Content) -> Iterator[Plot]:
    """Every figure the records allow: gains need a control, cost needs throughput records."""
    if any(row.seed_gains for row in content.gains.values() if row.role != "control"):
        yield Plot("gains", "Gain by pair", draw_gains(content))
        if content.has_throughput:
            yield Plot("tradeoff", "Gain against training throughput", draw_tradeoff(content))
    if any(ranking.meaningful for ranking in content.rankings):
        yield Plot("critical_difference", "Mean ranks and critical difference", draw_critical(content))
    if len(content.study.curves):
        yield Plot("curves", "Learning curves", draw_curves(content))
    if any(cost.phases for cost in content.costs.values()):
        yield Plot("phases", "Where the time of a step goes", draw_phases(content))
