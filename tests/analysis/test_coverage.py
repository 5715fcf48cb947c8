"""Do the intervals hold the truth as often as they say? Simulated with few seeds, where many do not."""

import numpy as np
import pytest
from scipy.special import ndtr
from scipy.stats import rankdata

from kdbench.analysis.stats import Interval, improvement, median_interval, paired_t, stratified

STUDIES = 4000
EQUAL = np.full(6, 0.3)
UNEQUAL = np.array([0.1, 0.2, 0.4, 0.2, 0.3, 0.8])


def coverage(intervals: list[Interval], truth: float = 0) -> float:
    """Fraction that hold the true value of the simulation."""
    return float(np.mean([interval.low <= truth <= interval.high for interval in intervals]))


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_paired_t_covers(seeds: int):
    gains = np.random.default_rng(seeds).normal(0, 0.3, (STUDIES, seeds))
    assert 0.93 <= coverage([paired_t(row) for row in gains]) <= 0.97


@pytest.mark.parametrize("noise", [EQUAL, UNEQUAL], ids=["equal", "unequal"])
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_stratified_t_covers(seeds: int, noise: np.ndarray):
    gains = np.random.default_rng(seeds).normal(0, noise[:, None], (STUDIES, 6, seeds))
    assert 0.93 <= coverage([stratified(list(study)) for study in gains]) <= 0.97


@pytest.mark.parametrize("effect", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_the_probability_of_improvement_is_covered(seeds: int, effect: float):
    """Independent runs; wins are counted, so that coverage comes in steps at three seeds."""
    first, second = np.random.default_rng(seeds).normal(size=(2, 1500, 6, seeds))
    intervals = [improvement(list(mine + effect), list(theirs)) for mine, theirs in zip(first, second, strict=True)]
    assert 0.93 <= coverage(intervals, ndtr(effect / np.sqrt(2))) <= 0.97


@pytest.mark.parametrize(
    "effects", [np.full(6, 1.0), np.array([-1.0, 0.0, 0.5, 1.0, 2.0, 3.0])], ids=["equal", "unequal"]
)
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_the_probability_of_improvement_of_runs_that_share_seeds_is_covered(seeds: int, effects: np.ndarray):
    """Half of the variance is common to both runs of a seed: few seeds show too little of that, so it covers more.

    96 to 98 % in 10,000 studies: conservative, above the band of the others where pairs differ, too.
    """
    shared, first, second = np.random.default_rng(seeds).normal(size=(3, STUDIES, 6, seeds)) * np.sqrt(0.5)
    pairs = zip(effects[:, None] + shared + first, shared + second, strict=True)
    covered = coverage(
        [improvement(list(mine), list(theirs)) for mine, theirs in pairs], ndtr(effects / np.sqrt(2)).mean()
    )
    assert 0.93 <= covered <= {3: 0.99, 5: 0.985, 10: 0.98}[seeds]


@pytest.mark.parametrize("gap", [0.0, 0.3, 0.6])
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_the_mean_rank_is_covered(seeds: int, gap: float):
    """Five methods, each `gap` standard deviations of a run below the next, on six pairs."""
    random = np.random.default_rng(seeds)
    levels = gap * np.arange(5)
    truth = rankdata(-(levels + random.normal(size=(100_000, 5))), axis=-1).mean(axis=0)
    placed = rankdata(-(levels + random.normal(size=(STUDIES, 6, seeds, 5))), axis=-1)
    for method in (0, 2):
        intervals = [stratified(list(study)) for study in placed[..., method]]
        assert 0.93 <= coverage(intervals, truth[method]) <= 0.97


@pytest.mark.parametrize("blocks", [6, 10, 12, 30])
@pytest.mark.parametrize("noise", ["normal", "lognormal", "laplace"])
def test_the_median_is_covered_whatever_the_noise(blocks: int, noise: str):
    values = getattr(np.random.default_rng(blocks), noise)(size=(STUDIES, blocks))
    assert 0.93 <= coverage([median_interval(row) for row in values], 1 if noise == "lognormal" else 0) <= 0.97


def test_the_percentile_bootstrap_does_not_cover_at_three_seeds():
    """Why it is not offered."""
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(500):
        study = random.normal(0, EQUAL[:, None], (6, 3))
        draws = random.integers(3, size=(300, 6, 3))
        means = np.take_along_axis(study[None], draws, axis=2).mean(axis=(1, 2))
        low, high = np.percentile(means, [2.5, 97.5])
        covered += low <= 0 <= high
    assert covered / 500 < 0.90
