"""Performance profiles: how often a method is within so many points of the best."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.lines import Line2D

from kdbench.analysis.profile import Profile
from kdbench.report import text
from kdbench.report.content import Content
from kdbench.report.drawing.layout import ROW, Drawing, panels, tell
from kdbench.report.drawing.style import PALE, Look, Style
from kdbench.report.plots import MANY, Plot, emphasised, named

SHOWN = 0.9
"""The axis ends where the worst method shown has come that far."""
POINTS = 121
FIRST = 8
"""The lines of the best methods are drawn strong, the others thin behind them."""


def _figure(content: Content, style: Style) -> Drawing:
    """One panel a group; the legend has the methods in the order of the first panel, nearest to the best first."""
    study = content.study
    shown = content.profiles
    methods = list(dict.fromkeys(method for profile in shown for method in profile.methods))
    styles = emphasised(content)
    own = named({name: styles[name] for name in methods})
    noise = "a run is a pair and seed, the best is the best method of the run, methods complete on all pairs"
    figure, axes = panels(
        [text.plural(len(study.groups[profile.group]), f"{profile.group} pair") for profile in shown],
        (3.6, max(2.6, ROW * len(own) - 0.2)),
        style=style,
        title="Share of runs within so many points of the best method",
        caption=text.caption(study, study.cells, noise),
        left=0.6,
        gap_x=0.6,
        x_label="points of top-1 below the best",
        y_label="share of runs",
        legend={name: Line2D([], [], color=look.colour, linestyle=look.line) for name, look in own.items()},
    )
    for axis, profile in zip(axes, shown, strict=True):
        _panel(axis, profile, styles)
    return figure


def _table(content: Content) -> pd.DataFrame:
    """Share of runs by group and distance from the best (rows) and method (columns)."""
    tables = []
    for profile in content.profiles:
        points = _grid(profile)
        shares = {method: profile.share(number, points) for number, method in enumerate(profile.methods)}
        tables.append(pd.DataFrame({"group": profile.group, "points": points} | shares))
    return pd.concat(tables)


def _grid(profile: Profile) -> np.ndarray:
    """The distances at which the shares are shown, from 0 to where all methods but a tail have come."""
    return np.linspace(0, max(float(np.quantile(profile.distances, SHOWN, axis=0).max()), 0.1), POINTS)


def _panel(axis: Axes, profile: Profile, styles: dict[str, Look]) -> None:
    """All lines are one collection, the best drawn last: one by one they take five times as long."""
    points = _grid(profile)
    steps = np.repeat(points, 2)[1:]
    order = sorted(
        range(len(profile.methods)), key=lambda number: (styles[profile.methods[number]].colour != PALE, -number)
    )
    lines = [np.column_stack([steps, np.repeat(profile.share(number, points), 2)[:-1]]) for number in order]
    shown = [styles[profile.methods[number]] for number in order]
    strong = [
        look.colour != PALE and (len(order) > MANY or number < FIRST) for look, number in zip(shown, order, strict=True)
    ]
    colours = [to_rgba(look.colour, 1.0 if is_strong else 0.7) for look, is_strong in zip(shown, strong, strict=True)]
    widths = [1.8 if is_strong else 0.8 for is_strong in strong]
    shares = LineCollection(lines, colors=colours, linestyles=[look.line for look in shown], linewidths=widths)
    axis.add_collection(shares)
    within = [(profile.methods[number], profile.share(number, np.array([0.0, 1.0]))) for number in order]
    tell(axis, shares, [f"{name}: best in {best:.0%}, within 1 point in {near:.0%}" for name, (best, near) in within])
    axis.set_xlim(0, points[-1])
    axis.set_ylim(0, 1.02)


def _lacks(content: Content) -> str | None:
    return None if content.profiles else "two methods complete on all pairs of a kind"


PLOT = Plot("profile", "Performance profile", 70, _figure, _table, _lacks, slow=1)
