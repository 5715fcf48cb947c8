"""Verdicts and the intervals that are drawn for them never disagree, and the truly best method is rarely left out."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kdbench.analysis import stats
from kdbench.analysis.choice import choices
from kdbench.analysis.cost import group_costs, pair_costs
from kdbench.analysis.gains import finding, group_gains, pair_gains, standing
from kdbench.results.study import load_study
from tests.support.synthetic import PAIRS, Plan, many_methods, write_results


@st.composite
def families(draw: st.DrawFn) -> list[list[list[float]]]:
    """The differences of a random study: by method, pair and seed; whole tenths, so that ties and no spread occur."""
    pairs, seeds = draw(st.integers(1, 4)), draw(st.integers(2, 5))
    value = st.integers(-80, 80).map(lambda tenths: tenths / 10)
    row = st.lists(st.lists(value, min_size=seeds, max_size=seeds), min_size=pairs, max_size=pairs)
    level = st.integers(-30, 30)
    found = []
    for _ in range(draw(st.integers(1, 12))):
        shift = draw(level)
        found.append([[shift + value / draw(st.integers(1, 9)) for value in group] for group in draw(row)])
    return found


@given(families())
@settings(max_examples=300, deadline=None)
def test_a_difference_is_shown_where_and_only_where_its_interval_at_holms_level_excludes_zero(
    family: list[list[list[float]]],
) -> None:
    raw = [stats.stratified_p(groups) for groups in family]
    adjusted, levels = stats.holm(raw), stats.holm_levels(raw)
    # Where a p-value is the bound itself, rounding decides.
    assume(not any(abs(p - stats.ALPHA) < 1e-9 for p in adjusted))
    for groups, p, level in zip(family, adjusted, levels, strict=True):
        if math.isnan(p):
            assert math.isnan(level), "what is not tested has no such interval"
            continue
        usual, corrected = stats.stratified(groups), stats.stratified(groups, float(level))
        assert corrected.low <= usual.low <= usual.high <= corrected.high, "it is the wider one"
        assert (not corrected.low <= 0 <= corrected.high) == (p < stats.ALPHA)
        expected = "not shown" if p >= stats.ALPHA else "better" if usual.value > 0 else "worse"
        assert finding(corrected) == expected


def test_the_levels_lie_between_the_step_and_all_tests() -> None:
    raw = [0.01, math.nan, 0.04, 0.03, 0.005]
    factors = stats.ALPHA / (1 - stats.holm_levels(raw))
    assert factors == pytest.approx([3, math.nan, 1.5, 2, 4], nan_ok=True)
    assert stats.holm_levels([0.0, 1.0]) == pytest.approx([1 - stats.ALPHA / 2, 1 - stats.ALPHA])


@pytest.mark.parametrize("seed", range(4))
def test_rows_of_a_study_carry_the_intervals_of_their_tests(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    plan = Plan(methods=many_methods(9), seeds=4, epochs=2, random_seed=seed, throughput=False)
    study = load_study(write_results(tmp_path_factory.mktemp("study"), plan))
    for row in [*pair_gains(study), *group_gains(study)]:
        for p, gain, corrected in (
            (row.p_control, row.gain, row.gain_holm),
            (row.p_baseline, row.gain_baseline, row.gain_baseline_holm),
        ):
            shown = finding(corrected)
            assert (shown == "not tested") == math.isnan(p)
            assert (shown in ("better", "worse")) == (p < stats.ALPHA)
            if shown in ("better", "worse"):
                assert (shown == "better") == (gain.value > 0)
    found = {standing(row) for row in group_gains(study)}
    assert "control" in found and len(found) > 1


@pytest.mark.parametrize("seeds", [3, 5])
def test_the_best_method_is_among_those_that_may_be(seeds: int) -> None:
    """In 95 % of studies at least; without a true difference too, where the largest mean is of nobody in particular."""
    random = np.random.default_rng(seeds)
    effects = np.array([0.0, 0.0, -0.1, -0.3, -2.0, 0.0])
    kept, sizes, worst = [], [], []
    for _ in range(1500):
        noise = random.normal(0, 0.3, (4, seeds, len(effects))) + random.normal(0, 0.5, (4, seeds, 1))
        better, maybe = stats.maybe_best(list(noise + effects))
        kept.append(maybe[0])
        sizes.append(maybe.sum())
        worst.append(maybe[4])
        assert not (better & better.T).any()
        assert maybe[int(np.argmax((noise + effects).mean(axis=(0, 1))))], (
            "no one is shown better than the largest mean"
        )
    assert np.mean(kept) > 0.95
    assert np.mean(worst) < 0.05, "what is far worse is left out"
    assert 2 < np.mean(sizes) < 6


def test_without_tests_every_method_may_be_the_best(tmp_path_factory: pytest.TempPathFactory) -> None:
    study = load_study(write_results(tmp_path_factory.mktemp("two"), Plan(seeds=2, epochs=2)))
    (found,) = choices(study, group_costs(study, pair_costs(study)))
    assert not found.tested and set(found.candidates) == set(study.methods)
    missing = [(PAIRS[0], "scratch", 0)]
    study = load_study(write_results(tmp_path_factory.mktemp("gap"), Plan(epochs=2, missing=missing)))
    (found,) = choices(study, group_costs(study, pair_costs(study)))
    assert found.methods == found.candidates == found.cheapest == found.front == ()


def test_the_cheapest_candidate_and_the_front(tmp_path_factory: pytest.TempPathFactory) -> None:
    levels = {(pair, method): 60.0 + 4 * i for pair in PAIRS[:3] for i, method in enumerate(Plan().methods)}
    study = load_study(write_results(tmp_path_factory.mktemp("levels"), Plan(levels=levels, seeds=5, epochs=2)))
    costs = group_costs(study, pair_costs(study))
    (found,) = choices(study, costs)
    assert found.methods == ("assistant", "ofa", "fitnet", "kd", "scratch")
    assert found.candidates == found.cheapest == ("assistant",)
    times = {cost.method: 1 / cost.to_control for cost in costs}
    assert found.front[0] == "scratch" and found.front[-1] == "assistant"
    assert [times[method] for method in found.front] == sorted(times[method] for method in found.front)


def test_steps_of_the_front_are_more_than_noise() -> None:
    better = np.zeros((4, 4), dtype=bool)
    assert stats.steps_up([1.0, 1.5, 2.0, 3.0], better, 0.05) == [0], "nothing is shown better"
    better[3, 0] = better[2, 0] = better[1, 0] = better[2, 1] = True
    assert stats.steps_up([1.0, 1.5, 2.0, 3.0], better, 0.05) == [0, 1, 2]
    assert stats.steps_up([1.0, 1.98, 2.0, 3.0], better, 0.05) == [0, 2], "of two that cost the same, the better"
    assert stats.steps_up([1.0, 1.02, 1.03, 1.04], better, 0.05) == [2], (
        "the same cost: the one that none is better than"
    )
    assert stats.steps_up([], np.zeros((0, 0), dtype=bool), 0.05) == []
