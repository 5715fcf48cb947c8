"""Which method to use: those that no other is shown better than, and the cheapest of these.

A mean says little here: among thirty methods of equal worth, the largest of thirty means is large by chance alone.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kdbench.analysis.cost import SPEED_MARGIN, GroupCost
from kdbench.analysis.gains import Accuracies
from kdbench.analysis.stats import MIN_TEST_SEEDS, maybe_best, steps_up
from kdbench.results.study import Group, Study


@dataclass(frozen=True)
class MethodChoice:
    """What a study says about which method to use on the pairs of a group; the control is one of them.

    Attributes:
        methods: those that are complete on all the pairs, largest mean first; empty where the control is not.
        candidates: of these, the ones that no other is shown better than (`stats.maybe_best`).
        cheapest: of the candidates, the ones with the shortest step; within the margin of a measurement all of them.
            Empty unless the step of every candidate was measured.
        front: the methods with which more time buys a gain that was shown (`stats.steps_up`), cheapest first.
        tested: whether there are enough seeds for a test; without one, every method is a candidate.
    """

    group: Group
    methods: tuple[str, ...]
    candidates: tuple[str, ...]
    cheapest: tuple[str, ...]
    front: tuple[str, ...]
    tested: bool


def choices(study: Study, costs: Sequence[GroupCost]) -> list[MethodChoice]:
    """The choice of every group of the study."""
    accuracies = Accuracies(study)
    times = {(cost.group, cost.method): 1 / cost.to_control for cost in costs}
    return [
        _choice(study, accuracies, group, {method: times[group, method] for method in study.methods})
        for group in study.groups
    ]


def _choice(study: Study, accuracies: Accuracies, group: Group, times: Mapping[str, float]) -> MethodChoice:
    pairs = study.groups[group]
    has_control = all(accuracies.complete(pair, study.control) for pair in pairs)
    complete = [
        method for method in study.methods if has_control and all(accuracies.complete(pair, method) for pair in pairs)
    ]
    top1 = [_by_seed([accuracies.top1[pair, method] for method in complete]) for pair in pairs] if complete else []
    means = (
        dict(zip(complete, np.mean([own.mean(axis=0) for own in top1], axis=0).tolist(), strict=True)) if top1 else {}
    )
    better, maybe = maybe_best(top1)
    candidates = [method for method, is_candidate in zip(complete, maybe, strict=True) if is_candidate]
    timed = [i for i, method in enumerate(complete) if not math.isnan(times[method])]
    front = steps_up([times[complete[i]] for i in timed], better[np.ix_(timed, timed)], SPEED_MARGIN)
    least = min((times[method] for method in candidates), default=math.nan)
    known = not any(math.isnan(times[method]) for method in candidates)
    cheapest = [method for method in candidates if known and times[method] <= least * (1 + SPEED_MARGIN)]

    def ordered(methods: Sequence[str]) -> tuple[str, ...]:
        return tuple(sorted(methods, key=lambda method: -means[method]))

    return MethodChoice(
        group=group,
        methods=ordered(complete),
        candidates=ordered(candidates),
        cheapest=ordered(cheapest),
        front=tuple(complete[timed[i]] for i in front),
        tested=bool(top1) and min(map(len, top1)) >= MIN_TEST_SEEDS,
    )


def _by_seed(columns: Sequence[Mapping[int, float]]) -> np.ndarray:
    """The top-1 of complete methods, shape (seeds, methods)."""
    return np.array([[column[seed] for column in columns] for seed in sorted(columns[0])])
