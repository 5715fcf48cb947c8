"""Throughput rows against numpy on the raw records."""

import math
from pathlib import Path

import numpy as np
import pytest

from kdbench.analysis.cost import group_costs, pair_costs
from kdbench.errors import KdbenchError
from kdbench.files import read_json, write_json
from kdbench.results.study import load_study
from tests.support.synthetic import PAIRS, Plan, write_results


def test_images_and_ratios(tmp_path: Path):
    results = write_results(tmp_path, Plan())
    costs = {(cost.pair, cost.method): cost for cost in pair_costs(load_study(results))}
    assert len(costs) == 15
    for record in results.throughput():
        cost = costs[record["pair"], record["method"]]
        blocks = np.array(record.get("blocks"))
        ratios = np.sort(blocks / np.array(record.get("control_blocks")))
        assert cost.images == pytest.approx(np.median(blocks))
        assert cost.images_p10 == pytest.approx(np.percentile(blocks, 10))
        assert cost.to_control.value == pytest.approx(np.median(ratios))
        assert ratios[9] <= cost.to_control.low <= ratios[10]
        assert ratios[19] <= cost.to_control.high <= ratios[20]
        assert cost.phases["backward"] == pytest.approx(22)
        assert cost.peak_memory is None
    assert costs[PAIRS[0], "scratch"].to_control.value == 1


def test_geometric_mean_over_pairs_only_when_all_are_measured(tmp_path: Path):
    results = write_results(tmp_path, Plan())
    next((tmp_path / "throughput").glob("*/ofa-*.json")).unlink()
    study = load_study(results)
    costs = pair_costs(study)
    rows = {row.method: row for row in group_costs(study, costs)}
    ratios = [cost.to_control.value for cost in costs if cost.method == "kd"]
    assert rows["kd"].to_control == pytest.approx(np.prod(ratios) ** (1 / 3))
    assert rows["kd"].to_baseline == 1
    assert rows["ofa"].measured == 2
    assert math.isnan(rows["ofa"].to_control)
    assert sum(cost.status == "missing" for cost in costs) == 1


def test_no_throughput_at_all(tmp_path: Path):
    study = load_study(write_results(tmp_path, Plan(throughput=False)))
    costs = pair_costs(study)
    assert {cost.status for cost in costs} == {"missing"}
    assert all(math.isnan(row.to_control) for row in group_costs(study, costs))


def test_blocks_of_other_rounds_are_refused(tmp_path: Path):
    results = write_results(tmp_path, Plan())
    path = next((tmp_path / "throughput").glob("*/kd-*.json"))
    record = read_json(path)
    write_json(path, record | {"control_blocks": record["control_blocks"][:-1]})
    with pytest.raises(KdbenchError, match="control_blocks has 29 values"):
        load_study(results)


def test_utilisation_is_the_share_of_the_devices_matrix_rate(tmp_path: Path):
    results = write_results(tmp_path, Plan())
    path = next((tmp_path / "throughput").glob("*/kd-*.json"))
    record = read_json(path) | {"matmul_flops": 2e12}
    write_json(path, record)
    costs = {(cost.pair, cost.method): cost for cost in pair_costs(load_study(results))}
    expected = np.median(record["blocks"]) * record["flops"]["train"] / 2e12
    assert costs[record["pair"], "kd"].utilisation == pytest.approx(expected)
    assert math.isnan(costs[record["pair"], "scratch"].utilisation)


def test_records_of_before_the_machine_was_watched_are_read(tmp_path: Path):
    results = write_results(tmp_path, Plan())
    for path in (tmp_path / "throughput").glob("*/kd-*.json"):
        record = read_json(path)
        for name in ("clean", "unclean", "repeated", "phases_to_step"):
            del record[name]
        write_json(path, record)
    costs = {cost.method: cost for cost in pair_costs(load_study(results))}
    assert (costs["kd"].clean, costs["kd"].unclean) == (None, ())
    assert math.isnan(costs["kd"].phases_to_step)
    assert (costs["ofa"].clean, costs["ofa"].phases_to_step) == (True, 1.01)
