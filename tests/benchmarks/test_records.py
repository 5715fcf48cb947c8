"""Many records: reading 100,000 of them, and whole reports: `pytest tests/benchmarks/test_records.py -m bench -s`."""

import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kdbench.cli.main import main
from kdbench.results.folder import Results
from kdbench.results.study import load_study
from tests.support.command import COMMAND
from tests.support.synthetic import PAIRS, Plan, many_methods, write_results
from tests.support.world import World

pytestmark = pytest.mark.bench

METHODS = 21
SECONDS = {10_000: 5.0, 100_000: 30.0}


@pytest.fixture(scope="module", params=SECONDS, ids="{:,} cells".format)
def cells(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, int]:
    """A folder of at least so many records, as long as the proxy's, on 12 pairs."""
    seeds = -(-request.param // (len(PAIRS) * METHODS))
    plan = Plan(methods=many_methods(METHODS), pairs=PAIRS, seeds=seeds, epochs=16)
    with pytest.MonkeyPatch.context() as patch:
        # Waiting for the disk after each file would take most of an hour.
        patch.setattr(os, "fsync", lambda descriptor: None)
        return write_results(tmp_path_factory.mktemp("records"), plan), request.param


def test_reading(benchmark: Callable[..., Any], cells: tuple[Results, int]) -> None:
    results, number = cells
    study = benchmark.pedantic(lambda: load_study(results), rounds=3)  # type: ignore[attr-defined]
    assert len(study.cells) >= number


def test_a_report_in_seconds_the_same_twice(cells: tuple[Results, int]) -> None:
    results, number = cells
    folders = [results.folder / name for name in ("once", "twice")]
    times = []
    for folder in folders:
        started = time.perf_counter()
        command = [*COMMAND, "report", str(results.folder), "--out", str(folder)]
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - started)
    print(f"\nreport on {number:,} cells: {min(times):.1f} s")
    first, second = ({path.relative_to(f): path.read_bytes() for path in f.rglob("*.*")} for f in folders)
    assert first == second
    assert min(times) <= SECONDS[number]


@pytest.mark.parametrize("number", SECONDS, ids="{:,} cells".format)
def test_a_check_in_seconds_the_same_twice(number: int, tmp_path: Path) -> None:
    """Against a baseline of 20 seeds: 500 (pair, method) with other numerics, none worse."""
    grid = World(methods=["scratch", "kd", *(f"m{i}" for i in range(23))], pairs=[f"t{i}:s{i}" for i in range(20)])
    baseline = tmp_path / "baseline.json"
    grid.write(tmp_path / "old")
    assert main(["baseline", "update", str(tmp_path / "old"), "--out", str(baseline)]) == 0
    replace(grid, seeds=range(20, 20 + number // 500), numerics=1).write(tmp_path / "new")
    times, texts = [], []
    for _ in range(2):
        started = time.perf_counter()
        command = [*COMMAND, "check", str(tmp_path / "new"), "--baseline", str(baseline)]
        done = subprocess.run(command, capture_output=True, text=True)
        times.append(time.perf_counter() - started)
        texts.append(done.stdout)
        assert done.returncode in (0, 1), done.stderr
    print(f"check of {number:,} cells: {min(times):.1f} s")
    assert texts[0] == texts[1]
    assert min(times) <= SECONDS[number]
