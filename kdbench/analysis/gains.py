"""Accuracy: gain over the control of each method on each pair, and on average over the pairs of a group.

A set that is incomplete (a planned seed missing or failed, of the method or of the control) has no average:
its fields are NaN, and only `n` of `planned` is told.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np

from kdbench.analysis.stats import (
    UNKNOWN,
    Interval,
    detectable_gain,
    holm,
    holm_levels,
    improvement,
    paired_t,
    ranks,
    stratified,
    stratified_p,
)
from kdbench.results.schema import Role
from kdbench.results.study import Group, Study

State = Literal["complete", "incomplete", "unsupported"]
Finding = Literal["better", "worse", "not shown", "not tested"]
"""What a study shows of a difference: that it is above or below zero, neither, or nothing for want of a test."""
Standing = Literal["control", "better", "not shown", "worse than baseline", "worse than control"]
"""What a study shows of a method; better: than the control or than the baseline."""


@dataclass(frozen=True)
class PairGain:
    """One method on one pair (accuracies in percent, gains in points).

    Attributes:
        planned: seeds planned.
        done: seeds of which the method is done.
        n: seeds of which the method and the control are done, those a gain exists for.
        state: "unsupported" when the method does not work on the pair.
        top1, top1_std, best_top1: over seeds; last epoch, its spread, and the best epoch on the same split.
        gain: mean gain over the control, with a paired t-interval; exactly 0 for the control itself.
        gain_baseline: the same over the baseline; unknown for the control and for the baseline itself.
        seed_gains: (seed, gain) of each of the n seeds.
        p_control, p_baseline: paired t-tests, adjusted by Holm over the methods of the pair; NaN for n < 3.
        gain_holm, gain_baseline_holm: the same gains with the intervals at the levels of these tests
            (`stats.holm_levels`), wider than those at 95 %; the ends are unknown where there is no test.
    """

    pair: str
    method: str
    role: Role
    planned: int
    done: int
    n: int
    state: State
    top1: float
    top1_std: float
    best_top1: float
    gain: Interval
    gain_baseline: Interval
    seed_gains: tuple[tuple[int, float], ...]
    p_control: float
    p_baseline: float
    gain_holm: Interval = UNKNOWN
    gain_baseline_holm: Interval = UNKNOWN


@dataclass(frozen=True)
class GroupGain:
    """One method over the pairs of a group.

    Attributes:
        pairs: pairs in the group.
        planned, n: cells planned, and cells a gain exists for; fewer than planned means no averages.
        state: "unsupported" when the method works on none of the pairs.
        gain: equal-weight mean over pairs, with the stratified t-interval.
        gain_baseline: the same over the baseline; unknown for the control and for the baseline itself.
        improvement: probability that a run of the method beats a run of the baseline on the same pair, with interval.
        rank: mean rank by accuracy among the complete methods of the group, 1 is best, by pair and seed.
        p_control, p_baseline: stratified t-tests, adjusted by Holm over the methods of the group.
        gain_holm, gain_baseline_holm: as of `PairGain`.
    """

    group: Group
    method: str
    role: Role
    pairs: int
    planned: int
    n: int
    state: State
    gain: Interval
    gain_baseline: Interval
    improvement: Interval
    rank: Interval
    p_control: float
    p_baseline: float
    gain_holm: Interval = UNKNOWN
    gain_baseline_holm: Interval = UNKNOWN


@dataclass(frozen=True)
class Sensitivity:
    """What gain over the pairs of a group a study could find (see `stats.power`).

    Attributes:
        sigma: spread of a paired gain over seeds within a pair: the root of the mean variance over the methods that
            are complete on all the pairs, and over the pairs; NaN where there is none.
        tests: against the control in the family that Holm corrects.
        detectable: smallest true mean gain found in POWER of such studies, by number of seeds; the study's own first.
    """

    group: Group
    pairs: int
    sigma: float
    tests: int
    detectable: dict[int, float]

    @property
    def own(self) -> float:
        """The smallest gain that the study itself finds so."""
        return next(iter(self.detectable.values()), math.nan)


MORE_SEEDS = (5, 10, 20)
"""What would more of them find? Those above a study's own number are told."""

Row = TypeVar("Row", PairGain, GroupGain)
Groups = Sequence[Sequence[float]]
"""Paired differences of each pair."""


def standing(row: PairGain | GroupGain) -> Standing:
    """Both findings about a method in one, the worse one first; the colour of all figures."""
    if row.role == "control":
        return "control"
    over = finding(row.gain_holm), finding(row.gain_baseline_holm)
    if over[0] == "worse":
        return "worse than control"
    if over[1] == "worse":
        return "worse than baseline"
    return "better" if "better" in over else "not shown"


def finding(corrected: Interval) -> Finding:
    """What an interval at Holm's level shows: the one home of every verdict on a gain, in words, marks and colours."""
    if math.isnan(corrected.low):
        return "not tested"
    return "better" if corrected.low > 0 else "worse" if corrected.high < 0 else "not shown"


class Accuracies:
    """Top-1 by pair, method and seed, with what is missing, read from the study's cells once."""

    def __init__(self, study: Study, metric: str = "top1") -> None:
        """Args:
        metric: the column of the study's cells that is taken as the accuracy.
        """
        pair_methods = [(pair, method) for pair in study.pairs for method in study.methods]
        self.status: dict[tuple[str, str], dict[int, str]] = {pair_method: {} for pair_method in pair_methods}
        self.top1: dict[tuple[str, str], dict[int, float]] = {pair_method: {} for pair_method in pair_methods}
        self.best: dict[tuple[str, str], dict[int, float]] = {pair_method: {} for pair_method in pair_methods}
        cells = study.cells
        columns = [cells[name].tolist() for name in ("pair", "method", "seed", "status", metric, "best_top1")]
        for pair, method, seed, status, top1, best in zip(*columns, strict=True):
            self.status[pair, method][seed] = status
            if status == "done":
                self.top1[pair, method][seed] = top1
                self.best[pair, method][seed] = best

    def complete(self, pair: str, method: str | None) -> bool:
        """Whether every planned cell of the method is done on the pair (never for no method or plan)."""
        statuses = self.status[pair, method].values() if method is not None else ()
        return bool(statuses) and all(status == "done" for status in statuses)

    def state(self, pairs: Sequence[str], method: str) -> State:
        """Of the method's own cells on the pairs."""
        statuses = {status for pair in pairs for status in self.status[pair, method].values()}
        if statuses == {"unsupported"}:
            return "unsupported"
        return "complete" if all(self.complete(pair, method) for pair in pairs) else "incomplete"

    def differences(self, pair: str, method: str, other: str | None) -> dict[int, float]:
        """Top-1 of the method minus that of the other, by seed, where both are done."""
        theirs = self.top1[pair, other] if other is not None else {}
        return {seed: value - theirs[seed] for seed, value in self.top1[pair, method].items() if seed in theirs}

    def together(self, pair: str, methods: Sequence[str]) -> list[list[float]]:
        """Top-1 of each method on the seeds of which all of them are done, in the order of the seeds."""
        columns = [self.top1[pair, method] for method in methods]
        seeds = sorted(set.intersection(*map(set, columns))) if columns else []
        return [[column[seed] for seed in seeds] for column in columns]


def pair_gains(study: Study) -> list[PairGain]:
    """Every method on every pair, by pair, then method."""
    accuracies = Accuracies(study)
    return [row for pair in study.pairs for row in _gains_of_pair(study, accuracies, pair)]


def _gains_of_pair(study: Study, accuracies: Accuracies, pair: str) -> list[PairGain]:
    rows, tested = [], []
    for method in study.methods:
        planned = len(accuracies.status[pair, method])
        top1 = list(accuracies.top1[pair, method].values())
        is_complete = accuracies.complete(pair, method)
        gains = accuracies.differences(pair, method, study.control)
        over_baseline = accuracies.differences(pair, method, study.baseline)
        all_gains = list(gains.values()) if 0 < planned == len(gains) else []
        all_over = list(over_baseline.values()) if 0 < planned == len(over_baseline) else []
        role = study.roles[method]
        tested.append(([all_gains], [all_over]))
        rows.append(
            PairGain(
                pair=pair,
                method=method,
                role=role,
                planned=planned,
                done=len(top1),
                n=len(gains),
                state=accuracies.state([pair], method),
                top1=float(np.mean(top1)) if is_complete else math.nan,
                top1_std=float(np.std(top1, ddof=1)) if is_complete and len(top1) > 1 else math.nan,
                best_top1=float(np.mean(list(accuracies.best[pair, method].values()))) if is_complete else math.nan,
                gain=paired_t(all_gains),
                gain_baseline=paired_t(all_over) if role == "method" else UNKNOWN,
                seed_gains=tuple(sorted(gains.items())),
                p_control=stratified_p([all_gains]) if role != "control" else math.nan,
                p_baseline=stratified_p([all_over]) if role == "method" else math.nan,
            )
        )
    return _adjusted(rows, tested)


def group_gains(study: Study, metric: str = "top1") -> list[GroupGain]:
    """Every method over the pairs of every group of the study, by group, then method.

    Args:
        metric: as of `Accuracies`; where a record does not tell it, there are no gains.
    """
    accuracies = Accuracies(study, metric)
    return [row for group in study.groups for row in _gains_of_group(study, accuracies, group)]


def _gains_of_group(study: Study, accuracies: Accuracies, group: Group) -> list[GroupGain]:
    pairs = study.groups[group]
    has_control = all(accuracies.complete(pair, study.control) for pair in pairs)
    included = [
        method for method in study.methods if has_control and all(accuracies.complete(pair, method) for pair in pairs)
    ]
    mean_rank = dict(zip(included, _rank_intervals(accuracies, pairs, included), strict=True))
    rows, tested = [], []
    for method in study.methods:
        gains = [list(accuracies.differences(pair, method, study.control).values()) for pair in pairs]
        over, against = [], UNKNOWN
        if method in included and study.baseline in included:
            over = [list(accuracies.differences(pair, method, study.baseline).values()) for pair in pairs]
            both = [accuracies.together(pair, [method, study.baseline]) for pair in pairs]
            against = improvement([mine for mine, _ in both], [theirs for _, theirs in both])
        role = study.roles[method]
        state = accuracies.state(pairs, method)
        tested.append((gains, over))
        rows.append(
            GroupGain(
                group=group,
                method=method,
                role=role,
                pairs=len(pairs),
                planned=sum(len(accuracies.status[pair, method]) for pair in pairs),
                n=sum(map(len, gains)),
                state="incomplete" if state == "complete" and method not in included else state,
                gain=stratified(gains) if method in included else UNKNOWN,
                gain_baseline=stratified(over) if role == "method" else UNKNOWN,
                improvement=against if role != "baseline" else UNKNOWN,
                rank=mean_rank.get(method, UNKNOWN),
                p_control=stratified_p(gains) if method in included and role != "control" else math.nan,
                p_baseline=stratified_p(over) if role == "method" else math.nan,
            )
        )
    return _adjusted(rows, tested)


def sensitivities(study: Study) -> list[Sensitivity]:
    """The sensitivity of every group of the study."""
    accuracies = Accuracies(study)
    return [_sensitivity(study, accuracies, group) for group in study.groups]


def _sensitivity(study: Study, accuracies: Accuracies, group: Group) -> Sensitivity:
    pairs = study.groups[group]
    tested = [
        [list(accuracies.differences(pair, method, study.control).values()) for pair in pairs]
        for method in study.methods
        if method != study.control
        and all(accuracies.complete(pair, method) and accuracies.complete(pair, study.control) for pair in pairs)
    ]
    seeds = study.seed_counts[0]
    variances = [np.var(gains, ddof=1) for method in tested for gains in method if len(gains) > 1]
    sigma = math.sqrt(np.mean(variances)) if variances else math.nan
    numbers = [seeds, *(more for more in MORE_SEEDS if more > seeds)]
    return Sensitivity(
        group=group,
        pairs=len(pairs),
        sigma=sigma,
        tests=len(tested),
        detectable={number: detectable_gain(sigma, number, len(pairs), max(1, len(tested))) for number in numbers},
    )


def _rank_intervals(accuracies: Accuracies, pairs: Sequence[str], methods: Sequence[str]) -> list[Interval]:
    """Mean rank of each method: every (pair, seed) is ranked by itself, the interval is cut to ranks there are."""
    if not methods:
        return []
    by_pair = [ranks(np.array(accuracies.together(pair, methods)).T) for pair in pairs]
    means = [stratified([placed[:, i] for placed in by_pair]) for i in range(len(methods))]
    return [
        replace(mean, low=float(np.maximum(mean.low, 1)), high=float(np.minimum(mean.high, len(methods))))
        for mean in means
    ]


def _adjusted(rows: list[Row], tested: Sequence[tuple[Groups, Groups]]) -> list[Row]:
    """The rows with their tests corrected by Holm: one family against the control, one the baseline.

    Args:
        tested: by row, the differences from the control and from the baseline.
    """
    families = [row.p_control for row in rows], [row.p_baseline for row in rows]
    (control, baseline), (levels, over_levels) = map(holm, families), map(holm_levels, families)
    return [
        replace(
            row,
            p_control=float(control[i]),
            p_baseline=float(baseline[i]),
            gain_holm=_at_level(gains, levels[i]),
            gain_baseline_holm=_at_level(over, over_levels[i]),
        )
        for i, (row, (gains, over)) in enumerate(zip(rows, tested, strict=True))
    ]


def _at_level(groups: Groups, level: float) -> Interval:
    return UNKNOWN if math.isnan(level) else stratified(groups, float(level))
