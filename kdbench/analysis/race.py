"""A race: methods that are shown worse than the best are dropped after a round, the rest goes on (as in F-race).

A round is one seed on every pair. After it the leader, the method with the best mean, is held against each of the
others on all rounds so far. A method is dropped when the one-sided t-test of the paired differences, with the noise
within pairs (`stats.stratified`; over pairs while there is one round), gives

    p * (methods left - 1) * (rounds planned) < 0.05.

By the union bound the probability that the truly best method is dropped anywhere in the race is at most 5 %, whichever
method leads: it can be dropped by one of the others only, in one of the rounds only, and each of these tests is wrong
with a probability of at most 0.05 / (others * rounds). F-race (Birattari et al. 2002) and irace (Lopez-Ibanez et al.
2016) test at 5 % after each round; over many rounds they drop the best more often than that.

Percent of 2,000 simulated races with normal noise in which the best method is dropped (tests/analysis/test_race.py
repeats fewer of them); all methods are equal but the first, which is .01 standard deviations better:

=======================  ====  =====
methods                     5     30
=======================  ====  =====
1 pair, 10 rounds         1.8    0.9
6 pairs, 10 rounds        2.1    1.4
=======================  ====  =====
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from kdbench.analysis.stats import ALPHA, welch

LEAST = 3
"""Blocks (a pair and a seed) from which on a method may be dropped."""

Accuracies = Mapping[str, NDArray[np.float64]]
"""Top-1 by method, each of shape (pairs, rounds); NaN where a cell is not done."""


def shown_worse(accuracies: Accuracies, rounds: int) -> list[str]:
    """The methods that are shown worse than the best after a round, on the blocks that both have.

    Args:
        accuracies: of the methods that are still in the race.
        rounds: that are planned.
    """
    means = {method: float(np.nanmean(top1)) for method, top1 in accuracies.items() if not np.isnan(top1).all()}
    if len(means) < 2:
        return []
    leader = max(means, key=means.__getitem__)
    tests = (len(means) - 1) * rounds
    return [
        method for method in means if method != leader and _p(accuracies[leader] - accuracies[method]) * tests < ALPHA
    ]


def _p(differences: NDArray[np.float64]) -> float:
    """One-sided p-value of "the mean difference is not positive"; 1 where nothing can be said.

    Args:
        differences: (pairs, rounds), NaN where one of the two is not done.
    """
    pairs = [row[~np.isnan(row)] for row in differences]
    pairs = [row for row in pairs if len(row)]
    if sum(map(len, pairs)) < LEAST:
        return 1.0
    groups: Sequence[NDArray[np.float64]] = pairs if min(map(len, pairs)) > 1 else [np.concatenate(pairs)]
    mean, error, freedom = welch(groups)
    return float(stdtr(freedom, -mean / error)) if error > 0 else 1.0
