"""Gains against scipy on the raw records, and what happens to incomplete sets."""

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats as scipy_stats

from kdbench.analysis.gains import GroupGain, PairGain, group_gains, pair_gains
from kdbench.results.folder import Results
from kdbench.results.study import load_study
from tests.support.synthetic import PAIRS, Plan, write_results


def accuracies(results: Results) -> dict[tuple[str, str], np.ndarray]:
    """Top-1 by pair and method, in the order of the seeds."""
    found: dict[tuple[str, str], dict[int, float]] = {}
    for record in results.cells():
        if record["status"] == "done":
            found.setdefault((record["pair"], record["method"]), {})[record["seed"]] = record.get("top1", math.nan)
    return {place: np.array([value for _, value in sorted(by_seed.items())]) for place, by_seed in found.items()}


def pair_row(rows: list[PairGain], pair: str, method: str) -> PairGain:
    return next(row for row in rows if (row.pair, row.method) == (pair, method))


def group_row(rows: list[GroupGain], method: str) -> GroupGain:
    return next(row for row in rows if row.method == method)


def test_gain_interval_and_tests_agree_with_scipy(tmp_path: Path):
    results = write_results(tmp_path, Plan(seeds=5))
    top1 = accuracies(results)
    rows = pair_gains(load_study(results))
    raw = []
    for method in ("kd", "fitnet", "ofa", "assistant"):
        row = pair_row(rows, PAIRS[0], method)
        test = scipy_stats.ttest_rel(top1[PAIRS[0], method], top1[PAIRS[0], "scratch"])
        interval = test.confidence_interval(0.95)
        raw.append(test.pvalue)
        assert (row.gain.low, row.gain.high) == pytest.approx((interval.low, interval.high))
        assert row.top1 == pytest.approx(top1[PAIRS[0], method].mean())
        assert row.top1_std == pytest.approx(top1[PAIRS[0], method].std(ddof=1))
        assert row.n == row.planned == 5
    adjusted = [pair_row(rows, PAIRS[0], m).p_control for m in ("kd", "fitnet", "ofa", "assistant")]
    order = np.argsort(raw)
    assert adjusted[order[0]] == pytest.approx(min(1, 4 * raw[order[0]]))
    assert adjusted[order[1]] == pytest.approx(min(1, max(4 * raw[order[0]], 3 * raw[order[1]])))


def test_the_baseline_is_its_own_family(tmp_path: Path):
    results = write_results(tmp_path, Plan(methods=["scratch", "kd", "fitnet"]))
    top1 = accuracies(results)
    row = pair_row(pair_gains(load_study(results)), PAIRS[0], "fitnet")
    assert row.p_baseline == pytest.approx(scipy_stats.ttest_rel(top1[PAIRS[0], "fitnet"], top1[PAIRS[0], "kd"]).pvalue)
    baseline = pair_row(pair_gains(load_study(results)), PAIRS[0], "kd")
    assert math.isnan(baseline.p_baseline)
    assert math.isnan(baseline.gain_baseline.value)


def test_the_control_has_no_gain_and_no_test(tmp_path: Path):
    row = pair_row(pair_gains(load_study(write_results(tmp_path, Plan()))), PAIRS[0], "scratch")
    assert row.gain.value == 0
    assert math.isnan(row.p_control)


def test_two_seeds_give_an_interval_but_no_test(tmp_path: Path):
    row = pair_row(pair_gains(load_study(write_results(tmp_path, Plan(seeds=2)))), PAIRS[0], "kd")
    assert row.gain.low < row.gain.value < row.gain.high
    assert math.isnan(row.p_control)


def test_means_over_pairs_by_hand(tmp_path: Path):
    results = write_results(tmp_path, Plan())
    top1 = accuracies(results)
    rows = group_gains(load_study(results))
    gains = np.array([top1[pair, "fitnet"] - top1[pair, "scratch"] for pair in PAIRS[:3]])
    parts = gains.var(axis=1, ddof=1) / 3
    freedom = parts.sum() ** 2 / (parts**2 / 2).sum()
    half = scipy_stats.t.ppf(0.975, freedom) * math.sqrt(parts.sum()) / 3
    row = group_row(rows, "fitnet")
    assert row.gain.value == pytest.approx(gains.mean())
    assert row.gain.high - row.gain.value == pytest.approx(half)
    stacked = np.array([[top1[pair, m] for m in Plan().methods] for pair in PAIRS[:3]])
    by_rank = scipy_stats.rankdata(-stacked, axis=1).mean(axis=(0, 2))
    assert [group_row(rows, m).rank.value for m in Plan().methods] == pytest.approx(by_rank)
    assert all(1 <= row.rank.low <= row.rank.high <= 5 for row in rows)
    wins = [np.mean(np.greater.outer(top1[pair, "fitnet"], top1[pair, "kd"])) for pair in PAIRS[:3]]
    assert row.improvement.value == pytest.approx(np.mean(wins))


def test_an_incomplete_set_has_no_average(tmp_path: Path):
    plan = Plan(missing=[(PAIRS[0], "ofa", 1)], broken={(PAIRS[0], "fitnet", 2): ("oom", "out of memory")})
    study = load_study(write_results(tmp_path, plan))
    rows, over = pair_gains(study), group_gains(study)
    for method in ("ofa", "fitnet"):
        row = pair_row(rows, PAIRS[0], method)
        assert (row.state, row.n, row.planned) == ("incomplete", 2, 3)
        assert math.isnan(row.top1)
        assert math.isnan(row.gain.value)
        assert len(row.seed_gains) == 2
        assert pair_row(rows, PAIRS[1], method).state == "complete"
        mean = group_row(over, method)
        assert (mean.n, mean.planned) == (8, 9)
        assert math.isnan(mean.gain.value)
        assert math.isnan(mean.rank.value)
    assert max(row.rank.value for row in over if not math.isnan(row.rank.value)) <= 3


def test_a_missing_control_leaves_accuracies_without_gains(tmp_path: Path):
    study = load_study(write_results(tmp_path, Plan(missing=[(PAIRS[0], "scratch", 0)])))
    row = pair_row(pair_gains(study), PAIRS[0], "kd")
    assert row.state == "complete"
    assert not math.isnan(row.top1)
    assert (row.n, row.planned) == (2, 3)
    assert math.isnan(row.gain.value)
    assert all(math.isnan(row.gain.value) and row.state == "incomplete" for row in group_gains(study))


def test_unsupported_on_one_pair_or_on_all(tmp_path: Path):
    everywhere = {(pair, "ofa", seed): ("unsupported", "no") for pair in PAIRS[:3] for seed in range(3)}
    somewhere = {(PAIRS[0], "fitnet", seed): ("unsupported", "no") for seed in range(3)}
    study = load_study(write_results(tmp_path, Plan(broken=everywhere | somewhere)))
    assert pair_row(pair_gains(study), PAIRS[0], "fitnet").state == "unsupported"
    over = group_gains(study)
    assert [group_row(over, m).state for m in ("ofa", "fitnet", "kd")] == ["unsupported", "incomplete", "complete"]


def test_kinds_of_pairs_are_apart(tmp_path: Path):
    rows = group_gains(load_study(write_results(tmp_path, Plan(pairs=[PAIRS[0], PAIRS[6], PAIRS[7]]))))
    assert {(row.group, row.pairs) for row in rows} == {("heterogeneous", 1), ("homogeneous", 2)}
