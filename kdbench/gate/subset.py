"""The part of a baseline that can be checked within some minutes."""

import heapq
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from kdbench.errors import KdbenchError
from kdbench.gate.baseline import Baseline
from kdbench.gate.decision import FIRST, MORE
from kdbench.results.study import PairMethod
from kdbench.study.run import TOGETHER

IDENTITY = 1
"""Seeds that level 0 trains."""
START_UP = 15.0
"""Seconds that the workers of a pass take to start."""
MEASURE = 3.0
"""Seconds that a throughput measurement of the proxy takes."""


@dataclass(frozen=True)
class Allowance:
    """Time for a check, and what can be done in it.

    Attributes:
        minutes: None for as long as it takes.
        workers: processes side by side.
        throughput: it is measured in the first pass.
    """

    baseline: Baseline
    minutes: float | None
    workers: int
    throughput: bool

    def comparable(self, pair_methods: Collection[PairMethod]) -> list[PairMethod]:
        """The cells that level 0 can compare in half of the time and level 1, if need be, judge in the other half.

        Raises:
            KdbenchError: the baseline does not tell how long its cells take, or there is no time for a single method.
        """
        if self.minutes is None:
            return list(pair_methods)
        half = 30 * self.minutes
        each = [pair_method for pair_method in pair_methods if self._fitting(half, [pair_method], (FIRST, MORE))]
        return self._some(self._fitting(half, each, (IDENTITY,), self.throughput))

    def judgeable(self, pair_methods: Collection[PairMethod]) -> list[PairMethod]:
        """The cells that level 1 can judge where there is no level 0.

        Raises:
            KdbenchError: as of `comparable`.
        """
        if self.minutes is None:
            return list(pair_methods)
        return self._some(self._fitting(60 * self.minutes, pair_methods, (FIRST, MORE), self.throughput))

    def left(self, compared: Collection[PairMethod], differing: Collection[PairMethod]) -> list[PairMethod]:
        """Those of the `differing` cells that level 1 can judge in what comparing has left of the time."""
        if self.minutes is None:
            return list(differing)
        spent = self._seconds(compared, (IDENTITY,), self.throughput)
        return self._fitting(60 * self.minutes - spent, differing, (FIRST, MORE))

    def _some(self, chosen: list[PairMethod]) -> list[PairMethod]:
        if all(method == self.baseline.control for _, method in chosen):
            raise KdbenchError(
                f"{self.minutes:g} minutes are too few to check any method with {self.workers} workers; give more"
            )
        return chosen

    def _fitting(
        self, seconds: float, pair_methods: Collection[PairMethod], passes: Sequence[int], throughput: bool = False
    ) -> list[PairMethod]:
        """Those of `pair_methods` that can be trained in time, with the controls that they need.

        Pairs are taken in the order of their noise, the quietest first: there the smallest drop is found. Of a pair the
        control comes first, then the other methods in the baseline's order as long as there is time.
        """
        baseline, chosen = self.baseline, list[PairMethod]()
        if any(baseline.by_pair_method[pair_method].seconds is None for pair_method in pair_methods):
            raise KdbenchError("the baseline does not tell how long its cells take; leave --minutes out")
        pairs = [pair for pair in baseline.pairs if any(pair == other for other, _ in pair_methods)]
        methods = sorted(baseline.roles, key=lambda method: method != baseline.control)
        for pair in sorted(pairs, key=lambda pair: _noise(baseline, pair)):
            for method in methods:
                more = [*chosen, (pair, method)]
                if more[-1] in pair_methods and self._seconds(more, passes, throughput) <= seconds:
                    chosen = more
        return chosen

    def _seconds(self, pair_methods: Collection[PairMethod], passes: Sequence[int], throughput: bool = False) -> float:
        """Time to train `pair_methods` and the controls of their pairs, on the baseline's machine.

        Args:
            passes: how many seeds each pass trains.
        """
        baseline, tasks = self.baseline, list[float]()
        needed = {*pair_methods, *((pair, baseline.control) for pair, _ in pair_methods)}
        for pair in baseline.pairs:
            cells = [cell.seconds or 0.0 for cell in baseline.cells if cell.pair == pair and cell.pair_method in needed]
            tasks += [sum(cells[start : start + TOGETHER]) for start in range(0, len(cells), TOGETHER)]
        trained = sum(_makespan(sorted(tasks) * seeds, self.workers) + START_UP for seeds in passes)
        return trained + MEASURE * len(needed) * throughput


def _makespan(tasks: Sequence[float], workers: int) -> float:
    """Time until all tasks are done where each worker takes the next one when it is free."""
    free = [0.0] * workers
    for task in tasks:
        heapq.heapreplace(free, free[0] + task)
    return max(free)


def _noise(baseline: Baseline, pair: str) -> float:
    """Root mean square of the standard deviations of top-1 on a pair."""
    squares = [_variance(cell.top1) for cell in baseline.cells if cell.pair == pair]
    return math.sqrt(sum(squares) / len(squares))


def _variance(values: Sequence[float]) -> float:
    mean = sum(values) / len(values)
    return sum((value - mean) ** 2 for value in values) / max(1, len(values) - 1)
