"""The race drops what is shown worse, and hardly ever the best: simulated, and on records of the frozen baseline."""

import numpy as np
import pytest
from numpy.typing import NDArray

from kdbench.analysis.race import shown_worse
from kdbench.gate.baseline import default_path, load_baseline
from kdbench.suites.loading import load_suite

ROUNDS = 10


def raced(top1: NDArray[np.float64]) -> tuple[set[int], float]:
    """Who is left at the end, and the share of the trainings of a full run that it took.

    Args:
        top1: (methods, pairs, rounds).
    """
    methods, pairs, rounds = top1.shape
    left, trained = list(range(methods)), 0
    for number in range(1, rounds + 1):
        trained += len(left) * pairs
        worse = shown_worse({str(method): top1[method, :, :number] for method in left}, rounds)
        left = [method for method in left if str(method) not in worse]
        if len(left) == 1:
            break
    return set(left), trained / top1.size


@pytest.mark.parametrize(("methods", "pairs"), [(5, 1), (5, 6), (30, 6)])
def test_the_best_is_kept_where_all_are_nearly_equal(methods: int, pairs: int) -> None:
    random, lost, races = np.random.default_rng(0), 0, 150
    for _ in range(races):
        top1 = random.normal(size=(methods, pairs, ROUNDS))
        top1[0] += 0.01
        lost += 0 not in raced(top1)[0]
    assert lost / races <= 0.05, "the claim, with what 150 races add to the rates of the docstring"


def test_one_that_is_far_worse_is_dropped_at_once() -> None:
    top1 = np.random.default_rng(0).normal(size=(4, 2, 2))
    top1[3] -= 50
    assert shown_worse({str(i): row for i, row in enumerate(top1)}, ROUNDS) == ["3"]


def test_nothing_is_dropped_before_three_blocks() -> None:
    top1 = {"a": np.array([[70.0], [71.0]]), "b": np.array([[10.0], [10.5]])}
    assert not shown_worse(top1, ROUNDS)


def test_cells_that_are_not_done_take_no_part() -> None:
    random = np.random.default_rng(0)
    top1 = random.normal(70, 1, size=(3, 1, 6))
    top1[1, 0, :4] = np.nan
    top1[2] -= 30
    assert shown_worse({str(i): row for i, row in enumerate(top1)}, ROUNDS) == ["2"]
    top1[0] = np.nan
    assert shown_worse({str(i): row for i, row in enumerate(top1)}, ROUNDS) == []


def test_on_the_frozen_baseline() -> None:
    """The best method stays in at least 95 % of races, at .55 of the trainings at most (`pytest -s` shows both)."""
    baseline, suite = load_baseline(default_path("proxy")), load_suite("proxy")
    pairs = [pair.name for pair in suite.pairs if suite.is_hetero(pair)]
    cells = baseline.by_pair_method
    methods = [method for method in baseline.roles if all((pair, method) in cells for pair in pairs)]
    top1 = np.array([[cells[pair, method].top1 for pair in pairs] for method in methods])
    best = int(top1.mean(axis=(1, 2)).argmax())
    random, races = np.random.default_rng(0), 200
    kept, trained, left = 0, 0.0, 0
    for _ in range(races):
        seeds = random.integers(0, top1.shape[2], (len(pairs), ROUNDS))
        resampled = np.take_along_axis(top1, seeds[None], axis=2)
        stayed, share = raced(resampled)
        kept, trained, left = kept + (best in stayed), trained + share / races, left + len(stayed)
    print(f"{methods[best]} stays in {kept / races:.1%} of races, {trained:.2f} of trainings, {left / races:.1f} left")
    assert kept / races >= 0.95 and trained <= 0.55
