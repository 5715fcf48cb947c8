"""Does the two-stage test alarm and find as often as it says?"""

import math

import numpy as np
import pytest
from scipy.stats import ttest_ind

from kdbench.gate.decision import ACCURACY, LOSS, alarms, detectable_drop, false_alarm, pooled_p, two_stage

STUDIES = 200_000


def close(share: float, studies: int = STUDIES) -> object:
    """Within four standard errors of a simulated share."""
    return pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / studies))


def test_false_alarms_are_as_rare_as_said() -> None:
    suspicious, moved = alarms(0.0, 20, studies=STUDIES)
    assert suspicious == close(0.05)
    assert moved == close(0.0017)
    assert false_alarm(20, 20) == pytest.approx(0.034, abs=0.006)
    assert alarms(0.0, 20, LOSS, STUDIES)[1] < 3e-4


@pytest.mark.parametrize(("shift", "power"), [(2.0, 0.75), (2.5, 0.945), (3.0, 0.994)])
def test_drops_are_found_as_often_as_said(shift: float, power: float) -> None:
    assert alarms(shift, 20, studies=STUDIES)[1] == close(power)
    assert alarms(-shift, 20, studies=STUDIES)[1] == close(power)


def test_the_simulation_is_of_the_test_that_the_gate_makes() -> None:
    """The simulation draws sufficient statistics; the same studies seed by seed, through `two_stage` itself."""
    random = np.random.default_rng(1)
    studies = 3000
    stages = [
        two_stage(random.normal(0, 1, 20).tolist(), random.normal(2, 1, 6).tolist(), ACCURACY).stage
        for _ in range(studies)
    ]
    assert stages.count("moved") / studies == close(0.75, studies)
    assert (stages.count("moved") + stages.count("cleared")) / studies == close(alarms(2.0, 20)[0], studies)


@pytest.mark.runs
def test_the_detectable_drop_is_found_with_its_power() -> None:
    for n in (6, 20):
        assert alarms(detectable_drop(n), n, studies=STUDIES)[1] == pytest.approx(0.8, abs=0.01)
    assert detectable_drop(6) > detectable_drop(20) > detectable_drop(100)


def test_pooled_p_is_the_usual_t_test() -> None:
    old, new = [75.1, 74.2, 75.9, 76.0], [73.0, 74.1, 72.2]
    assert pooled_p(old, new) == pytest.approx(ttest_ind(old, new).pvalue, rel=1e-12)
    assert pooled_p([0.1 + 0.2] * 3, [0.3] * 3) == pytest.approx(1.0, abs=1e-3), "rounding is no difference"
    assert pooled_p([1.0] * 20, [1.1] * 3) < 1e-9, "without noise any difference is one"
    assert math.isnan(pooled_p([1.0], [2.0])) and math.isnan(pooled_p([], [2.0]))


def test_the_stages() -> None:
    old = np.random.default_rng(0).normal(75, 0.5, 20).tolist()
    good, bad = [75.0, 75.1, 74.9], [73.0, 73.2, 72.9]
    assert two_stage(old, good, ACCURACY).stage == "pass"
    assert two_stage(old, bad, ACCURACY).stage == "suspicious"
    assert two_stage(old, bad + good, ACCURACY).stage == "cleared"
    moved = two_stage(old, bad + bad, ACCURACY)
    assert (moved.stage, moved.n_new) == ("moved", 6)
    assert two_stage(old, good + bad, ACCURACY).n_new == 3, "what passes is not looked at again"
    assert two_stage(old, bad, ACCURACY, tests=1000).p == pytest.approx(1000 * two_stage(old, bad, ACCURACY).p)
