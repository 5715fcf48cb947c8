"""Two runs beside each other: accuracy, relative throughput and memory of the methods that both have.

Accuracies of one protocol are paired by seed (same start, same images), else the two samples are independent and the
test is Welch's. Throughput is compared as the ratio to the control, never as images/s: ratios survive a change of
machine. Each kind of test is a family of its own that Holm corrects: accuracy and speed, by pair and over pairs.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import numpy as np
from scipy.stats import mannwhitneyu

from kdbench.analysis.cost import SPEED_MARGIN, PairCost, pair_costs
from kdbench.analysis.gains import Accuracies, State
from kdbench.analysis.stats import (
    ALPHA,
    MIN_TEST_SEEDS,
    UNKNOWN,
    Interval,
    geometric_mean,
    holm,
    stratified,
    stratified_p,
)
from kdbench.errors import KdbenchError
from kdbench.results.study import Study

Test = Literal["paired t", "Welch", "Mann-Whitney", "t over pairs", ""]
Mark = Literal["better", "worse", "equal", ""]
"""Of the new run; `equal`: no difference was found, or none that matters. Empty where nothing can be said."""

MEMORY_MARGIN = 0.05
"""Peaks that agree within this are equal: what an allocator rounds, and what else it holds."""


@dataclass(frozen=True)
class Change:
    """One quantity of the new run against that of the old one.

    Attributes:
        old, new: mean top-1 in percent, images/s over the control's, or bytes.
        size: new minus old in points, or new over old, with a 95 % interval where there is one.
        p: of the test, adjusted by Holm; NaN where none was made.
        test: which one, empty for none.
        n: how many values of the old and of the new run it is made of.
    """

    old: float = math.nan
    new: float = math.nan
    size: Interval = UNKNOWN
    p: float = math.nan
    test: Test = ""
    n: tuple[int, int] = (0, 0)
    mark: Mark = ""


@dataclass(frozen=True)
class Row:
    """A method of both runs, on a pair or over all the `pairs` of `place`.

    Attributes:
        place: name of the pair, or "all pairs".
        states: of the cells of the old and of the new run; an average wants both to be complete.
        planned, done: cells of the old and of the new run.
    """

    place: str
    method: str
    pairs: int
    states: tuple[State, State]
    planned: tuple[int, int]
    done: tuple[int, int]
    accuracy: Change
    speed: Change
    memory: Change


@dataclass(frozen=True)
class RunComparison:
    """Two runs, what both have, and what only one of them has.

    Attributes:
        by_pair: by pair, then method, in the order of the new run.
        over_pairs: one row a method that has every pair common to both runs; empty for a single one.
        only_old, only_new: (pair, method) of one run alone.
        notes: what keeps parts of them from being compared.
    """

    old: Study
    new: Study
    by_pair: tuple[Row, ...]
    over_pairs: tuple[Row, ...]
    only_old: tuple[tuple[str, str], ...]
    only_new: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


ALL_PAIRS = "all pairs"


def compare_runs(old: Study, new: Study, any_protocol: bool = False) -> RunComparison:
    """Hold a new run against an old one.

    Args:
        any_protocol: two protocols are compared all the same, as independent samples.

    Raises:
        KdbenchError: the runs are of two protocols or splits, or have no pair and method in common.
    """
    same = _protocol(old) == _protocol(new)
    if not same and not any_protocol:
        raise KdbenchError(
            f"the runs are not of one protocol ({' on '.join(_protocol(old))}; {' on '.join(_protocol(new))}); "
            "--any-protocol compares them all the same"
        )
    sides = _Side(old), _Side(new)
    common = [pair_method for pair_method in sides[1].pair_methods if pair_method in sides[0].pair_methods]
    if not common:
        raise KdbenchError("the runs have no pair and method in common")
    by_pair = [_row(sides, [pair_method], pair_method[0], same) for pair_method in common]
    pairs = list(dict.fromkeys(pair for pair, _ in common))
    methods = [method for method in new.methods if all((pair, method) in common for pair in pairs)]
    over = [_row(sides, [(p, m) for p in pairs], ALL_PAIRS, same) for m in methods] if len(pairs) > 1 else []
    return RunComparison(
        old=old,
        new=new,
        by_pair=tuple(_marked(by_pair)),
        over_pairs=tuple(_marked(over)),
        only_old=tuple(pair_method for pair_method in sides[0].pair_methods if pair_method not in common),
        only_new=tuple(pair_method for pair_method in sides[1].pair_methods if pair_method not in common),
        notes=tuple(_notes(*sides, same)),
    )


class _Side:
    """What is compared of one run, and which (pair, method)s it planned."""

    def __init__(self, study: Study) -> None:
        cells = study.cells[["pair", "method"]].itertuples(index=False, name=None)
        planned = {*cells, *((one["pair"], one["method"]) for one in study.manifest["throughput"])}
        self.pair_methods = [(p, m) for p in study.pairs for m in study.methods if (p, m) in planned]
        self.measure = study.control, *sorted(set(study.throughput["timing_protocol"]))
        self.accuracies = Accuracies(study)
        self.costs: dict[tuple[str, str], PairCost] = {(cost.pair, cost.method): cost for cost in pair_costs(study)}

    def done(self, pair_method: tuple[str, str]) -> int:
        return len(self.accuracies.top1[pair_method])

    def planned(self, pair_method: tuple[str, str]) -> int:
        return len(self.accuracies.status[pair_method])


def _row(sides: tuple[_Side, _Side], pair_methods: Sequence[tuple[str, str]], name: str, same: bool) -> Row:
    old, new = sides
    method = pair_methods[0][1]
    return Row(
        place=name,
        method=method,
        pairs=len(pair_methods),
        states=(_state(old, pair_methods), _state(new, pair_methods)),
        planned=(sum(map(old.planned, pair_methods)), sum(map(new.planned, pair_methods))),
        done=(sum(map(old.done, pair_methods)), sum(map(new.done, pair_methods))),
        accuracy=_accuracy(old.accuracies, new.accuracies, pair_methods, same),
        speed=_speed(old, new, pair_methods),
        memory=_memory(
            [(old.costs[pair_method].peak_memory, new.costs[pair_method].peak_memory) for pair_method in pair_methods]
        ),
    )


def _state(side: _Side, pair_methods: Sequence[tuple[str, str]]) -> State:
    return side.accuracies.state([pair for pair, _ in pair_methods], pair_methods[0][1])


def _accuracy(old: Accuracies, new: Accuracies, pair_methods: Sequence[tuple[str, str]], same: bool) -> Change:
    """The change of the mean over some pairs, paired by seed where all of them can be."""
    if not all(side.complete(*pair_method) for side in (old, new) for pair_method in pair_methods):
        return Change()
    values = [(old.top1[pair_method], new.top1[pair_method]) for pair_method in pair_methods]
    if paired := same and all(_can_be_paired(a, b) for a, b in values):
        values = [
            ({seed: a[seed] for seed in a if seed in b}, {seed: b[seed] for seed in a if seed in b}) for a, b in values
        ]
        groups = [[b[seed] - a[seed] for seed in a] for a, b in values]
        size = stratified(groups)
    else:
        # The mean of the new values and the negative old ones is half of the difference, its test is Welch's.
        groups = [group for a, b in values for group in (list(b.values()), [-value for value in a.values()])]
        half = stratified(groups)
        size = Interval(2 * half.value, 2 * half.low, 2 * half.high)
    means = [float(np.mean([np.mean(list(side.values())) for side in one])) for one in zip(*values, strict=True)]
    return Change(
        old=means[0],
        new=means[1],
        size=size,
        p=stratified_p(groups),
        test="paired t" if paired else "Welch",
        n=(sum(len(a) for a, _ in values), sum(len(b) for _, b in values)),
    )


def _can_be_paired(old: dict[int, float], new: dict[int, float]) -> bool:
    """Whether enough seeds are common to both, or as many as there are."""
    return len(set(old) & set(new)) >= min(MIN_TEST_SEEDS, len(old), len(new))


def _speed(old: _Side, new: _Side, pair_methods: Sequence[tuple[str, str]]) -> Change:
    """Images/s over the control's: by blocks on a pair, by the pairs' factors over several."""
    if old.measure != new.measure or pair_methods[0][1] == new.measure[0]:
        return Change()
    before, after = ([side.costs[pair_method] for pair_method in pair_methods] for side in (old, new))
    medians = [[cost.to_control.value for cost in costs] for costs in (before, after)]
    if any(map(math.isnan, [*medians[0], *medians[1]])):
        return Change()
    factors = [b / a for a, b in zip(*medians, strict=True)]
    change = Change(old=geometric_mean(medians[0]), new=geometric_mean(medians[1]))
    if len(pair_methods) > 1:
        logs = [math.log(factor) for factor in factors]
        ends = stratified([logs])
        size = Interval(*(math.exp(value) for value in (ends.value, ends.low, ends.high)))
        return replace(change, size=size, p=stratified_p([logs]), test="t over pairs", n=(len(logs), len(logs)))
    blocks = before[0].ratios, after[0].ratios
    # Blocks have outliers on a loaded machine, so they are compared by ranks, as the gate does.
    p = float(mannwhitneyu(*blocks).pvalue)
    size = Interval(factors[0], math.nan, math.nan)
    return replace(change, size=size, p=p, test="Mann-Whitney", n=(len(blocks[0]), len(blocks[1])))


def _memory(peaks: Sequence[tuple[int | None, int | None]]) -> Change:
    measured = [(old, new) for old, new in peaks if old and new]
    if len(measured) < len(peaks):
        return Change()
    old, new = (geometric_mean([float(peak) for peak in one]) for one in zip(*measured, strict=True))
    return Change(old=old, new=new, size=Interval(new / old, math.nan, math.nan), n=(len(measured), len(measured)))


def _marked(rows: Sequence[Row]) -> list[Row]:
    """The rows with adjusted p-values and marks."""
    accuracies = _judged([row.accuracy for row in rows], lambda change: change.size.value)
    speeds = _judged([row.speed for row in rows], lambda change: _beyond(change.size.value, SPEED_MARGIN))
    memories = [replace(row.memory, mark=_mark(-_beyond(row.memory.size.value, MEMORY_MARGIN))) for row in rows]
    marked = zip(rows, accuracies, speeds, memories, strict=True)
    return [replace(row, accuracy=top1, speed=speed, memory=memory) for row, top1, speed, memory in marked]


def _judged(changes: Sequence[Change], gain: Callable[[Change], float]) -> list[Change]:
    """Changes with their p-values adjusted, and marked where the test finds that the `gain` is one."""
    adjusted = holm([change.p for change in changes])
    judged = []
    for change, p in zip(changes, adjusted, strict=True):
        # Equal on every seed there is nothing to test, and nothing to find.
        nothing = change.size.value == change.size.low == change.size.high
        mark = _mark(gain(change) if p < ALPHA else 0.0) if p == p or nothing else ""
        judged.append(replace(change, p=float(p), mark=mark))
    return judged


def _beyond(factor: float, margin: float) -> float:
    """By how much a factor is beyond the margin about 1, 0 within."""
    return factor - 1 if not abs(factor - 1) <= margin else 0.0


def _mark(gain: float) -> Mark:
    return "" if math.isnan(gain) else "better" if gain > 0 else "worse" if gain < 0 else "equal"


def _protocol(study: Study) -> tuple[str, ...]:
    """Protocol, and split where anything was evaluated."""
    splits = sorted({split for split in cast(list[Any], study.cells["split"].tolist()) if isinstance(split, str)})
    return study.manifest["protocol"], *splits


def _notes(old: _Side, new: _Side, same: bool) -> list[str]:
    lines = [] if same else ["The runs are not of one protocol: a change may be the protocol's."]
    if old.measure != new.measure:
        kinds = [" by ".join(map(str, side.measure)) for side in (old, new)]
        both = all(len(side.measure) > 1 for side in (old, new))
        why = f"it is relative to {kinds[0]} and to {kinds[1]}" if both else "only one run measured it"
        lines.append(f"Throughput is not compared: {why}.")
    return lines
