"""Damaged results folders: an answer that accounts for every record, or one line that says why there is none."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdbench.results.folder import Results
from tests.support.harness import answer, damaged, drawn, other_file
from tests.support.synthetic import PAIRS, Plan, write_results
from tests.support.world import World


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    plan = Plan(
        methods=["scratch", "kd", "ofa"],
        pairs=PAIRS[:2],
        seeds=2,
        epochs=4,
        missing=[(PAIRS[1], "ofa", 1)],
        broken={(PAIRS[0], "ofa", 0): ("failed", "RuntimeError: no\nline 2")},
        differs={"ofa": "answers with the teacher"},
        equal_time={PAIRS[0]: {"scratch": 4, "kd": 6, "ofa": 8}},
    )
    return write_results(tmp_path_factory.mktemp("study"), plan).folder


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder of fresh seeds, and the baseline to hold it against."""
    folder = tmp_path_factory.mktemp("gate")
    methods, pairs = ["scratch", "kd"], ["vit-t:resnet-s"]
    World(seeds=range(4), methods=methods, pairs=pairs).write(folder / "old")
    World(seeds=range(20, 23), methods=methods, pairs=pairs, numerics=1).write(folder / "new")
    made = answer("baseline", "update", folder / "old", "--provisional", "--out", folder / "baseline.json")
    assert made.returncode == 0, made.stderr
    return folder / "new", folder / "baseline.json"


def _json_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.json") if "report" not in path.parts)


def _broken_json(content: bytes | None) -> bool:
    try:
        return not isinstance(json.loads(content or b""), dict)
    except (ValueError, RecursionError):
        return True


@pytest.mark.runs
@drawn(40)
@given(data=st.data())
def test_reports(study: Path, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(_json_files(study)))
    content = data.draw(other_file(path.read_bytes()))
    formats = data.draw(st.sampled_from(["json", "json,csv", "json,latex"]))
    with damaged(path, content):
        done = answer("report", study, "--format", formats, "--out", study / "report")
        if done.returncode == 0:
            assert not _broken_json(content)
            _all_there(study, done.stdout)
        else:
            assert done.returncode == 3
            told = ("the records mix", "the manifest plans it", "no results in")
            assert str(path) in done.stderr or any(words in done.stderr for words in told)


def _all_there(study: Path, printed: str) -> None:
    """Every planned cell is a row with the numbers of its record; every other record is counted."""
    manifest = json.loads((study / "manifest.json").read_bytes())
    report: dict[str, Any] = json.loads((study / "report" / "report.json").read_bytes())
    tables = report["tables"]
    rows = {row["key"]: row for name in ("cells", "open_cells") for row in tables.get(name, [])}
    assert set(rows) == {cell["key"] for cell in manifest["cells"]}
    records = [json.loads(path.read_bytes()) for path in (study / "cells").rglob("*.json")]
    timings = [json.loads(path.read_bytes()) for path in (study / "throughput").rglob("*.json")]
    for record in records:
        if record["key"] in rows:
            row = rows[record["key"]]
            assert row["status"] == record["status"]
            assert record["status"] != "done" or row["top1"] == record["top1"]
    timed = {one["key"] for one in manifest["throughput"]}
    aside = sum(record["key"] not in rows for record in records) + sum(one["key"] not in timed for one in timings)
    told = [line for line in report["notes"] if "of other settings or machines left aside" in line]
    assert [int(line.split()[0]) for line in told] == ([aside] if aside else [])
    gone = {key for key, row in rows.items() if row["status"] == "missing"}
    assert gone == set(rows) - {record["key"] for record in records}
    assert not gone or "missing" in printed


@drawn(20)
@given(data=st.data())
def test_other_readers(study: Path, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(_json_files(study)))
    content = data.draw(other_file(path.read_bytes()))
    command: list[object] = data.draw(
        st.sampled_from(
            [
                ["status", study, "--json"],
                ["compare", study, study],
                ["clean", study],
                ["export", path, "--to", "timm", "--out", study / "exported"],
                ["export", f"{PAIRS[0]}/kd/0", "--results", study, "--to", "timm", "--out", study / "exported"],
            ]
        )
    )
    with damaged(path, content):
        done = answer(*command)
        if command[0] == "status" and done.returncode == 2:
            assert sum(json.loads(done.stdout)["cells"].values()) == len(
                json.loads((study / "manifest.json").read_bytes())["cells"]
            )
        assert command[0] != "export" or done.returncode == 3, "there is no checkpoint"


@pytest.mark.runs
@drawn(2)
@given(data=st.data())
def test_pages_with_figures(study: Path, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(_json_files(study)))
    with damaged(path, data.draw(other_file(path.read_bytes()))):
        done = answer("report", study, "--format", "md", "--out", study / "report")
        assert done.returncode in (0, 3)


@pytest.mark.runs
@drawn(40)
@given(data=st.data())
def test_checks_and_baselines(gate: tuple[Path, Path], data: st.DataObject, tmp_path: Path) -> None:
    folder, baseline = gate
    path = data.draw(st.sampled_from(_json_files(folder)))
    content = data.draw(other_file(path.read_bytes()))
    command: list[object] = ["check", folder, "--baseline", baseline, "--json"]
    if data.draw(st.booleans()):
        command = ["baseline", "update", folder, "--provisional", "--out", tmp_path / "made.json", "--json"]
    with damaged(path, content):
        done = answer(*command)
        if done.returncode == 3 and done.stderr:
            return
        assert not _broken_json(content)
        told = json.loads(done.stdout)
        if command[0] == "check":
            outcomes = {cell["outcome"] for cell in told["cells"]}
            assert len(told["cells"]) >= 2 and told["exit_code"] == done.returncode
            assert done.returncode or outcomes <= {"IDENTICAL", "PASS", "CLEARED", "NEW_METHOD", "SLOWER", "FASTER"}
        else:
            assert answer("baseline", "show", tmp_path / "made.json").returncode == 2, "it is provisional"
            shutil.rmtree(tmp_path / "made.json", ignore_errors=True)


@pytest.mark.runs
@drawn(40)
@given(data=st.data())
def test_baseline_files(gate: tuple[Path, Path], data: st.DataObject) -> None:
    folder, baseline = gate
    with damaged(baseline, data.draw(other_file(baseline.read_bytes()))):
        shown = answer("baseline", "show", baseline)
        assert shown.returncode in (0, 2) or str(baseline) in shown.stderr
        checked = answer("check", folder, "--baseline", baseline)
        assert (checked.returncode == 3 and bool(checked.stderr)) or shown.returncode != 3


def test_a_record_of_every_hostile_number(study: Path) -> None:
    """What no table may hold: an accuracy that is none."""
    path = next(iter(Results(study).folder.rglob("cells/*/kd/*.json")))
    record = json.loads(path.read_bytes())
    for top1 in (math.nan, math.inf, -1, 101, "75", None, True, [75]):
        with damaged(path, json.dumps(record | {"top1": top1}).encode()):
            done = answer("report", study, "--format", "json", "--out", study / "report")
            assert done.returncode == 3 and f"{path} is broken: 'top1'" in done.stderr
