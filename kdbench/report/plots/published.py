"""What was measured against what was published: on the diagonal a number came out again."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from kdbench.analysis.comparison import Comparison, Match
from kdbench.report import text
from kdbench.report.content import Content
from kdbench.report.plots.layout import ROW, Drawing, head, label_width, legend_right, panels, tell
from kdbench.report.plots.style import GREY, SCREEN, Look, Style, hollow, looks, styled

SIDE = 3.4
"""Of a panel."""


def draw_published(content: Content, style: Style = SCREEN) -> Drawing:
    """Top-1 and gain, one marker a published number that we have one beside; hollow where they are not comparable."""
    study = content.study
    shown = measured(content)
    by_kind = {title: [row for row in shown if known(_match(row, title))] for title in ("top-1", "gain")}
    kinds = [(title, rows) for title, rows in by_kind.items() if rows]
    methods = [method for method in study.methods if any(row.method == method for row in shown)]
    styles = looks(study.methods, study.control)
    names = [*methods, "not comparable"] if any(row.reason for row in shown) else methods
    right = label_width(names) + 0.5
    noise = "bars: tolerance of the verdict (our 95 % interval and the allowance for theirs)"
    with styled(style):
        figure, axes = panels(
            len(kinds),
            (SIDE, max(SIDE, ROW * len(names) - 0.2)),
            style=style,
            title="Measured against published",
            caption=f"{text.caption(study, study.cells, noise)} · {text.published_as(shown)}",
            left=0.65,
            right=right,
            x_labels=True,
            gap_x=0.65,
        )
        for axis, (title, rows) in zip(axes, kinds, strict=True):
            head(axis, title)
            axis.set_xlabel(f"published {title}")
            axis.set_ylabel(f"our {title}")
            _panel(axis, [(row, _match(row, title)) for row in rows], {name: styles[name] for name in methods})
        handles = [
            Line2D([], [], color=styles[name].colour, marker=styles[name].marker, linestyle="") for name in methods
        ]
        if len(names) > len(methods):
            handles.append(Line2D([], [], **hollow("o", GREY)))
        legend_right(figure, handles, names, right)
    return figure


def measured(content: Content) -> list[Comparison]:
    """The published numbers of the study's own protocol for which all our seeds are done."""
    return [row for row in content.own_published if known(row.top1) or known(row.gain)]


def known(match: Match) -> bool:
    """Whether there are a published number and one of ours."""
    return not math.isnan(match.published + match.ours.value)


def _match(row: Comparison, title: str) -> Match:
    return row.top1 if title == "top-1" else row.gain


def _panel(axis: Axes, rows: Sequence[tuple[Comparison, Match]], styles: dict[str, Look]) -> None:
    for row, match in rows:
        look, place = styles[row.method], (match.published, match.ours.value)
        if row.reason:
            (mark,) = axis.plot(*([value] for value in place), **hollow(look.marker, look.colour))
        else:
            if not math.isnan(match.tolerance):
                ends = [place[1] - match.tolerance, place[1] + match.tolerance]
                axis.plot([place[0]] * 2, ends, color=look.colour, linewidth=0.8, alpha=0.6)
            (mark,) = axis.plot(*([value] for value in place), look.marker, color=look.colour, markersize=5)
        verdict = row.reason or match.verdict or "one seed"
        tip = f"{row.method} on {row.pair}: {place[1]:.2f}, published {place[0]:.2f} by {row.sources[0]} ({verdict})"
        tell(axis, mark, [tip])
    start = rows[0][1].published
    axis.axline((start, start), slope=1, color=GREY, linewidth=0.7, zorder=0.6)
    axis.margins(0.06)
