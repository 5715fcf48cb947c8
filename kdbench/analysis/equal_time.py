"""Accuracy at equal time: the gain of each method over the control trained for as long as the method takes."""

import math
from dataclasses import dataclass, replace

from kdbench.analysis.gains import Accuracies
from kdbench.analysis.stats import UNKNOWN, Interval, holm, paired_t, stratified, stratified_p
from kdbench.results.study import Group, Study


@dataclass(frozen=True)
class EqualTime:
    """What a method gains over the control at equal time on one pair.

    Attributes:
        epochs: of the control, None where the method's throughput is not known.
        planned, n: seeds planned, and those of which method and control are done; fewer means no average.
        top1: mean top-1 of that control in percent.
        gain: of the method over it in points, with a paired t-interval.
        seed_gains: by seed, in order.
    """

    pair: str
    method: str
    epochs: int | None
    planned: int
    n: int
    top1: float
    gain: Interval
    seed_gains: tuple[float, ...]


@dataclass(frozen=True)
class GroupEqualTime:
    """One method over the pairs of a group; unknown unless complete on all of them.

    Attributes:
        planned, n: cells planned, and cells a gain exists for.
        gain: equal-weight mean over pairs, with the stratified t-interval.
        p: stratified t-test of no gain, adjusted by Holm over the methods of the group.
    """

    group: Group
    method: str
    planned: int
    n: int
    gain: Interval
    p: float


def pair_equal_times(study: Study) -> list[EqualTime]:
    """Every method but the control on every pair, by pair, then method; none where the run did not ask for it."""
    if study.equal_time.empty:
        return []
    accuracies = Accuracies(study)
    frame = study.equal_time
    control = {
        (pair, method): (int(of_method["epochs"].iloc[0]), dict(zip(of_method["seed"], of_method["top1"], strict=True)))
        for (pair, method), of_method in frame.groupby(["pair", "method"], sort=False)
    }
    rows = []
    for pair in study.pairs:
        for method in (name for name in study.methods if name != study.control):
            epochs, top1 = control.get((pair, method), (None, {}))
            measured = {seed: value for seed, value in top1.items() if not math.isnan(value)}
            planned = len(accuracies.status[pair, method])
            gains = [
                v - measured[seed] for seed, v in sorted(accuracies.top1[pair, method].items()) if seed in measured
            ]
            is_complete = planned == len(gains) > 0
            rows.append(
                EqualTime(
                    pair=pair,
                    method=method,
                    epochs=epochs,
                    planned=planned,
                    n=len(gains),
                    top1=sum(measured.values()) / len(measured) if planned == len(measured) > 0 else math.nan,
                    gain=paired_t(gains) if is_complete else UNKNOWN,
                    seed_gains=tuple(gains),
                )
            )
    return rows


def group_equal_times(study: Study, rows: list[EqualTime]) -> list[GroupEqualTime]:
    """Every method over the pairs of every group, by group, then method."""
    group_rows = []
    for group, pairs in study.groups.items():
        over = []
        for method in dict.fromkeys(row.method for row in rows):
            of_method = [row for row in rows if row.method == method and row.pair in pairs]
            gains = [list(row.seed_gains) for row in of_method]
            is_complete = all(row.n == row.planned for row in of_method)
            over.append(
                GroupEqualTime(
                    group=group,
                    method=method,
                    planned=sum(row.planned for row in of_method),
                    n=sum(row.n for row in of_method),
                    gain=stratified(gains) if is_complete else UNKNOWN,
                    p=stratified_p(gains) if is_complete else math.nan,
                )
            )
        adjusted = holm([row.p for row in over])
        group_rows += [replace(row, p=float(p)) for row, p in zip(over, adjusted, strict=True)]
    return group_rows
