"""Interrupted equals uninterrupted: whatever is killed, and whenever, the same command leads to the same results."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kdbench.results.folder import Results
from kdbench.results.locks import claimed, is_claimed
from kdbench.results.schema import CellRecord
from tests.support.command import kdbench

pytestmark = pytest.mark.runs

Short = Callable[..., Path]
Grid = tuple[list[str], Path]

KILLS_IN_CI = 2
KILLS = 25
# Projectors, a memory bank and a stream of its own, what is kept from batch to batch, a second view.
METHODS = "ofa,crd,pat,mlld"

HOLD = """
import sys
from pathlib import Path
from kdbench.results.locks import claimed
with claimed([Path(sys.argv[1])]) as held:
    print(len(held), flush=True)
    input()
"""


def command(arguments: list[str], folder: Path) -> list[str]:
    return [sys.executable, "-m", "kdbench.cli.main", *arguments, "--out", str(folder)]


def start(arguments: list[str], folder: Path, said: Path | None = None) -> subprocess.Popen[bytes]:
    """Start a run; what it prints goes to the file `said`."""
    with (said or Path(os.devnull)).open("wb") as file:
        settings = {"stdout": file, "stderr": subprocess.DEVNULL, "start_new_session": True}
        return subprocess.Popen(command(arguments, folder), env=dict(os.environ), **settings)


@pytest.fixture(scope="module")
def undisturbed(short_suite: Short, tmp_path_factory: pytest.TempPathFactory) -> Grid:
    """The arguments of a run, and the results of one that ran through; weights are averaged, as EMA has them."""
    suite = short_suite(3, text=lambda text: text.replace('optimizer = "sgd"', 'optimizer = "sgd"\nema = 0.9'))
    grid = ["--pairs", "vit-t:resnet-s,resnet-t:mixer-s", "--seeds", "1", "--methods", METHODS, "--limit", "200,200"]
    quick = ["--no-throughput", "--no-report", "--device", "cpu", "--checkpoint-every", "0.2s"]
    arguments = ["run", "--suite", str(suite), *grid, *quick]
    folder = tmp_path_factory.mktemp("undisturbed") / "results"
    done = kdbench(*arguments, "--out", str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    return arguments, folder


def records(folder: Path) -> dict[str, CellRecord]:
    """Records by path, less timings."""
    found: dict[str, CellRecord] = {cell["key"]: cell for cell in Results(folder).cells()}
    for cell in found.values():
        cell.pop("seconds", None)
        cell.pop("date", None)
    return found


def weights(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in (folder / "checkpoints").rglob("*.*")}


def stamps(folder: Path) -> dict[Path, int]:
    """When the records of finished cells were written."""
    return {path: path.stat().st_mtime_ns for path in (folder / "cells").rglob("*.json")}


def report(folder: Path) -> bytes:
    done = kdbench("report", str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    return (folder / "report" / "report.md").read_bytes()


def check_equal(folder: Path, other: Path) -> None:
    assert records(folder) == records(other)
    assert weights(folder) == weights(other)
    assert report(folder) == report(other)
    assert not [path for path in (folder / "unfinished").rglob("*") if path.is_file()]
    assert not list(folder.rglob("*.part"))


def workers_of(process: subprocess.Popen[bytes]) -> list[int]:
    """The process and all that descend from it, itself last."""
    found, front = [], [process.pid]
    while front:
        parent = front.pop()
        found.append(parent)
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                front += map(int, task.read_text().split())
            except OSError:
                continue
    return found[::-1]


def kill_at_random(grid: Grid, folder: Path, kills: int, seed: int) -> int:
    """Start the command again and again and kill it, until so many kills have hit or it is done; how many hit."""
    chance = random.Random(seed)
    hits, before = 0, {}
    while hits < kills:
        process = start(grid[0], folder)
        time.sleep(chance.uniform(3, 12))
        target = chance.choice(["parent", "worker", "both"])
        pids = workers_of(process)
        if process.poll() is not None:
            break
        chosen = {"parent": pids[-1:], "worker": pids[:1], "both": pids}[target]
        for pid in chosen:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        hits += 1
        if target == "worker":
            # The parent has survived and goes on; the next one comes while it still runs, or after it was done.
            time.sleep(chance.uniform(0, 4))
            for pid in workers_of(process):
                os.kill(pid, signal.SIGKILL)
        process.wait()
        now = stamps(folder)
        assert {path: now.get(path) for path in before} == before, "what was finished was run again"
        before = now
    return hits


def test_killed_at_random_it_ends_as_if_nothing_had_happened(undisturbed: Grid, tmp_path: Path) -> None:
    kill_at_random(undisturbed, tmp_path / "results", KILLS_IN_CI, seed=0)
    done = kdbench(*undisturbed[0], "--out", str(tmp_path / "results"))
    assert done.returncode == 0, done.stdout + done.stderr
    check_equal(tmp_path / "results", undisturbed[1])


@pytest.mark.bench
def test_killed_at_many_random_moments(undisturbed: Grid, tmp_path: Path) -> None:
    """As often as the hits come together, in as many folders as that takes."""
    hits, number = 0, 0
    while hits < KILLS:
        folder = tmp_path / str(number)
        hits += kill_at_random(undisturbed, folder, KILLS - hits, seed=number)
        done = kdbench(*undisturbed[0], "--out", str(folder))
        assert done.returncode == 0, done.stdout + done.stderr
        check_equal(folder, undisturbed[1])
        number += 1
    print(f"{hits} kills in {number} folders: records, weights and reports are those of the undisturbed run")


def test_ctrl_c_checkpoints_and_the_same_command_goes_on(undisturbed: Grid, tmp_path: Path) -> None:
    folder = tmp_path / "results"
    process = start(grid_without_timed_checkpoints(undisturbed), folder, tmp_path / "said")
    wait_for_progress(folder, process)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=60) == 130
    begun = len({path.name.partition("@")[0] for path in (folder / "unfinished").rglob("*.pt")})
    assert begun, "it was stopped within a training"
    planned, ended = len(Results(folder).manifest()["cells"]), len(stamps(folder))
    said = " ".join((tmp_path / "said").read_text().split())
    assert "accuracy: stopped after" in said
    assert f"stopped: {ended} of {planned} cells have ended, {begun} go on from a checkpoint" in said
    done = kdbench(*undisturbed[0], "--out", str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    check_equal(folder, undisturbed[1])


def grid_without_timed_checkpoints(undisturbed: Grid) -> list[str]:
    return [word if word != "0.2s" else "1h" for word in undisturbed[0]]


def wait_for_progress(folder: Path, process: subprocess.Popen[bytes]) -> None:
    """Until some cells are locked and have been for a while."""
    deadline = time.monotonic() + 120
    while not list((folder / "unfinished").rglob("*.lock")) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(5)
    assert process.poll() is None


def test_two_runs_in_one_folder_share_the_work(undisturbed: Grid, tmp_path: Path) -> None:
    folder = tmp_path / "results"
    first, second = (start([*undisturbed[0], "--workers", "1"], folder) for _ in range(2))
    seen: dict[Path, set[int]] = {}
    while first.poll() is None or second.poll() is None:
        for path, stamp in stamps(folder).items():
            seen.setdefault(path, set()).add(stamp)
        time.sleep(0.05)
    assert (first.returncode, second.returncode) == (0, 0)
    assert len(seen) == len(records(folder)) and all(len(written) == 1 for written in seen.values())
    done = kdbench(*undisturbed[0], "--out", str(folder))
    assert "0 to run" in " ".join(done.stdout.split())
    check_equal(folder, undisturbed[1])


def test_a_budget_starts_nothing_new(undisturbed: Grid, tmp_path: Path) -> None:
    folder = tmp_path / "results"
    done = kdbench(*undisturbed[0], "--out", str(folder), "--budget", "2s", "--workers", "1")
    assert done.returncode == 2
    assert "the budget is spent" in done.stdout
    assert {cell["status"] for cell in Results(folder).cells()} == {"done"}, "what runs is finished"
    assert 0 < len(records(folder)) < len(records(undisturbed[1]))


def test_a_lock_is_one_holders_and_goes_with_it(tmp_path: Path) -> None:
    lock = tmp_path / "a" / "one.lock"
    assert not is_claimed(lock)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdout.readline() == "1\n"
    assert is_claimed(lock)
    with claimed([lock, lock.with_name("two.lock")]) as held:
        assert held == [lock.with_name("two.lock")]
    holder.kill()
    holder.wait()
    assert lock.exists() and not is_claimed(lock)
    with claimed([lock]) as held:
        assert held == [lock]
    assert not lock.exists()
