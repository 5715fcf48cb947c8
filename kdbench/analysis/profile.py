"""Performance profiles: how often a method is within so many points of the best one (after Dolan and More 2002).

A run is one (pair, seed). Where Dolan and More take the ratio to the best, the difference is taken here, as a point of
top-1 means the same everywhere. The best is that of the methods shown, so taking one away may lift the others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdbench.analysis.gains import PairGain
from kdbench.results.study import Group


@dataclass(frozen=True)
class Profile:
    """The methods of a group that are complete on all its pairs, by mean distance from the best, nearest first.

    Attributes:
        distances: points of top-1 below the best of each run, shape (runs, methods), at least 0.
    """

    group: Group
    methods: tuple[str, ...]
    distances: NDArray[np.float64]

    def share(self, method: int, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of the runs, the share in which the method is no more than `points` below the best; shape of `points`."""
        ordered = np.sort(self.distances[:, method])
        return np.searchsorted(ordered, points, side="right") / len(ordered)


def profiles(gains: Mapping[tuple[str, str], PairGain], groups: Mapping[Group, Sequence[str]]) -> list[Profile]:
    """The profile of every group in which at least two methods are complete, the control among them."""
    curves = []
    for group, pairs in groups.items():
        methods = [method for pair, method in gains if pair == pairs[0]]
        rows = {method: [gains[pair, method] for pair in pairs] for method in methods}
        complete = [method for method in methods if all(0 < row.planned == row.n for row in rows[method])]
        if len(complete) < 2:
            continue
        # Gains are over the same control in a run, so that their distances are those of top-1.
        by_run = np.array([[gain for row in rows[method] for _, gain in row.seed_gains] for method in complete]).T
        distances = by_run.max(axis=1, keepdims=True) - by_run
        order = np.argsort(distances.mean(axis=0), kind="stable")
        curves.append(Profile(group, tuple(complete[i] for i in order), distances[:, order]))
    return curves
