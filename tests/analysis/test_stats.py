"""The formulas against scipy or against numbers worked out by hand."""

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from kdbench.analysis import stats


def test_paired_t_is_the_t_interval_and_test_of_scipy():
    first, second = np.array([61.2, 60.4, 62.0, 61.1]), np.array([60.1, 60.2, 60.9, 60.8])
    expected = scipy_stats.ttest_rel(first, second)
    interval = stats.paired_t(first - second)
    low, high = expected.confidence_interval(0.95)
    assert (interval.low, interval.high) == pytest.approx((low, high))
    assert interval.value == pytest.approx(np.mean(first - second))
    assert stats.stratified_p([first - second]) == pytest.approx(expected.pvalue)


def test_two_groups_have_the_width_and_test_of_welch():
    """The mean of group means of (a, -b) is half of mean(a) - mean(b), whose interval is Welch's."""
    a, b = np.array([1.0, 2.5, 3.0, 2.2]), np.array([0.3, 0.1, -1.0])
    expected = scipy_stats.ttest_ind(a, b, equal_var=False)
    low, high = expected.confidence_interval(0.95)
    interval = stats.stratified([a, -b])
    assert (2 * interval.low, 2 * interval.high) == pytest.approx((low, high))
    assert stats.stratified_p([a, -b]) == pytest.approx(expected.pvalue)


def test_too_few_values_give_no_ends_and_no_test():
    one = stats.paired_t([1.5])
    assert one.value == 1.5
    assert math.isnan(one.low)
    assert math.isnan(stats.paired_t([]).value)
    assert math.isnan(stats.stratified([[1.0, 2.0], []]).value)
    assert math.isnan(stats.stratified_p([[1.0, 2.0]])), "a mark needs three seeds"
    assert not math.isnan(stats.stratified_p([[1.0, 2.0, 1.5]]))


def test_no_spread_has_a_zero_interval_and_no_test():
    equal = [62.3 - 62.1, 60.3 - 60.1, 0.3 - 0.1]
    assert len(set(equal)) > 1, "equal but for rounding"
    interval = stats.paired_t(equal)
    assert interval.low == interval.high == interval.value
    assert math.isnan(stats.stratified_p([equal]))


def test_holm_by_hand_with_a_test_not_made():
    adjusted = stats.holm([0.01, math.nan, 0.04, 0.03, 0.005])
    assert adjusted == pytest.approx([0.03, math.nan, 0.06, 0.06, 0.02], nan_ok=True)
    assert stats.holm([0.8, 0.9]).max() == 1.0
    assert len(stats.holm([])) == 0


def test_improvement_is_mann_whitney_averaged_over_pairs():
    first, second = [[1.0, 2.0, 3.0], [5.0, 5.0]], [[0.0, 2.0, 4.0], [5.0, 4.0]]
    counts = [
        scipy_stats.mannwhitneyu(mine, theirs).statistic / (len(mine) * len(theirs))
        for mine, theirs in zip(first, second, strict=True)
    ]
    assert stats.improvement(first, second) == pytest.approx(np.mean(counts))
    assert math.isnan(stats.improvement([], []))


def test_ranks_share_ties():
    assert stats.ranks(np.array([[60.0, 62.0, 61.0], [5.0, 5.0, 1.0]])).tolist() == [[3, 1, 2], [1.5, 1.5, 3]]


def test_median_interval_of_thirty_is_the_10th_and_21st():
    interval = stats.median_interval(np.arange(30, 0, -1.0))
    assert (interval.value, interval.low, interval.high) == (15.5, 10, 21)
    assert math.isnan(stats.median_interval(np.arange(5.0)).low)
    assert stats.median_interval(np.arange(6.0)).low == 0
    assert stats.median_interval([]) == stats.UNKNOWN


@pytest.mark.parametrize("n", [6, 9, 10, 17, 30, 31])
def test_median_interval_covers_with_at_least_95_percent_and_no_narrower_one_does(n: int):
    interval = stats.median_interval(np.arange(1.0, n + 1))
    k = int(interval.low)
    assert interval.high == n + 1 - k
    assert 1 - 2 * scipy_stats.binom.cdf(k - 1, n, 0.5) >= 0.95
    assert 1 - 2 * scipy_stats.binom.cdf(k, n, 0.5) < 0.95


def test_geometric_mean():
    assert stats.geometric_mean([0.5, 2.0, 1.0]) == pytest.approx(1.0)
    assert math.isnan(stats.geometric_mean([]))


def test_pareto_front_keeps_ties_and_drops_what_is_beaten():
    speeds = [1.0, 0.8, 0.5, 0.8, 0.4, math.nan]
    gains = [0.0, 1.0, 2.0, 1.0, 1.5, 9.0]
    assert stats.pareto_front(speeds, gains).tolist() == [True, True, True, True, False, False]
