"""What of a baseline can be checked within some minutes."""

from itertools import pairwise

import pytest

from kdbench.errors import KdbenchError
from kdbench.gate.baseline import Baseline, default_path, load_baseline
from kdbench.gate.decision import FIRST, MORE
from kdbench.gate.subset import IDENTITY, Allowance


@pytest.fixture(scope="module")
def baseline() -> Baseline:
    return load_baseline(default_path("proxy"))


@pytest.mark.runs
@pytest.mark.parametrize("workers", [1, 2])
def test_more_time_is_more_cells(baseline: Baseline, workers: int) -> None:
    every = list(baseline.by_pair_method)
    some = [Allowance(baseline, minutes, workers, True) for minutes in (5, 10, 20, 80, None)]
    compared = [allowance.comparable(every) for allowance in some]
    assert all(set(less) < set(more) for less, more in pairwise(compared[:3]))
    assert set(compared[-1]) == set(every)
    judged = [len(allowance.judgeable(every)) for allowance in some]
    assert judged == sorted(judged) and judged[0] < judged[-1] == len(every)
    for allowance, cells in zip(some, compared, strict=True):
        left = allowance.left(cells, cells)
        if allowance.minutes:
            half, whole = 30 * allowance.minutes, 60 * allowance.minutes
            compare = allowance._seconds(cells, (IDENTITY,), throughput=True)
            judge = allowance._seconds(left, (FIRST, MORE))
            assert compare <= half and compare + judge <= whole, "a check keeps to its time"
            assert allowance._seconds(allowance.judgeable(every), (FIRST, MORE), throughput=True) <= whole
        # Comparing a cell takes a seed, judging it six more.
        assert set(left) < set(cells) if allowance.minutes else left == cells
        assert all((pair, baseline.control) in cells for pair, _ in cells), "gains need the control"


def test_what_ci_compares(baseline: Baseline) -> None:
    compared = Allowance(baseline, 8, 2, True).comparable(list(baseline.by_pair_method))
    assert {method for _, method in compared} == set(baseline.roles), "every method is looked at"


def test_a_cell_that_differs_can_always_be_judged(baseline: Baseline) -> None:
    allowance = Allowance(baseline, 5, 2, True)
    compared = allowance.comparable(list(baseline.by_pair_method))
    assert compared and all(allowance.left(compared, [place]) == [place] for place in compared)


def test_too_little_time(baseline: Baseline) -> None:
    with pytest.raises(KdbenchError, match="too few to check any method"):
        Allowance(baseline, 1, 2, True).comparable(list(baseline.by_pair_method))
    content = baseline.model_dump(by_alias=True)
    content["cells"] = [cell | {"seconds": None} for cell in content["cells"]]
    with pytest.raises(KdbenchError, match="does not tell how long"):
        Allowance(Baseline.model_validate(content), 8, 2, True).judgeable(list(baseline.by_pair_method))
