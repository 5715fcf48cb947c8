"""Two runs beside each other: which test is made, that it is the usual one, and what is refused."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_ind, ttest_rel

from kdbench.analysis.runs import Row, RunComparison, compare_runs
from kdbench.analysis.stats import holm
from kdbench.errors import KdbenchError
from kdbench.results.folder import Results
from kdbench.results.study import Study, load_study
from tests.support.world import PAIRS, World

METHODS = ["scratch", "kd", "ofa"]


def study(folder: Path, world: World) -> Study:
    return load_study(world.write(folder))


def compared(folder: Path, old: World, new: World, any_protocol: bool = False) -> RunComparison:
    return compare_runs(study(folder / "old", old), study(folder / "new", new), any_protocol)


def row(found: RunComparison, pair: str, method: str) -> Row:
    return next(row for row in found.by_pair if (row.place, row.method) == (pair, method))


def test_common_seeds_are_paired(tmp_path: Path) -> None:
    old, new = World(seeds=range(6)), World(seeds=range(2, 10), numerics=1, shift={"ofa": -2.0})
    found = compared(tmp_path, old, new)
    common, raw = range(2, 6), []
    for one in found.by_pair:
        values = [[world.top1(one.place, one.method, seed) for seed in common] for world in (old, new)]
        assert one.accuracy.test == "paired t" and one.accuracy.n == (4, 4)
        assert one.accuracy.old == pytest.approx(np.mean(values[0]))
        assert one.accuracy.size.value == pytest.approx(np.mean(values[1]) - np.mean(values[0]))
        expected = ttest_rel(values[1], values[0])
        ends = expected.confidence_interval(0.95)
        assert (one.accuracy.size.low, one.accuracy.size.high) == pytest.approx((ends.low, ends.high))
        raw.append(expected.pvalue)
    assert [one.accuracy.p for one in found.by_pair] == pytest.approx(holm(raw).tolist())


@pytest.mark.parametrize("any_protocol", [False, True])
def test_other_seeds_and_other_protocols_are_independent_samples(tmp_path: Path, any_protocol: bool) -> None:
    protocol = "proxy/2" if any_protocol else "proxy/1"
    seeds = range(6) if any_protocol else range(10, 15)
    old, new = World(seeds=range(6)), World(seeds=seeds, protocol=protocol, numerics=1, shift={"ofa": 1.5})
    found, raw = compared(tmp_path, old, new, any_protocol), []
    for one in found.by_pair:
        values = [[w.top1(one.place, one.method, seed) for seed in w.seeds] for w in (old, new)]
        expected = ttest_ind(values[1], values[0], equal_var=False)
        ends = expected.confidence_interval(0.95)
        assert one.accuracy.test == "Welch" and one.accuracy.n == (6, len(seeds))
        assert (one.accuracy.size.low, one.accuracy.size.high) == pytest.approx((ends.low, ends.high))
        raw.append(expected.pvalue)
    assert [one.accuracy.p for one in found.by_pair] == pytest.approx(holm(raw).tolist())
    assert any("one protocol" in line for line in found.notes) == any_protocol


def test_marks_say_who_moved_and_nothing_else(tmp_path: Path) -> None:
    speeds = {"kd": 0.6, "ofa": 0.6}
    old = World(seeds=range(8), speed=speeds)
    new = World(seeds=range(8), numerics=1, shift={"ofa": 3.0, "kd": -3.0}, speed=speeds | {"kd": 0.8})
    found = compared(tmp_path, old, new)
    accuracy = {method: {row(found, pair, method).accuracy.mark for pair in PAIRS} for method in METHODS}
    assert accuracy == {"scratch": {"equal"}, "kd": {"worse"}, "ofa": {"better"}}
    speed = {method: {row(found, pair, method).speed.mark for pair in PAIRS} for method in METHODS}
    assert speed == {"scratch": {""}, "kd": {"better"}, "ofa": {"equal"}}
    over = {one.method: one for one in found.over_pairs}
    assert [over[method].accuracy.mark for method in METHODS] == ["equal", "worse", "better"]
    assert over["kd"].accuracy.n == (16, 16)
    assert over["kd"].speed.size.value == pytest.approx(0.8 / 0.6, rel=0.05)
    assert over["kd"].speed.mark == "", "two pairs are too few for a test"


def test_little_more_speed_is_no_news(tmp_path: Path) -> None:
    """Within the margin a ratio moves from run to run, whatever a test says of its blocks."""
    old, new = World(seeds=range(3), speed={"kd": 0.60}), World(seeds=range(3), speed={"kd": 0.624})
    change = row(compared(tmp_path, old, new), PAIRS[0], "kd").speed
    assert change.size.value == pytest.approx(1.04)
    assert change.mark == "equal"


def test_a_run_equals_itself(tmp_path: Path) -> None:
    world = World(seeds=range(3))
    found = compared(tmp_path, world, world)
    assert {one.accuracy.mark for one in (*found.by_pair, *found.over_pairs)} == {"equal"}
    assert all(one.accuracy.size.value == 0 and math.isnan(one.accuracy.p) for one in found.by_pair)
    assert not found.only_old and not found.only_new and not found.notes


@pytest.mark.parametrize("seeds", [1, 2])
def test_few_seeds_have_no_test_and_no_mark(tmp_path: Path, seeds: int) -> None:
    found = compared(tmp_path, World(seeds=range(seeds)), World(seeds=range(seeds), numerics=1, shift={"kd": 9.0}))
    assert {one.accuracy.mark for one in found.by_pair} == {""}
    assert row(found, PAIRS[0], "kd").accuracy.size.value > 5


def test_what_is_missing_has_no_average(tmp_path: Path) -> None:
    old, new = World(seeds=range(4)), World(seeds=range(4), missing=[(PAIRS[0], "kd", 2)])
    found = compared(tmp_path, old, new)
    gap = row(found, PAIRS[0], "kd")
    assert (gap.states, gap.planned, gap.done) == (("complete", "incomplete"), (4, 4), (4, 3))
    assert math.isnan(gap.accuracy.size.value) and gap.accuracy.mark == ""
    assert gap.speed.mark == "equal"
    assert math.isnan(next(one for one in found.over_pairs if one.method == "kd").accuracy.size.value)


def test_what_only_one_run_has_is_told(tmp_path: Path) -> None:
    found = compared(tmp_path, World(seeds=range(3), pairs=PAIRS[:1]), World(seeds=range(3), methods=METHODS[:2]))
    assert found.only_old == ((PAIRS[0], "ofa"),)
    assert found.only_new == tuple((PAIRS[1], method) for method in METHODS[:2])
    assert [(one.place, one.method) for one in found.by_pair] == [(PAIRS[0], method) for method in METHODS[:2]]
    assert not found.over_pairs


def test_memory_is_a_factor(tmp_path: Path) -> None:
    peaks = {"old": {"kd": 100, "ofa": 200}, "new": {"kd": 103, "ofa": 150}}
    for name, by_method in peaks.items():
        results = World(seeds=range(3)).write(tmp_path / name)
        for path in (results.folder / "throughput").rglob("*.json"):
            record = json.loads(path.read_text())
            path.write_text(json.dumps(record | {"peak_memory": by_method.get(record["method"])}))
    found = compare_runs(*(load_study(Results(tmp_path / name)) for name in peaks))
    memory = {method: row(found, PAIRS[0], method).memory for method in METHODS}
    assert memory["ofa"].size.value == pytest.approx(0.75)
    assert [memory[method].mark for method in METHODS] == ["", "equal", "better"]


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    old = study(tmp_path / "old", World(seeds=range(3)))
    with pytest.raises(KdbenchError, match=r"not of one protocol \(proxy/1 on test; proxy/2 on test\); --any-protocol"):
        compare_runs(old, study(tmp_path / "protocol", World(seeds=range(3), protocol="proxy/2")))
    with pytest.raises(KdbenchError, match="no pair and method in common"):
        compare_runs(old, study(tmp_path / "others", World(seeds=range(3), pairs=["a:b"])))
    timed = World(seeds=range(3)).write(tmp_path / "timed")
    for path in (timed.folder / "throughput").rglob("*.json"):
        path.write_text(path.read_text().replace('"t/1"', '"t/2"'))
    found = compare_runs(old, load_study(timed))
    assert {one.speed.mark for one in found.by_pair} == {""}
    assert found.notes == ("Throughput is not compared: it is relative to scratch by t/1 and to scratch by t/2.",)
