"""`kdbench bench`: throughput alone, on the proxy's real models."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from kdbench.results.folder import Results
from tests.support.command import kdbench

pytestmark = pytest.mark.runs

Short = Callable[..., Path]


@pytest.fixture(scope="module")
def benched(short_suite: Short, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], dict[str, object]]:
    """A folder, the arguments that filled it, and what they printed."""
    folder = tmp_path_factory.mktemp("bench")
    arguments = ["--suite", str(short_suite()), "--out", str(folder), "--device", "cpu", "--pairs", "vit-t:resnet-s"]
    done = kdbench("bench", *arguments, "--methods", "fitnet", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, arguments, json.loads(done.stdout)


def test_control_and_baseline_are_measured_with_what_was_asked_for(benched: tuple[Path, list[str], dict]) -> None:
    folder, _, told = benched
    assert told["measurements"] == {"done": 3}
    records = {record["method"]: record for record in Results(folder).throughput()}
    assert set(records) == {"scratch", "kd", "fitnet"}
    for record in records.values():
        assert len(record.get("blocks", [])) == len(record.get("control_blocks", [])) == 3
        assert record.get("clean") in (True, False, None)
        assert bool(record.get("unclean")) == (record.get("clean") is False)
        assert set(record.get("before", {})) == set(record.get("after", {})) >= {"load", "others", "mhz", "governor"}
        assert 0.5 < record.get("phases_to_step", 0) < 2
    assert not list(Results(folder).cells())


def test_its_report_is_of_cost_alone(benched: tuple[Path, list[str], dict]) -> None:
    folder, _, told = benched
    page = (folder / "report/report.md").read_text()
    assert "Training images/s relative to scratch on each of 1 heterogeneous pair" in page
    assert "| clean |" in page
    assert "top-1" not in page and "seed" not in page
    names = {Path(path).relative_to(folder / "report").as_posix() for path in told["report"]}
    tables = {"csv/throughput.csv", "csv/throughput_by_group.csv"}
    assert names == {"report.md", "report.html", "figures/phases.svg"} | tables


def test_what_was_measured_is_kept(benched: tuple[Path, list[str], dict]) -> None:
    folder, arguments, _ = benched
    before = {path: path.stat().st_mtime_ns for path in folder.glob("throughput/*/*.json")}
    done = kdbench("bench", *arguments, "--methods", "fitnet,ofa")
    assert done.returncode == 0, done.stdout + done.stderr
    after = {path: path.stat().st_mtime_ns for path in folder.glob("throughput/*/*.json")}
    assert {path.name.partition("-")[0] for path in after.keys() - before.keys()} == {"ofa"}
    assert all(after[path] == before[path] for path in before)


def test_a_runs_folder_is_left_alone(short_suite: Short, tmp_path: Path) -> None:
    arguments = ["--suite", str(short_suite()), "--out", str(tmp_path), "--pairs", "vit-t:resnet-s", "--methods", "kd"]
    assert kdbench("run", *arguments, "--seeds", "1", "--no-throughput", "--no-report").returncode == 0
    manifest = (tmp_path / "manifest.json").read_bytes()
    done = kdbench("bench", *arguments)
    assert done.returncode == 3
    assert "holds a run" in done.stderr and "--out" in done.stderr
    assert (tmp_path / "manifest.json").read_bytes() == manifest
