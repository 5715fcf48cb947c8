"""The formulas behind every interval, test and rank of a report; numbers in, numbers out.

Coverage in percent of the 95 % intervals in 20,000 simulated studies of 6 pairs with normal noise (2,000 for
the bootstrap; "unequal" has one standard deviation a pair, from .1 to .8; tests/analysis/test_coverage.py
repeats it):

====================================  =====  =====  =====
seeds a pair                            3      5      10
====================================  =====  =====  =====
`paired_t`, one pair                  95.0   95.0   95.0   (exact for normal noise)
`stratified`, equal noise             96.4   95.5   95.3
`stratified`, unequal noise           95.2   94.8   95.1
stratified percentile bootstrap, eq.  85.1   90.9   92.3
stratified percentile bootstrap, un.  82.3   87.8   91.8
====================================  =====  =====  =====

The bootstrap, usual for means over tasks, resamples three seeds as if they were the population and is too
narrow, so it is not offered. The intervals that no t-distribution gives, in the same simulations:

====================================  =====  =====  =====
seeds a pair (blocks for the median)    3      5      10
====================================  =====  =====  =====
`improvement`, 6 pairs, own seeds     95.4    95.0    95.0
`improvement`, 6 pairs, shared seeds  96.1    96.5    96.3   (half of the variance is common to both methods)
the same, pairs of unequal effect     97.9    97.2    97.1   (conservative: few seeds show too little of it)
mean rank of 5 methods, 6 pairs       95.5    94.6    94.9
`median_interval`                       -      -    94.9   (no distribution-free interval below 6 values)
====================================  =====  =====  =====
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import bdtr, chdtri, ndtr, ndtri, stdtr, stdtrit

LEVEL = 0.95
"""Confidence level of every interval."""
ALPHA = 0.05
"""Significance level of every test, after correction."""
POWER = 0.8
"""Share of studies in which an effect that is called detectable is found."""
MIN_TEST_SEEDS = 3
"""A significance test on fewer seeds is not made: its result would be NaN."""

Values = Sequence[float] | NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """An estimate with the ends of its 95 % interval; the ends are NaN where no interval can be computed."""

    value: float
    low: float
    high: float


UNKNOWN = Interval(math.nan, math.nan, math.nan)


def paired_t(differences: Values) -> Interval:
    """Mean of paired differences with its t-interval; no ends for fewer than 2 values, `UNKNOWN` for none."""
    return stratified([differences])


def stratified(groups: Sequence[Values], level: float = LEVEL) -> Interval:
    """Equal-weight mean of the means of `groups`, with a t-interval for the noise within the groups.

    The variance of the mean of P groups is the sum of s_p^2 / n_p over P^2; its degrees of freedom are those
    of Welch (1947) and Satterthwaite (1946), so groups may differ in noise and size. With one group this is
    the usual t-interval. It speaks of these groups (pairs of models), not of others one might have chosen.

    Args:
        groups: the values of each group; the ends are NaN when a group has fewer than 2, all is NaN for an
            empty one.
        level: confidence level, below 1.
    """
    mean, error, freedom = welch(groups)
    half = float(stdtrit(freedom, (1 + level) / 2)) * error if error > 0 else error
    return Interval(mean, mean - half, mean + half)


def stratified_p(groups: Sequence[Values]) -> float:
    """Two-sided p-value of "the mean over `groups` is zero", by the t-test that goes with `stratified`.

    With one group it is the paired t-test. NaN with fewer than 3 values in a group, and where there is no
    spread at all: equal values tell nothing about the noise (accuracies on a small test split are coarse).
    """
    if not groups or min(len(group) for group in groups) < MIN_TEST_SEEDS:
        return math.nan
    mean, error, freedom = welch(groups)
    return float(2 * stdtr(freedom, -abs(mean) / error)) if error > 0 else math.nan


def welch(groups: Sequence[Values]) -> tuple[float, float, float]:
    """Mean over `groups`, its standard error and the degrees of freedom of that."""
    if not groups or min(len(group) for group in groups) == 0:
        return math.nan, math.nan, math.nan
    arrays = [np.asarray(group, dtype=np.float64) for group in groups]
    mean = float(np.mean([array.mean() for array in arrays]))
    if min(len(array) for array in arrays) < 2:
        return mean, math.nan, math.nan
    parts = np.array([array.var(ddof=1) / len(array) for array in arrays])
    total = float(parts.sum())
    if total <= _rounding(arrays):
        return mean, 0.0, math.nan
    sizes = np.array([len(array) for array in arrays])
    freedom = total**2 / float((parts**2 / (sizes - 1)).sum())
    return mean, math.sqrt(total) / len(arrays), freedom


def _rounding(arrays: Sequence[NDArray[np.float64]]) -> float:
    """The variance that rounding alone gives to equal differences of percentages (0.3 - 0.1 is not 0.2)."""
    return len(arrays) * (1e-12 * max(100.0, *(float(np.abs(array).max()) for array in arrays))) ** 2


def luck(images: int, share: float) -> float:
    """Share of hits that one guesser in a thousand exceeds: the 99.9 % point of a binomial distribution.

    Args:
        images: that are answered.
        share: of hits that a guesser expects, in [0, 1].
    """
    hits = np.arange(images + 1)
    return float(hits[np.searchsorted(bdtr(hits, images, share), 0.999)]) / images


def holm(p_values: Values) -> NDArray[np.float64]:
    """Holm's (1979) step-down adjustment of a family of p-values; a NaN is no test and stays NaN."""
    p = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(len(p), np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1.0)
    return adjusted


def holm_levels(p_values: Values) -> NDArray[np.float64]:
    """The confidence level at which Holm's procedure decides each test of a family; a NaN is no test and stays NaN.

    Holm multiplies a p-value by a factor between its step's and the number of tests. The interval of that test at the
    level 1 - ALPHA / factor excludes zero exactly where the adjusted p-value is below ALPHA, so that a picture of these
    intervals and the verdicts agree. The levels are chosen by the data: they say what each test was held against, and
    make no joint statement about all intervals.
    """
    p = np.asarray(p_values, dtype=np.float64)
    levels = np.full(len(p), np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    steps = np.arange(len(order), 0, -1)
    with np.errstate(invalid="ignore", divide="ignore"):
        factors = np.maximum.accumulate(p[order] * steps) / p[order]
    levels[order] = 1 - ALPHA / np.where(p[order] > 0, factors, steps)
    return levels


def maybe_best(top1: Sequence[NDArray[np.float64]]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which contenders are shown better than which, and which may be the best: not shown worse than any other.

    Each is tested against each by the one-sided t-test that goes with `stratified`, at ALPHA over the number of
    rivals. The truly best one is left out only if one of the tests of it against its rivals errs, so that it is among
    those that may be the best in 95 % of studies at least, whichever it is (a set as of Gupta 1965). The set says
    nothing about the contenders in it: with few seeds nearly all may be the best.

    Args:
        top1: of each group (pair of models) the accuracies, shape (seeds, contenders), a row the same seed for all.

    Returns:
        shown better, shape (contenders, contenders), row better than column; may be best, shape (contenders,). With
        fewer than 3 seeds nothing is tested, so all may be the best.
    """
    count = top1[0].shape[1] if top1 else 0
    better = np.zeros((count, count), dtype=bool)
    if count < 2 or min(len(group) for group in top1) < MIN_TEST_SEEDS:
        return better, np.ones(count, dtype=bool)
    differences = [group[:, :, None] - group[:, None, :] for group in top1]
    parts = np.array([own.var(axis=0, ddof=1) / len(own) for own in differences])
    total = parts.sum(axis=0)
    spread = total > _rounding(top1)
    sizes = np.array([len(group) for group in top1])[:, None, None]
    mean = np.mean([own.mean(axis=0) for own in differences], axis=0)
    freedom = total[spread] ** 2 / (parts**2 / (sizes - 1)).sum(axis=0)[spread]
    error = np.sqrt(total[spread]) / len(top1)
    better[spread] = stdtr(freedom, -mean[spread] / error) < ALPHA / (count - 1)
    return better, np.logical_not(better.any(axis=0))


def power(effect: float, sigma: float, seeds: int, pairs: int = 1, tests: int = 1) -> float:
    """Probability that the test of `stratified_p` finds a true mean gain, the tail of a non-central t-distribution.

    Args:
        effect: the true mean gain over the pairs.
        sigma: standard deviation of a paired gain over the seeds, equal on all pairs; same unit, above 0.
        seeds: on each pair; fewer than 3 give 0, because no test is made.
        pairs: over which the mean is taken.
        tests: of the family that Holm corrects. The smallest p-value of a family meets ALPHA / tests, the others less:
            the value is a lower bound where other effects are found, too.
    """
    if seeds < MIN_TEST_SEEDS:
        return 0.0
    of_pair = seeds - 1
    freedom = pairs * of_pair
    # The test estimates its degrees of freedom from the variances of the pairs; this is what they come to on average.
    estimated = of_pair * (freedom + 2) / (of_pair + 2)
    shift = abs(effect) * math.sqrt(pairs * seeds) / sigma
    bound = float(stdtrit(estimated, 1 - ALPHA / tests / 2))
    # Over the quantiles of the estimated standard deviation, because scipy's own function is NaN for large shifts.
    error = bound * np.sqrt(chdtri(freedom, (np.arange(_QUANTILES) + 0.5) / _QUANTILES) / freedom)
    return float(np.mean(ndtr(shift - error) + ndtr(-shift - error)))


_QUANTILES = 2000


def detectable_gain(sigma: float, seeds: int, pairs: int = 1, tests: int = 1) -> float:
    """The smallest true mean gain that `power` finds with probability POWER; NaN where no test is made."""
    if seeds < MIN_TEST_SEEDS or not sigma > 0:
        return math.nan
    unit = sigma / math.sqrt(pairs * seeds)
    return unit * root(lambda shift: power(shift * unit, sigma, seeds, pairs, tests) - POWER, 0, 1e4)


def root(function: Callable[[float], float], low: float, high: float) -> float:
    """Where `function`, whose sign differs at the two ends, is zero, to 1e-9."""
    # SciPy's own take a fifth of a second to import, for every report.
    rising = function(low) <= 0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if (function(middle) <= 0) == rising else (low, middle)
    return (low + high) / 2


def improvement(values: Sequence[Values], others: Sequence[Values]) -> Interval:
    """Probability that a run of one method beats a run of another, mean over groups (pairs), ties count half.

    Every value of a group is held against each of the others of that group, as in Agarwal et al. (2021), "Deep
    Reinforcement Learning at the Edge of the Statistical Precipice". Their bootstrap has no width where one method
    always won, so the interval is the score interval of Newcombe (2006), method 5, which solves
    (estimate - p)^2 = z^2 V(p) and keeps a width at 0 and 1. V holds for groups of equal p and independent runs; both
    pairs that differ and runs that share seeds make the mean less variable. The share of V that the placements of
    DeLong et al. (1988) show is taken into account as far as the number of runs supports it, and never above 1.

    Args:
        values: per group, the accuracies of the method, one a seed.
        others: per group, those of what it is compared with, in the same order of seeds; as many groups.
    """
    if not values or min(len(group) for group in [*values, *others]) == 0:
        return UNKNOWN
    placements = [
        _placements(np.asarray(mine), np.asarray(theirs)) for mine, theirs in zip(values, others, strict=True)
    ]
    mean = float(np.mean([of_group.mean() for of_group in placements]))
    sizes = [len(of_group) for of_group in placements]
    if min(sizes) < 2:
        return Interval(mean, math.nan, math.nan)
    count = len(placements)
    freedom = sum(sizes) - count
    model = _win_variance(mean, sizes)
    observed = sum(float(of_group.var(ddof=1)) / len(of_group) for of_group in placements) / count**2
    ratio = min(1.0, observed / model) if model > 0 else 1.0
    share = (freedom * ratio + _PRIOR_FREEDOM) / (freedom + _PRIOR_FREEDOM)
    scale = share * float(ndtri((1 + LEVEL) / 2)) ** 2

    def excess(probability: float) -> float:
        return (probability - mean) ** 2 - scale * _win_variance(probability, sizes)

    # At 0 and 1 the equation holds with no variance at all, too; the end that is wanted lies on the other side.
    near = 1e-9
    low = root(excess, 0.0, mean - near) if mean > 0 else 0.0
    high = root(excess, mean + near, 1.0) if mean < 1 else 1.0
    return Interval(mean, low, high)


_PRIOR_FREEDOM = 5
"""With how many degrees of freedom the model's variance of a win counts beside the observed one."""


def _placements(mine: NDArray[np.float64], theirs: NDArray[np.float64]) -> NDArray[np.float64]:
    """By seed, the share of comparisons won by that seed's two runs; shape (n,), its mean is the share of all."""
    difference = np.subtract.outer(mine, theirs)
    wins = (difference > 0) + 0.5 * (difference == 0)
    return wins.mean(axis=1) + wins.mean(axis=0) - wins.mean()


def _win_variance(probability: float, sizes: Sequence[int]) -> float:
    """Variance of the mean over groups of the share of n x n comparisons won (Newcombe 2006, method 5)."""
    p = probability
    shape = (1 - p) / (2 - p) + p / (1 + p)
    return p * (1 - p) * sum((1 + (n - 1) * shape) / n**2 for n in sizes) / len(sizes) ** 2


def ranks(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks in each row, 1 for the highest score, equal scores share their mean rank."""
    return pd.DataFrame(scores).rank(axis=1, ascending=False).to_numpy()


def median_interval(values: Values) -> Interval:
    """Median with its interval between order statistics, interpolated to 95 % (Hettmansperger and Sheather 1986).

    No distribution is assumed but that values are independent and have one; between the two neighbouring pairs of
    order statistics, whose coverage is binomial, coverage is nearly that of the level for any smooth one. The ends are
    NaN for fewer than 6 values, whose whole range holds the median in less than 95 % (93.75 % for 5).
    """
    n = len(values)
    if n == 0:
        return UNKNOWN
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    median = float(np.median(ordered))
    k, weight = _median_ranks(n)
    if k < 1:
        return Interval(median, math.nan, math.nan)
    low = (1 - weight) * ordered[k - 1] + weight * ordered[k]
    high = (1 - weight) * ordered[n - k] + weight * ordered[n - k - 1]
    return Interval(median, float(low), float(high))


@cache
def _median_ranks(n: int) -> tuple[int, float]:
    """The rank k that still holds the level, 0 for none, and how much of the way to the next is gone inwards."""
    # [x_(k), x_(n+1-k)] misses the median with probability 2 P(Bin(n, 1/2) < k).
    below = bdtr(np.arange(n), n, 0.5)
    k = int(np.searchsorted(below, (1 - LEVEL) / 2))
    if k == 0:
        return 0, 0.0
    outer, inner = 1 - 2 * float(below[k - 1]), 1 - 2 * float(below[k])
    part = (outer - LEVEL) / (outer - inner)
    return k, (n - k) * part / (k + (n - 2 * k) * part)


def geometric_mean(ratios: Values) -> float:
    """Geometric mean of positive ratios: the mean of a ratio and of its inverse are then inverse too."""
    return float(np.exp(np.mean(np.log(ratios)))) if len(ratios) else math.nan


def steps_up(costs: Values, better: NDArray[np.bool_], margin: float) -> list[int]:
    """The Pareto front as far as it is more than noise: from the cheapest point on, each step is a gain that was shown.

    Args:
        costs: of each point, less is better, above 0; shape (n,).
        better: which point is shown better than which, as `maybe_best` tells; shape (n, n).
        margin: a point costs more than another where it does by more than this share.

    Returns:
        indices of the points, cheapest first. A point follows another where it is dearer and shown better; of those
        that do, the cheapest, and of equally cheap ones the first that no other of them is shown better than.
    """
    order = sorted(range(len(costs)), key=lambda i: (costs[i], i))
    front: list[int] = []
    while order:
        cheap = [i for i in order if costs[i] <= costs[order[0]] * (1 + margin)]
        front.append(next(i for i in cheap if not better[cheap, i].any()))
        last = front[-1]
        order = [i for i in order if costs[i] > costs[last] * (1 + margin) and better[i, last]]
    return front
