"""The part of a baseline that can be checked within some minutes."""

import heapq
import math
from collections.abc import Collection, Sequence

from kdbench.analysis.gate.baseline import Baseline
from kdbench.analysis.gate.decision import FIRST, MORE
from kdbench.analysis.gate.evidence import Place
from kdbench.errors import KdbenchError

IDENTITY = 1
"""Seeds that level 0 trains."""
START_UP = 15.0
"""Seconds that the workers of a pass take to start."""
MEASURE = 3.0
"""Seconds that a throughput measurement of the proxy takes."""


def fitting(baseline: Baseline, minutes: float, workers: int, places: Collection[Place]) -> list[Place]:
    """The cells of `places` that can be checked in time even where all of them go through every level.

    Pairs are taken in the order of their noise, the quietest first: there the smallest drop is found. Of a pair the
    control comes first, since no gain can be told without it, then the other methods in the baseline's order as long as
    there is time.

    Raises:
        KdbenchError: the baseline does not tell how long its cells take, or there is no time for a single method.
    """
    if any(baseline.by_place[place].seconds is None for place in places):
        raise KdbenchError("the baseline does not tell how long its cells take; leave --minutes out")
    chosen: list[Place] = []
    pairs = [pair for pair in baseline.pairs if any(pair == other for other, _ in places)]
    methods = sorted(baseline.roles, key=lambda method: method != baseline.control)
    for pair in sorted(pairs, key=lambda pair: _noise(baseline, pair)):
        for method in methods:
            place = (pair, method)
            needed = {place, (pair, baseline.control)} - set(chosen)
            if place in places and place in needed and duration(baseline, [*chosen, *needed], workers) <= 60 * minutes:
                chosen.append(place)
    if all(method == baseline.control for _, method in chosen):
        raise KdbenchError(f"{minutes:g} minutes are too few to check any method with {workers} workers; give more")
    return chosen


def duration(baseline: Baseline, places: Sequence[Place], workers: int) -> float:
    """Seconds to check `places` where all of them go through every level, on the baseline's machine."""
    groups: dict[str, float] = {}
    for place in places:
        groups[place[0]] = groups.get(place[0], 0.0) + (baseline.by_place[place].seconds or 0.0)
    passes = [_makespan(sorted(groups.values()) * seeds, workers) + START_UP for seeds in (IDENTITY, FIRST, MORE)]
    return sum(passes) + MEASURE * len(places)


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
