"""Performance profiles: how often a method is within so many points of the best."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from kdbench.analysis.profile import Profile
from kdbench.report import text
from kdbench.report.content import Content
from kdbench.report.plots.layout import ROW, Drawing, head, label_width, legend_right, panels, tell
from kdbench.report.plots.style import SCREEN, Look, Style, looks, styled

SHOWN = 0.9
"""The axis ends where the worst method shown has come that far."""
POINTS = 121
FIRST = 8
"""The lines of the best methods are drawn strong, the others thin behind them."""


def draw_profile(content: Content, style: Style = SCREEN) -> Drawing:
    """One panel a group; the legend has the methods in the order of the first panel, nearest to the best first."""
    study = content.study
    shown = content.profiles
    methods = list(dict.fromkeys(method for profile in shown for method in profile.methods))
    styles = looks(study.methods, study.control)
    right = label_width(methods) + 0.5
    noise = "a run is a pair and seed, the best is the best method of the run, methods complete on all pairs"
    with styled(style):
        figure, axes = panels(
            len(shown),
            (3.6, max(2.6, ROW * len(methods) - 0.2)),
            style=style,
            title="Share of runs within so many points of the best method",
            caption=text.caption(study, study.cells, noise),
            left=0.6,
            right=right,
            x_labels=True,
            gap_x=0.6,
        )
        for axis, profile in zip(axes, shown, strict=True):
            head(axis, f"{text.plural(len(study.groups[profile.group]), f'{profile.group} pair')}")
            axis.set_xlabel("points of top-1 below the best")
            axis.set_ylabel("share of runs")
            _panel(axis, profile, styles)
        handles = [Line2D([], [], color=styles[name].colour, linestyle=styles[name].line) for name in methods]
        legend_right(figure, handles, methods, right)
    return figure


def grid(profile: Profile) -> np.ndarray:
    """The distances at which the shares are shown, from 0 to where all methods but a tail have come."""
    return np.linspace(0, max(float(np.quantile(profile.distances, SHOWN, axis=0).max()), 0.1), POINTS)


def _panel(axis: Axes, profile: Profile, styles: dict[str, Look]) -> None:
    points = grid(profile)
    for number, method in reversed(list(enumerate(profile.methods))):
        look, shares = styles[method], profile.share(number, points)
        width, alpha = (1.8, 1.0) if number < FIRST else (0.8, 0.7)
        (line,) = axis.step(points, shares, where="post", color=look.colour, linestyle=look.line)
        line.set(linewidth=width, alpha=alpha)
        within = profile.share(number, np.array([0.0, 1.0]))
        tell(axis, line, [f"{method}: best in {within[0]:.0%}, within 1 point in {within[1]:.0%} of the runs"])
    axis.set_xlim(0, points[-1])
    axis.set_ylim(0, 1.02)
