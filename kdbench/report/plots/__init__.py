"""The figures of a report, one file each; `style` holds looks, `layout` where panels go, `data` what they show."""

from collections.abc import Callable
from typing import NamedTuple

import pandas as pd

from kdbench.report.content import Content
from kdbench.report.plots import data
from kdbench.report.plots.critical import draw_critical
from kdbench.report.plots.curves import draw_curves
from kdbench.report.plots.gains import draw_gains
from kdbench.report.plots.heatmap import draw_heatmap
from kdbench.report.plots.layout import Drawing
from kdbench.report.plots.phases import draw_phases
from kdbench.report.plots.profile import draw_profile
from kdbench.report.plots.published import draw_published, measured
from kdbench.report.plots.ranks import draw_ranks, ranked
from kdbench.report.plots.slope import draw_slope, slopes
from kdbench.report.plots.style import Style
from kdbench.report.plots.tradeoff import draw_tradeoff

__all__ = ["Plot", "left_out", "planned"]


class Plot(NamedTuple):
    """A figure to be drawn.

    Attributes:
        name: of its files.
        draw: draws it in a style.
        data: the table of what it shows.
        needs: what it takes to draw it.
        tabled: whether a table of report.md says the same, so that the figure is left to the page.
    """

    name: str
    title: str
    draw: Callable[[Content, Style], Drawing]
    data: Callable[[Content], pd.DataFrame]
    needs: str = ""
    tabled: bool = False


PLOTS = (
    Plot("tradeoff", "Gain against training throughput", draw_tradeoff, data.tradeoff),
    Plot("gains", "Gain by pair", draw_gains, data.gains),
    Plot("heatmap", "Gain by method and pair", draw_heatmap, data.heatmap, "", True),
    Plot("slope", "Heterogeneous against homogeneous pairs", draw_slope, data.slope, "methods complete on both kinds"),
    Plot("ranks", "Mean ranks", draw_ranks, data.ranks, "methods complete on all pairs of a kind", True),
    Plot("critical_difference", "Mean ranks and critical difference", draw_critical, data.critical),
    Plot("profile", "Performance profile", draw_profile, data.profile, "two methods complete on all pairs of a kind"),
    Plot("curves", "Learning curves", draw_curves, data.curves, "curves in the records"),
    Plot("phases", "Where the time of a step goes", draw_phases, data.phases),
    Plot("published", "Measured against published", draw_published, data.published, "comparable protocol and seeds"),
)
"""Every figure, in the order of a report."""


def planned(content: Content) -> list[Plot]:
    """The figures that the records allow."""
    shown = _shown(content)
    return [plot for plot in PLOTS if shown[plot.name]]


def left_out(content: Content) -> list[str]:
    """A line about the others, but for what other notes tell; none when the study trained nothing."""
    shown = _shown(content)
    # Most pairs were never published; where they were, it is told why they are not compared.
    missed = [plot for plot in PLOTS if not shown[plot.name] and (plot.name != "published" or content.published)]
    absent = [f"{plot.title.lower()} ({plot.needs})" for plot in missed if plot.needs]
    if not absent or not content.has_accuracy:
        return []
    return [f"Figures left out for want of what they need: {', '.join(absent)}."]


def _shown(content: Content) -> dict[str, bool]:
    """Whether the records hold what a figure shows, by its name."""
    has_gains = any(row.seed_gains for row in content.gains.values() if row.role != "control")
    return {
        "tradeoff": has_gains and content.has_throughput,
        "gains": has_gains,
        "heatmap": has_gains,
        "slope": len(slopes(content)) > 0,
        "ranks": any(ranked(content, group) for group in content.study.groups),
        "critical_difference": any(ranking.meaningful for ranking in content.rankings),
        "profile": len(content.profiles) > 0,
        "curves": len(content.study.curves) > 0,
        "phases": any(cost.phases for cost in content.costs.values()),
        "published": len(measured(content)) > 0,
    }
