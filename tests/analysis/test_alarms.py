"""How often a study flags a method: not when it is the baseline again, and as often as planned when it is better.

The noise is that of the proxy: half of a run's variance comes with the seed, 0.6 points are its own.
"""

from functools import cache

import numpy as np
import pytest

from kdbench.analysis.gains import group_gains, pair_gains, sensitivities
from kdbench.analysis.stats import ALPHA, power
from kdbench.results.study import Study

PAIRS = [f"t{i}:s{i}" for i in range(6)]
METHODS = ["scratch", "kd", "again", "and-again", "once-more"]
SEEDS, OWN = 3, 0.6
REPETITIONS = 400


def study(seed: int, planted: float = 0.0) -> Study:
    """All methods but the control are `kd` under other names; one is better than that by `planted` points."""
    random = np.random.default_rng(seed)
    records = {}
    for pair in PAIRS:
        level = random.uniform(50, 80)
        teacher, student = pair.split(":")
        ends = {"teacher": {"name": teacher, "top1": 90.0}, "student": {"name": student}}
        for run in range(SEEDS):
            shared = random.normal(0, OWN)
            for method in METHODS:
                gain = (method != "scratch") * 1.0 + (method == "again") * planted
                top1 = level + gain + shared + random.normal(0, OWN)
                records[pair, method, run] = ends | {"status": "done", "top1": top1, "best_top1": top1}
    roles = dict.fromkeys(METHODS, "method") | {"scratch": "control", "kd": "baseline"}
    manifest = {
        "suite": "none",
        "protocol": "none/1",
        "pairs": PAIRS,
        "hetero": PAIRS,
        "seeds": list(range(SEEDS)),
        "roles": roles,
        "cells": [{"key": "", "pair": pair, "method": method, "seed": run} for pair, method, run in records],
    }
    return Study(manifest, records, {}, {}, {}, METHODS)  # type: ignore[arg-type]


@cache
def flagged(planted: float) -> np.ndarray:
    """Which of the copies a study calls different from kd over all pairs; shape (repetitions, copies)."""
    studies = [group_gains(study(seed, planted)) for seed in range(REPETITIONS)]
    return np.array([[row.p_baseline < ALPHA for row in rows if row.role == "method"] for rows in studies])


def binomial_bound(rate: float, number: int) -> float:
    """What a share of `number` trials of that rate exceeds once in a thousand."""
    return rate + 3.1 * np.sqrt(rate * (1 - rate) / number)


def test_a_method_against_itself_is_flagged_no_more_often_than_the_level_says():
    assert flagged(0.0).any(axis=1).mean() <= binomial_bound(ALPHA, REPETITIONS)
    assert flagged(0.0)[:20].any(axis=1).sum() <= 4


def test_on_single_pairs_too():
    families = [
        any(row.p_baseline < ALPHA for row in rows if row.pair == pair)
        for rows in (pair_gains(study(seed)) for seed in range(100))
        for pair in PAIRS
    ]
    assert np.mean(families) <= binomial_bound(ALPHA, len(families))


@pytest.mark.parametrize("planted", [0.7, 1.0])
def test_a_planted_effect_is_found_as_often_as_the_power_says(planted: float):
    """Holm tests the smallest p-value at ALPHA / 3, and the planted one need not be the smallest to be found."""
    expected = power(planted, OWN * np.sqrt(2), SEEDS, len(PAIRS), tests=3)
    found = flagged(planted)[:, 0].mean()
    assert abs(found - expected) <= 3.1 * np.sqrt(expected * (1 - expected) / REPETITIONS) + 0.01
    assert flagged(planted)[:, 1:].any(axis=1).mean() <= binomial_bound(ALPHA, REPETITIONS), "Holm holds with an effect"


def test_the_smallest_detectable_gain_is_that_of_the_noise_in_the_records():
    row = sensitivities(study(0))[0]
    assert row.sigma == pytest.approx(OWN * np.sqrt(2), rel=0.25)
    assert (row.pairs, row.tests) == (6, 4)
    assert list(row.detectable) == [3, 5, 10, 20]
    assert row.detectable[3] > row.detectable[5] > row.detectable[20]
    assert power(row.detectable[3], row.sigma, 3, 6, 4) == pytest.approx(0.8, abs=1e-4)
