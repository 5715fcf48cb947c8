"""The figures of a report, one file each; `style` holds looks, `layout` holds where panels go."""

import sys
from collections.abc import Callable
from multiprocessing import get_all_start_methods, get_context
from typing import NamedTuple

from matplotlib.figure import Figure

from kdbench.report.content import Content
from kdbench.report.plots.critical import draw_critical
from kdbench.report.plots.curves import draw_curves
from kdbench.report.plots.gains import draw_gains
from kdbench.report.plots.phases import draw_phases
from kdbench.report.plots.style import FORMATS, render
from kdbench.report.plots.tradeoff import draw_tradeoff

__all__ = ["Plot", "planned", "rendered"]


class Plot(NamedTuple):
    """A figure to be drawn: the name of its files, its title, and what draws it."""

    name: str
    title: str
    draw: Callable[[Content], Figure]


def planned(content: Content) -> list[Plot]:
    """Every figure the records allow: gains need a control, cost needs throughput records."""
    plots = []
    if any(row.seed_gains for row in content.gains.values() if row.role != "control"):
        plots.append(Plot("gains", "Gain by pair", draw_gains))
        if content.has_throughput:
            plots.append(Plot("tradeoff", "Gain against training throughput", draw_tradeoff))
    if any(ranking.meaningful for ranking in content.rankings):
        plots.append(Plot("critical_difference", "Mean ranks and critical difference", draw_critical))
    if len(content.study.curves):
        plots.append(Plot("curves", "Learning curves", draw_curves))
    if any(cost.phases for cost in content.costs.values()):
        plots.append(Plot("phases", "Where the time of a step goes", draw_phases))
    return plots


def rendered(plots: list[Plot], content: Content) -> dict[str, bytes]:
    """The files of the figures by name; drawing them is most of a report's time, so two processes share it."""
    # A child that is forked off torch's threads may hang.
    if "torch" in sys.modules or "fork" not in get_all_start_methods():
        return _files(plots, content)
    fork, half = get_context("fork"), len(plots) // 2
    mine, its = fork.Pipe(duplex=False)
    other = fork.Process(target=lambda: its.send(_files(plots[half:], content)), daemon=True)
    other.start()
    its.close()
    files = _files(plots[:half], content)
    return files | mine.recv()


def _files(plots: list[Plot], content: Content) -> dict[str, bytes]:
    files = {}
    for plot in plots:
        figure = plot.draw(content)
        files |= {f"{plot.name}.{suffix}": render(figure, suffix) for suffix in FORMATS}
    return files
