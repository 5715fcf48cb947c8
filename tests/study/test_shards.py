"""A run in parts: shards into one folder are one run."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kdbench.records import CellRecord, Results
from kdbench.study.claims import claimed
from kdbench.study.share import Share
from tests.command import kdbench

Short = Callable[..., Path]
PAIRS = ["vit-t:resnet-s", "resnet-t:mixer-s"]
DOCS = Path(__file__).parents[2] / "docs" / "scale.md"


def run(folder: Path, suite: Path, *arguments: str) -> tuple[int, str]:
    grid = ["--pairs", ",".join(PAIRS), "--seeds", "1", "--methods", "kd", "--limit", "100,100", "--device", "cpu"]
    done = kdbench("run", "--suite", str(suite), "--out", str(folder), *grid, *arguments)
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def records(folder: Path) -> dict[str, CellRecord]:
    """Records by key, less what no two runs share."""
    found: dict[str, CellRecord] = {cell["key"]: cell for cell in Results(folder).cells()}
    for cell in found.values():
        cell.pop("seconds", None)
    return found


def stamps(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for part in ("cells", "throughput") for path in (folder / part).rglob("*.*")}


@pytest.mark.parametrize("of", [1, 2, 3, 10])
def test_every_place_is_in_one_share(of: int) -> None:
    for place in range(6):
        assert sum(Share(number, of).holds(place) for number in range(1, of + 1)) == 1


def test_two_shards_in_one_folder_are_one_run(short_suite: Short, tmp_path: Path) -> None:
    suite, whole, folder = short_suite(), tmp_path / "whole", tmp_path / "shards"
    assert run(whole, suite, "--no-report", "--no-throughput")[0] == 0
    code, output = run(folder, suite, "--shard", "1/2", "--no-report")
    assert code == 0, output
    assert "suite proxy, shard 1/2: 2 cells of 2 pairs x 2 methods x 1 seeds" in output
    planned, first = (folder / "manifest.json").read_bytes(), stamps(folder)
    assert {cell["pair"] for cell in Results(folder).cells()} == {PAIRS[0]}
    assert {one["pair"] for one in Results(folder).throughput()} == {PAIRS[0]}

    # What is there is reported, also while the rest is missing.
    code, output = run(folder, suite, "--shard=1/2")
    assert code == 0, output
    assert "2 finished, 0 to run" in output and (folder / "report" / "report.md").is_file()
    code, output = run(folder, suite, "--shard=2/2", "--no-report")
    assert code == 0, output
    assert (folder / "manifest.json").read_bytes() == planned
    assert stamps(folder).items() >= first.items(), "what the other shard did is left alone"
    code, output = run(folder, suite, "--no-report")
    assert code == 0 and "4 finished, 0 to run" in output
    assert records(folder) == records(whole)
    planned_keys = {one["key"] for one in Results(folder).manifest()["throughput"]}
    assert {one["key"] for one in Results(folder).throughput()} == planned_keys


def test_a_shard_answers_for_its_own_cells(short_suite: Short, tmp_path: Path) -> None:
    """A method that fails on one pair only ends the shard that has it with 2."""
    plugin = tmp_path / "picky.py"
    plugin.write_text(PICKY)
    suite, folder = short_suite(), tmp_path / "results"
    choice = ["--methods", f"kd,{plugin}", "--no-throughput", "--no-report"]
    code, output = run(folder, suite, *choice, "--shard", "1/2")
    assert code == 2 and "not every cell of shard 1/2 is done: 2 done, 1 failed" in output
    code, output = run(folder, suite, *choice, "--shard", "2/2")
    assert code == 0, output


def test_a_shard_waits_for_whoever_is_at_its_cells(short_suite: Short, tmp_path: Path) -> None:
    suite, folder = short_suite(), tmp_path / "results"
    choice = ["--no-throughput", "--no-report", "--shard", "1/2"]
    assert run(folder, suite, *choice)[0] == 0
    (place,) = (cell for cell in Results(folder).cells() if cell["method"] == "kd")
    results = Results(folder)
    where = (place["pair"], place["method"], place["seed"], place["key"])
    results.cell_path(*where).unlink()
    with claimed([results.lock_path(*where)]):
        code, output = run(folder, suite, *choice, "--budget", "3s")
    assert code == 2 and "waiting for what another run in this folder is at" in output
    assert not results.cell_path(*where).exists()
    assert run(folder, suite, *choice)[0] == 0


def test_the_script_for_an_array_stops_in_time_and_is_queued_again(short_suite: Short, tmp_path: Path) -> None:
    """The one of the page, with stand-ins for SLURM, which sends SIGTERM to the script, and for the size of the study."""
    (script,) = re.findall(r"```sh\n(#!/bin/bash.*?)```", DOCS.read_text(), re.DOTALL)
    for name, content in {
        ".venv/bin/activate": f"PATH={tmp_path}/bin:$PATH",
        "bin/scontrol": '#!/bin/sh\necho "$@" > queued',
        "bin/kdbench": f"#!/bin/sh\nexec {sys.executable} -m kdbench.cli.main \"$@\" --suite {short_suite(10)} --methods kd "
        f"--pairs {','.join(PAIRS)} --seeds 1 --device cpu --checkpoint-every 1h",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        path.chmod(0o755)
    slurm = {"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_COUNT": "2", "SLURM_ARRAY_JOB_ID": "7"}
    job = subprocess.Popen(["bash", "-c", script], cwd=tmp_path, env={**os.environ, **slurm}, stdout=subprocess.PIPE)
    unfinished, deadline = tmp_path / "results" / "study" / "unfinished", time.monotonic() + 120
    while not list(unfinished.rglob("*.lock")) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(3)
    job.send_signal(signal.SIGTERM)
    output = job.communicate(timeout=120)[0].decode()
    assert job.returncode == 130, output
    assert (tmp_path / "queued").read_text() == "requeue 7_2\n"
    assert "shard 2/2" in output
    assert {path.parent.parent.name for path in unfinished.rglob("*.pt")} == {PAIRS[1].replace(":", "--")}


@pytest.mark.parametrize("word", ["0/3", "4/3", "2", "1/0", "a/b"])
def test_what_is_no_shard(word: str) -> None:
    done = kdbench("run", "--shard", word)
    assert done.returncode == 3 and "write the second of nine parts as --shard 2/9" in done.stderr


def test_equal_time_goes_by_all_pairs() -> None:
    done = kdbench("run", "--equal-time", "--shard", "1/2")
    assert done.returncode == 3 and "without --shard" in done.stderr


PICKY = """
from kdbench.method import Batch, Method, Outputs, Pair
from torch import Tensor

class Picky(Method):
    def build(self, pair: Pair) -> None:
        if pair.student.model.__class__.__name__ == "ResNet":
            raise ArithmeticError("not this one")

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        return {"ce": batch.cross_entropy(student.logits)}
"""
