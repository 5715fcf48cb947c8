"""The committed baseline of the proxy: it is whole, and the gate's rates hold on real numbers, too."""

from pathlib import Path

import numpy as np
import pytest

from kdbench.compute.device import resolve
from kdbench.gate.baseline import Baseline, default_path, load_baseline
from kdbench.gate.decision import ACCURACY, FIRST, LOSS, MORE, alarms, two_stage
from kdbench.registry import Registry
from kdbench.study.plan import settle
from kdbench.study.verify import self_check_methods
from kdbench.suites.loading import load_suite

REPETITIONS = 20
NEWER = {"abkd", "ea", "fcfd", "itrd", "lift", "nkd", "rcat", "spofa", "ttm", "vitkd", "wkd", "wttm"}
"""Methods that came after its 20 seeds; they pass the gate as new ones until the next baseline takes them in."""


@pytest.fixture(scope="module")
def baseline() -> Baseline:
    return load_baseline(default_path("proxy"))


def test_it_covers_the_proxy(baseline: Baseline) -> None:
    suite = load_suite("proxy")
    assert not baseline.provisional
    assert (baseline.suite, baseline.protocol, baseline.split) == (suite.name, suite.protocol, "test")
    assert len(set(baseline.seeds)) == len(baseline.seeds) >= 20
    assert sorted(baseline.pairs) == sorted(suite.pair_names)
    assert set(baseline.roles) == set(Registry.installed().names) - NEWER
    for cell in baseline.cells:
        assert len(cell.top1) == len(baseline.seeds) and len(cell.traces) == 3 and cell.seconds
        # No two seeds came out the same, so none was used twice.
        assert len(set(zip(cell.top1, *cell.losses.values(), strict=True))) == len(baseline.seeds)
        assert len(cell.ratios) >= 12 or cell.method == baseline.control


def test_what_it_lacks_is_not_supported(baseline: Baseline) -> None:
    suite, compute = load_suite("proxy"), resolve("cpu", "fp32", "off")
    absent = {(pair.name, name) for pair in suite.pairs for name in baseline.roles} - set(baseline.by_pair_method)
    pairs = [pair for pair in suite.pairs if any(pair.name == name for name, _ in absent)]
    plugins = [one for one in Registry.installed().select("all") if any(one.name == name for _, name in absent)]
    verdicts = list(self_check_methods(suite, pairs, settle(suite, plugins, {}), compute, Path("no-data")))
    assert {(one.pair, one.method) for one in verdicts if one.status == "unsupported"} == absent


def _resampled(baseline: Baseline, shift: float) -> float:
    """Share of cells that move where six seeds, `shift` sigma added to their top-1, are held against the rest."""
    random = np.random.default_rng(0)
    moved = []
    for _ in range(REPETITIONS):
        order = random.permutation(len(baseline.seeds))
        new, old = order[: FIRST + MORE], order[FIRST + MORE :]
        for cell in baseline.cells:
            top1, losses = np.array(cell.top1), np.array(list(cell.losses.values()))
            stages = [
                two_stage(values[old].tolist(), values[new].tolist(), LOSS, tests=len(losses)).stage
                for values in losses
            ]
            shifted = top1[new] + shift * top1.std(ddof=1)
            stages.append(two_stage(top1[old].tolist(), shifted.tolist(), ACCURACY).stage)
            moved.append("moved" in stages)
    return float(np.mean(moved))


@pytest.mark.runs
def test_unchanged_reruns_raise_the_alarms_that_are_claimed(baseline: Baseline) -> None:
    rate = _resampled(baseline, 0.0)
    print(f"{rate:.2%} of {REPETITIONS * len(baseline.cells)} unchanged cells raise an alarm")
    # The cells of a repetition share seeds, so the number of alarms spreads more than the binomial.
    assert rate <= 0.01


@pytest.mark.runs
def test_a_drop_is_found_as_often_as_is_claimed(baseline: Baseline) -> None:
    claimed = alarms(3.0, len(baseline.seeds) - FIRST - MORE)[1]
    assert _resampled(baseline, -3.0) == pytest.approx(claimed, abs=0.06)
