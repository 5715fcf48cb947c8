"""Friedman and Nemenyi against scipy, Demsar's table and a case by hand."""

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats as scipy_stats

from kdbench.analysis.ranking import _cliques, critical_difference, friedman_p, rankings
from kdbench.analysis.stats import ranks
from kdbench.results.study import load_study
from tests.support.synthetic import PAIRS, Plan, write_results


@pytest.mark.parametrize(("methods", "q"), [(2, 1.960), (4, 2.569), (5, 2.728), (10, 3.164)])
def test_critical_differences_have_the_q_of_demsars_table_5(methods: int, q: float):
    assert critical_difference(methods, 14) == pytest.approx(q * math.sqrt(methods * (methods + 1) / 84), abs=2e-3)


@pytest.mark.parametrize("methods", [2, 3, 10, 40])
def test_critical_differences_have_the_q_of_scipy(methods: int):
    q = scipy_stats.studentized_range.ppf(0.95, methods, math.inf) / math.sqrt(2)
    assert critical_difference(methods, 14) == pytest.approx(q * math.sqrt(methods * (methods + 1) / 84), rel=1e-6)


def test_friedman_is_scipys_with_and_without_ties():
    random = np.random.default_rng(0)
    for scores in (random.normal(size=(12, 5)), random.integers(0, 4, (12, 5)).astype(float)):
        assert friedman_p(ranks(scores)) == pytest.approx(scipy_stats.friedmanchisquare(*scores.T).pvalue)
    assert math.isnan(friedman_p(ranks(np.ones((10, 3)))))


def test_cliques_are_the_largest_sets_of_neighbours():
    assert _cliques([1.0, 1.5, 2.6, 2.9, 4.5], 1.2) == [(0, 1), (1, 2), (2, 3)]
    assert _cliques([1.0, 1.5, 2.0, 3.5], 1.2) == [(0, 2)]
    assert _cliques([1.0, 3.0, 5.0], 1.2) == []


def test_a_ranking_of_the_complete_methods(tmp_path: Path):
    study = load_study(write_results(tmp_path, Plan(pairs=PAIRS, missing=[(PAIRS[0], "ofa", 1)])))
    hetero, homo = rankings(study)
    assert (hetero.pairs, homo.pairs) == (9, 3)
    assert set(hetero.methods) == {"scratch", "kd", "fitnet", "assistant"}
    means = study.cells.groupby(["pair", "method"])["top1"].mean().unstack()
    placed = means.loc[study.groups["heterogeneous"], list(hetero.methods)].rank(axis=1, ascending=False).mean()
    assert list(hetero.mean_ranks) == pytest.approx(placed.tolist())
    assert list(hetero.mean_ranks) == sorted(hetero.mean_ranks)
    assert not hetero.meaningful, "nine pairs are too few"
