"""What was measured against what was published: on the diagonal a number came out again."""

import math
from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from kdbench.analysis.comparison import Comparison, Match
from kdbench.report import text
from kdbench.report.content import Content
from kdbench.report.drawing.layout import ROW, Drawing, panels, tell
from kdbench.report.drawing.style import GREY, Look, Style, hollow, looks
from kdbench.report.plots import Plot

SIDE = 3.4
"""Of a panel."""


def _figure(content: Content, style: Style) -> Drawing:
    """Top-1 and gain, one marker a published number that we have one beside; hollow where they are not comparable."""
    study = content.study
    shown = _measured(content)
    by_kind = {title: [row for row in shown if _known(_match(row, title))] for title in ("top-1", "gain")}
    kinds = {title: rows for title, rows in by_kind.items() if rows}
    styles = looks(study.methods, study.control)
    legend = {
        method: Line2D([], [], color=styles[method].colour, marker=styles[method].marker, linestyle="")
        for method in study.methods
        if any(row.method == method for row in shown)
    }
    if any(row.reason for row in shown):
        legend["not comparable"] = Line2D([], [], **hollow("o", GREY))
    noise = "bars: tolerance of the verdict (our 95 % interval and the allowance for theirs)"
    figure, axes = panels(
        list(kinds),
        (SIDE, max(SIDE, ROW * len(legend) - 0.2)),
        style=style,
        title="Measured against published",
        caption=f"{text.caption(study, study.cells, noise)} · {text.published_as(shown)}",
        left=0.65,
        gap_x=0.65,
        x_label="published",
        y_label="ours",
        legend=legend,
    )
    for axis, (title, rows) in zip(axes, kinds.items(), strict=True):
        axis.set(xlabel=f"published {title}", ylabel=f"our {title}")
        _panel(axis, [(row, _match(row, title)) for row in rows], styles)
    return figure


def _table(content: Content) -> pd.DataFrame:
    """Ours beside the published numbers, with why the two are not comparable."""
    rows = [
        {
            "pair": row.pair,
            "method": row.method,
            "source": row.sources[0],
            "epoch": row.epoch,
            "published_top1": row.top1.published,
            "top1": row.top1.ours.value,
            "published_gain": row.gain.published,
            "gain": row.gain.ours.value,
            "not_comparable": row.reason,
        }
        for row in _measured(content)
    ]
    return pd.DataFrame(rows)


def _lacks(content: Content) -> str | None:
    # Most pairs were never published; where they were, it is told why they are not compared.
    return None if _measured(content) else "comparable protocol and seeds" if content.published else ""


def _measured(content: Content) -> list[Comparison]:
    """The published numbers of the study's own protocol for which all our seeds are done."""
    return [row for row in content.own_published if _known(row.top1) or _known(row.gain)]


def _known(match: Match) -> bool:
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


PLOT = Plot("published", "Measured against published", 100, _figure, _table, _lacks)
