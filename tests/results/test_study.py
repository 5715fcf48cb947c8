"""Reading a results folder: planned cells, missing rows, what is refused and what is left aside."""

from pathlib import Path

import pytest

from kdbench.errors import KdbenchError
from kdbench.files import content_key, read_json, write_json
from kdbench.results.folder import Results, cell_id
from kdbench.results.study import load_study
from tests.support.synthetic import PAIRS, Plan, write_results


def test_every_planned_cell_is_a_row_in_the_order_of_the_study(tmp_path: Path):
    plan = Plan(methods=["fitnet", "kd", "scratch"], missing=[(PAIRS[1], "kd", 1)])
    study = load_study(write_results(tmp_path, plan))
    places = list(study.cells[["pair", "method", "seed"]].itertuples(index=False, name=None))
    assert places == [(pair, m, s) for pair in plan.pairs for m in ("scratch", "kd", "fitnet") for s in range(3)]
    assert study.methods == ["scratch", "kd", "fitnet"]
    assert (study.control, study.baseline) == ("scratch", "kd")
    missing = study.cells[study.cells["status"] == "missing"]
    assert missing[["pair", "method", "seed", "teacher", "student"]].to_numpy().tolist() == [
        [PAIRS[1], "kd", 1, "swin-t", "mobilenet-s"]
    ]
    assert missing["top1"].isna().all()


def test_values_are_those_of_the_records(tmp_path: Path):
    results = write_results(tmp_path, Plan())
    study = load_study(results)
    for record in results.cells():
        row = study.cells[study.cells["key"] == record["key"]].iloc[0]
        assert row["top1"] == record["top1"]
        assert row["seconds_train"] == 12.0
        assert row["student_parameters"] == 250_000
    assert len(study.curves) == 3 * 5 * 3 * 30


def test_records_of_other_settings_are_counted_and_left_aside(tmp_path: Path):
    results = write_results(tmp_path, Plan())
    expected = load_study(results).cells
    old = next(results.cells())
    old["key"], old["protocol"] = content_key("old settings"), "proxy/0"
    write_json(results.record_path(cell_id(old)), old)
    study = load_study(results)
    assert study.ignored == 1
    assert study.cells.equals(expected)


@pytest.mark.parametrize("field", ["protocol", "split"])
def test_mixed_cells_are_refused(tmp_path: Path, field: str):
    results = write_results(tmp_path, Plan())
    path = next((tmp_path / "cells").glob("*/*/*.json"))
    write_json(path, read_json(path) | {field: "val"})
    with pytest.raises(KdbenchError, match=field):
        load_study(results)


def test_mixed_timing_protocols_are_refused(tmp_path: Path):
    results = write_results(tmp_path, Plan())
    path = next((tmp_path / "throughput").glob("*/*.json"))
    write_json(path, read_json(path) | {"timing_protocol": "t/0"})
    with pytest.raises(KdbenchError, match="timing_protocol"):
        load_study(results)


def add_timing(results: Results, method: str, **changes: object) -> None:
    """Another measurement of the method on the first pair."""
    record = next(r for r in results.throughput() if (r["pair"], r["method"]) == (PAIRS[0], method))
    key = content_key(["another", method, str(changes)])
    write_json(results.throughput_path(PAIRS[0], method, key), {**record, "key": key, **changes})


def test_measurements_of_other_settings_are_left_aside(tmp_path: Path):
    results = write_results(tmp_path, Plan())
    expected = load_study(results).throughput
    add_timing(results, "fitnet", blocks=[9e9] * 30)
    study = load_study(results)
    assert study.throughput.equals(expected)
    assert study.ignored == 1


def test_groups_are_the_manifests(tmp_path: Path):
    pairs = [PAIRS[0], PAIRS[6], PAIRS[1]]
    study = load_study(write_results(tmp_path, Plan(pairs=pairs)))
    assert study.groups == {"heterogeneous": [PAIRS[0], PAIRS[1]], "homogeneous": [PAIRS[6]]}


def test_a_folder_without_any_record_still_loads(tmp_path: Path):
    plan = Plan(pairs=PAIRS[:1], methods=["scratch"], throughput=False)
    plan.missing = [(PAIRS[0], "scratch", seed) for seed in range(3)]
    study = load_study(write_results(tmp_path, plan))
    assert study.cells["status"].tolist() == ["missing"] * 3
    assert study.control == "scratch"


def test_no_manifest_is_an_error(tmp_path: Path):
    with pytest.raises(KdbenchError, match="no results"):
        load_study(Results(tmp_path))
