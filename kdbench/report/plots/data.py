"""What each figure shows, as a table: the CSV that goes with it."""

import math

import pandas as pd

from kdbench.analysis.stats import Interval
from kdbench.report.content import Content
from kdbench.report.plots.curves import mean_curves
from kdbench.report.plots.profile import grid
from kdbench.report.plots.published import measured
from kdbench.report.plots.ranks import ranked
from kdbench.report.plots.slope import slopes


def gains(content: Content) -> pd.DataFrame:
    """Gain with its interval by pair and method, published gains as rows of their own."""
    rows = [
        (row.pair, row.method, "ours", row.n, row.planned, *_interval(row.gain), " ".join(_seeds(row.seed_gains)))
        for row in content.gains.values()
        if row.role != "control"
    ]
    rows += [
        (row.pair, row.method, row.sources[0], None, None, row.gain.published, math.nan, math.nan, "")
        for row in content.own_published
        if not math.isnan(row.gain.published)
    ]
    return pd.DataFrame(rows, columns=["pair", "method", "source", "n", "planned", "gain", "low", "high", "by_seed"])


def tradeoff(content: Content) -> pd.DataFrame:
    """Mean gain and relative throughput by group and method."""
    rows = [
        (group, method, *_interval(row.gain), content.group_costs[group, method].to_control)
        for (group, method), row in content.group_gains.items()
    ]
    return pd.DataFrame(rows, columns=["group", "method", "gain", "low", "high", "speed_to_control"])


def heatmap(content: Content) -> pd.DataFrame:
    """Methods by pairs; empty where there is no average."""
    rows = {
        method: {pair: content.gains[pair, method].gain.value for pair in content.study.pairs}
        for method in content.study.methods
        if method != content.study.control
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method").reset_index()


def slope(content: Content) -> pd.DataFrame:
    """Mean gain over the pairs of both kinds."""
    rows = [(method, *both) for method, both in slopes(content).items()]
    return pd.DataFrame(rows, columns=["method", *content.study.groups])


def phases(content: Content) -> pd.DataFrame:
    """Milliseconds by pair, method and phase."""
    costs = content.costs.values()
    rows = [(cost.pair, cost.method, phase, value) for cost in costs for phase, value in cost.phases.items()]
    return pd.DataFrame(rows, columns=["pair", "method", "phase", "milliseconds"])


def profile(content: Content) -> pd.DataFrame:
    """Share of runs by group and distance from the best (rows) and method (columns)."""
    tables = []
    for one in content.profiles:
        shares = {method: one.share(number, grid(one)) for number, method in enumerate(one.methods)}
        tables.append(pd.DataFrame({"group": one.group, "points": grid(one)} | shares))
    return pd.concat(tables)


def ranks(content: Content) -> pd.DataFrame:
    """Mean rank with its interval by group and method, best first."""
    rows = [
        (group, method, *_interval(content.group_gains[group, method].rank))
        for group in content.study.groups
        for method in ranked(content, group)
    ]
    return pd.DataFrame(rows, columns=["group", "method", "rank", "low", "high"])


def critical(content: Content) -> pd.DataFrame:
    """Mean rank by group and method, best first, and how far apart ranks must be."""
    rows = [
        (ranking.group, method, rank, ranking.critical_difference)
        for ranking in content.rankings
        if ranking.meaningful
        for method, rank in zip(ranking.methods, ranking.mean_ranks, strict=True)
    ]
    return pd.DataFrame(rows, columns=["group", "method", "rank", "critical_difference"])


def published(content: Content) -> pd.DataFrame:
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
        for row in measured(content)
    ]
    return pd.DataFrame(rows)


curves = mean_curves


def _interval(interval: Interval) -> tuple[float, float, float]:
    return interval.value, interval.low, interval.high


def _seeds(gains: tuple[tuple[int, float], ...]) -> list[str]:
    return [f"{gain:.4g}" for _, gain in gains]
