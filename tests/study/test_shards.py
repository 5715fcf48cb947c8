"""A run in parts: shards into one folder are one run."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kdbench.results.folder import Results
from kdbench.study.plan import Shard, command_line
from tests.docs.commands import Written, steps
from tests.study.test_interruptions import records, stamps, workers_of
from tests.support.command import kdbench

Short = Callable[..., Path]
PAIRS = ["vit-t:resnet-s", "resnet-t:mixer-s"]


def run(folder: Path, suite: Path, *arguments: str) -> tuple[int, str]:
    grid = ["--pairs", ",".join(PAIRS), "--seeds", "1", "--limit", "100,100", "--device", "cpu", "--no-report"]
    done = kdbench("run", "--suite", str(suite), "--out", str(folder), *grid, *arguments)
    return done.returncode, " ".join((done.stdout + done.stderr).split())


@pytest.mark.parametrize("of", [1, 2, 3, 10])
def test_every_group_is_in_one_shard(of: int) -> None:
    for index in range(6):
        assert sum(Shard(number, of).holds(index) for number in range(1, of + 1)) == 1


@pytest.mark.runs
def test_two_shards_in_one_folder_are_one_run(short_suite: Short, tmp_path: Path) -> None:
    """With a method that fails on the first of two pairs: each shard answers for its own cells."""
    plugin = tmp_path / "picky.py"
    plugin.write_text(PICKY)
    suite, folder = short_suite(), tmp_path / "results"
    choice = ["--methods", f"kd,{plugin}"]
    code, output = run(folder, suite, *choice, "--shard", "1/2")
    assert code == 2
    assert "throughput is left out" in output
    assert "suite proxy, shard 1/2: 3 cells of 2 pairs x 3 methods x 1 seed" in output
    assert "not every cell of shard 1/2 is done: 2 done, 1 failed" in output
    planned, first = (folder / "manifest.json").read_bytes(), stamps(folder)
    assert {cell["pair"] for cell in Results(folder).cells()} == {PAIRS[0]}

    code, output = run(folder, suite, *choice, "--shard=2/2")
    assert code == 0, output
    assert (folder / "manifest.json").read_bytes() == planned
    assert stamps(folder).items() >= first.items(), "what the other shard did is left alone"
    assert set(records(folder)) == {cell["key"] for cell in Results(folder).manifest()["cells"]}


def test_the_command_of_a_shard_is_that_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the manifest tells it: the same from every shard."""
    whole = ["kdbench", "run", "--seeds", "2", "--methods", "kd"]
    for words in (["--shard", "3/9"], ["--shard=3/9"]):
        monkeypatch.setattr("sys.argv", [*whole[:4], *words, *whole[4:]])
        assert command_line() == " ".join(whole)


@pytest.mark.runs
def test_the_script_for_an_array_stops_in_time_and_is_queued_again(short_suite: Short, tmp_path: Path) -> None:
    """The one of the page; stand-ins for SLURM, which sends SIGTERM to the script, and for the size of the study.

    Workers leave SIGTERM to their parent, as batch systems may send it to every process of a job.
    """
    (page,) = (step.content for step in steps("docs/scale.md") if isinstance(step, Written))
    small = f"--suite {short_suite(10)} --methods kd --pairs {','.join(PAIRS)} --seeds 1 --device cpu"
    for name, content in {
        ".venv/bin/activate": f"PATH={tmp_path}/bin:$PATH",
        "bin/scontrol": '#!/bin/sh\necho "$@" > queued',
        "bin/kdbench": f'#!/bin/sh\nexec {sys.executable} -m kdbench.cli.main "$@" {small} --checkpoint-every 1h',
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        path.chmod(0o755)
    slurm = {"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_COUNT": "2", "SLURM_ARRAY_JOB_ID": "7"}
    job = subprocess.Popen(["bash", "-c", page], cwd=tmp_path, env={**os.environ, **slurm}, stdout=subprocess.PIPE)
    unfinished, deadline = tmp_path / "results" / "study" / "unfinished", time.monotonic() + 300
    while not list(unfinished.rglob("*.lock")) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert list(unfinished.rglob("*.lock"))
    time.sleep(3)
    *below, _, script = workers_of(job)
    for pid in (*below, script):
        os.kill(pid, signal.SIGTERM)
    output = job.communicate(timeout=120)[0].decode()
    assert job.returncode == 130, output
    assert (tmp_path / "queued").read_text() == "requeue 7_2\n"
    assert "shard 2/2" in output
    assert {path.parent.parent.name for path in unfinished.rglob("*.pt")} == {PAIRS[1].replace(":", "--")}


@pytest.mark.parametrize("word", ["0/3", "4/3", "2", "1/0", "a/b"])
def test_what_is_no_shard(word: str) -> None:
    done = kdbench("run", "--shard", word)
    assert done.returncode == 3 and "--shard" in done.stderr and "the second of nine parts is 2/9" in done.stderr


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
