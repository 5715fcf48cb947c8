"""Mean ranks with Nemenyi's critical difference (Demsar 2006), where there are enough pairs."""

import pandas as pd
from matplotlib.axes import Axes

from kdbench.analysis.ranking import Ranking
from kdbench.analysis.stats import ALPHA
from kdbench.report import text
from kdbench.report.content import Content
from kdbench.report.drawing.layout import Drawing, label_rows, label_width, panels, rows_height, tell
from kdbench.report.drawing.style import GREY, Style, looks
from kdbench.report.plots import Plot

BAR = 0.035
"""Distance of two bars at the right of a panel, as a share of its width."""


def _figure(content: Content, style: Style) -> Drawing:
    """One panel a group with enough pairs, one row a method, best first; a bar joins methods that do not differ."""
    study = content.study
    shown = _shown(content)
    names = [method for ranking in shown for method in ranking.methods]
    note = f"means over seeds ranked on each pair, Friedman and Nemenyi at {ALPHA}, joined: no difference found"
    figure, axes = panels(
        [
            f"{text.plural(ranking.pairs, f'{ranking.group} pair')}, Friedman p {text.p_value(ranking.p)}, "
            f"CD {ranking.critical_difference:.2f}"
            for ranking in shown
        ],
        (4.2, rows_height(max(len(ranking.methods) for ranking in shown))),
        style=style,
        title="Mean rank by top-1",
        caption=text.caption(study, study.cells, note),
        left=label_width(names),
        gap_x=label_width(names) + 0.2,
        x_label="mean rank (1 is best)",
    )
    for axis, ranking in zip(axes, shown, strict=True):
        _panel(axis, content, ranking)
    return figure


def _table(content: Content) -> pd.DataFrame:
    """Mean rank by group and method, best first, and how far apart ranks must be."""
    rows = [
        (ranking.group, method, rank, ranking.critical_difference)
        for ranking in _shown(content)
        for method, rank in zip(ranking.methods, ranking.mean_ranks, strict=True)
    ]
    return pd.DataFrame(rows, columns=["group", "method", "rank", "critical_difference"])


def _shown(content: Content) -> list[Ranking]:
    return [ranking for ranking in content.rankings if ranking.meaningful]


def _panel(axis: Axes, content: Content, ranking: Ranking) -> None:
    count = len(ranking.methods)
    styles = looks(content.study.methods, content.study.control)
    label_rows(axis, ranking.methods, every_panel=True)
    # Room at the right for the bars, beyond the last rank.
    axis.set_xlim(0.8, 0.8 + (count - 0.4) / (1 - BAR * (len(ranking.cliques) + 0.5)))
    axis.set_xticks(range(1, count + 1, 1 + count // 8))
    for y, (method, rank) in enumerate(zip(ranking.methods, ranking.mean_ranks, strict=True)):
        (mark,) = axis.plot([rank], [y], styles[method].marker, color=styles[method].colour, markersize=5)
        tell(axis, mark, [f"{method}: mean rank {rank:.2f}"])
    for number, (first, last) in enumerate(reversed(ranking.cliques), start=1):
        x = 1 - BAR * (number - 0.5)
        axis.plot([x, x], [first - 0.2, last + 0.2], color=GREY, linewidth=3, transform=axis.get_yaxis_transform())


def _lacks(content: Content) -> str | None:
    return None if _shown(content) else ""


PLOT = Plot("critical_difference", "Mean ranks and critical difference", 60, _figure, _table, _lacks)
