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
    interval = stats.improvement(first, second)
    assert interval.value == pytest.approx(np.mean(counts))
    assert 0 < interval.low < interval.value < interval.high < 1
    assert stats.improvement([], []) == stats.UNKNOWN


def test_improvement_keeps_a_width_where_one_method_always_won():
    always = stats.improvement([[3.0, 4.0, 5.0]] * 2, [[0.0, 1.0, 2.0]] * 2)
    assert always.value == always.high == 1
    assert 0.4 < always.low < 0.9
    never = stats.improvement([[0.0, 1.0, 2.0]] * 2, [[3.0, 4.0, 5.0]] * 2)
    assert (never.value, never.low) == (0, 0)
    assert never.high == pytest.approx(1 - always.low)
    assert always.low < stats.improvement([[3.0, 4.0, 5.0]] * 6, [[0.0, 1.0, 2.0]] * 6).low
    assert math.isnan(stats.improvement([[1.0]], [[0.0]]).low), "one run tells no spread"


def test_ranks_share_ties():
    assert stats.ranks(np.array([[60.0, 62.0, 61.0], [5.0, 5.0, 1.0]])).tolist() == [[3, 1, 2], [1.5, 1.5, 3]]


def test_median_interval_lies_between_neighbouring_order_statistics():
    """Of 30 values the 10th and 21st hold the median with 95.7 %, the 11th and 20th with 90.1 %."""
    interval = stats.median_interval(np.arange(30, 0, -1.0))
    assert interval.value == 15.5
    assert 10 < interval.low < 10.5
    assert interval.low + interval.high == pytest.approx(31)
    assert math.isnan(stats.median_interval(np.arange(5.0)).low)
    assert 0 < stats.median_interval(np.arange(6.0)).low < 0.5
    assert stats.median_interval([]) == stats.UNKNOWN


@pytest.mark.parametrize("n", [6, 9, 10, 17, 30, 31])
def test_median_interval_is_between_the_binomial_ones(n: int):
    k = int(stats.median_interval(np.arange(1.0, n + 1)).low)
    assert 1 - 2 * scipy_stats.binom.cdf(k - 1, n, 0.5) >= 0.95
    assert 1 - 2 * scipy_stats.binom.cdf(k, n, 0.5) < 0.95


@pytest.mark.parametrize(("effect", "sigma", "seeds", "tests"), [(0.5, 0.6, 5, 1), (0.9, 0.6, 3, 4), (0.6, 0.6, 20, 2)])
def test_power_on_one_pair_is_the_tail_of_the_noncentral_t(effect: float, sigma: float, seeds: int, tests: int):
    freedom, shift = seeds - 1, effect * math.sqrt(seeds) / sigma
    bound = scipy_stats.t.ppf(1 - 0.025 / tests, freedom)
    expected = scipy_stats.nct.sf(bound, freedom, shift) + scipy_stats.nct.cdf(-bound, freedom, shift)
    assert stats.power(effect, sigma, seeds, 1, tests) == pytest.approx(expected, abs=1e-4)


def test_power_from_nothing_to_certainty():
    assert stats.power(0, 0.5, 3) == pytest.approx(0.05, abs=1e-4)
    assert stats.power(-0.7, 0.5, 4) == stats.power(0.7, 0.5, 4)
    assert stats.power(100, 0.1, 3) == pytest.approx(1)
    assert stats.power(100, 0.1, 2) == 0, "no test is made on two seeds"


def test_detectable_is_found_with_the_power_it_says():
    gain = stats.detectable_gain(0.6, 3, 6, 4)
    assert stats.power(gain, 0.6, 3, 6, 4) == pytest.approx(stats.POWER, abs=1e-5)
    assert stats.detectable_gain(0.6, 10, 6, 4) < gain < stats.detectable_gain(0.6, 3, 6, 8)
    assert math.isnan(stats.detectable_gain(0.6, 2))
    assert math.isnan(stats.detectable_gain(math.nan, 3))


def test_geometric_mean():
    assert stats.geometric_mean([0.5, 2.0, 1.0]) == pytest.approx(1.0)
    assert math.isnan(stats.geometric_mean([]))
