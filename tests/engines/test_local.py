"""What workers are forked off, the GPUs that they see, and the parent, which sees none."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from kdbench.engines.channel import Channel
from kdbench.engines.display import Display
from kdbench.engines.local import LocalEngine
from kdbench.results.schema import Status
from tests.support.command import kdbench

IMPORTS = """
import threading, torch

def opened(*arguments, **options):
    raise AssertionError("a device is opened")

for name in ("init", "is_available", "device_count", "current_device", "get_device_properties", "synchronize"):
    setattr(torch.cuda, name, opened)
import {modules}
assert threading.active_count() == 1, threading.enumerate()
"""

PARENT = """
import sys
from kdbench.cli.main import main
code = main(sys.argv[1:])
import torch
assert not torch.cuda.is_initialized(), "the parent has opened the GPU"
sys.exit(code)
"""


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=300)


@pytest.mark.runs
def test_what_is_imported_before_the_fork_opens_no_device() -> None:
    done = python(IMPORTS.format(modules="kdbench.study.accuracy, kdbench.study.throughput, kdbench.study.teachers"))
    assert done.returncode == 0, done.stderr


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_parent_of_a_run_opens_no_gpu(short_suite: Callable[..., Path], tmp_path: Path) -> None:
    """Training, throughput and report; a plan that was made, and one that was finished before."""
    grid = ["--pairs", "vit-t:resnet-s", "--seeds", "1", "--methods", "kd", "--limit", "100,100", "--device", "cuda"]
    arguments = ["run", "--suite", str(short_suite()), *grid, "--out", str(tmp_path / "results")]
    for _ in range(2):
        done = python(PARENT, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr


@dataclass(frozen=True)
class Look:
    """A task that tells which GPUs it sees, and waits until all have."""

    folder: Path
    label: str

    weight = 1
    members = ()
    exclusive = False

    def execute(self, channel: Channel) -> tuple[str, ...]:
        (self.folder / self.label).write_text(os.environ["CUDA_VISIBLE_DEVICES"])
        deadline = time.monotonic() + 60
        while len(list(self.folder.iterdir())) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        return ()

    def lost(self, status: Status, error: str) -> None:
        raise AssertionError(error)

    def without(self, member: int, status: Status, error: str) -> None:
        raise AssertionError(error)


def test_workers_are_spread_over_the_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-6")
    tasks = [Look(tmp_path, name) for name in "abc"]
    LocalEngine().run(tasks, workers=3, display=Display(Console(quiet=True), "looks", 3))
    assert sorted(path.read_text() for path in tmp_path.iterdir()) == ["4", "4", "GPU-6"]


@dataclass(frozen=True)
class Late:
    """A task whose first member launches a kernel that fails; the second finds out where nobody waits for kernels."""

    folder: Path
    members: tuple[str, ...] = ("culprit", "innocent")

    label = "late"
    exclusive = False

    @property
    def weight(self) -> int:
        return len(self.members)

    def execute(self, channel: Channel) -> tuple[str, ...]:
        for number, name in enumerate(self.members):
            fails = name == ("culprit" if os.environ.get("CUDA_LAUNCH_BLOCKING") == "1" else "innocent")
            with channel.on_behalf_of(number):
                if fails and "culprit" in self.members:
                    raise torch.AcceleratorError("CUDA error: device-side assert triggered")
            (self.folder / name).write_text("done")
        return ()

    def lost(self, status: Status, error: str) -> None:
        raise AssertionError(error)

    def without(self, member: int, status: Status, error: str) -> "Late":
        (self.folder / self.members[member]).write_text(f"{status}: {error}")
        return replace(self, members=tuple(n for n in self.members if n != self.members[member]))


def test_a_lost_device_is_blamed_on_the_member_whose_kernel_it_was(tmp_path: Path) -> None:
    LocalEngine().run([Late(tmp_path)], workers=1, display=Display(Console(quiet=True), "late", 2))
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "culprit": "failed: the worker lost its device at culprit, for the second time",
        "innocent": "done",
    }


@dataclass(frozen=True)
class Full:
    """A task that finds no memory while no member's code runs."""

    folder: Path
    message: str

    label = "full"
    weight = 1
    members = ("one",)
    exclusive = False

    def execute(self, channel: Channel) -> tuple[str, ...]:
        raise RuntimeError(self.message)

    def lost(self, status: Status, error: str) -> None:
        (self.folder / "lost").write_text(f"{status}: {error}")

    def without(self, member: int, status: Status, error: str) -> None:
        raise AssertionError(error)


def test_a_task_that_finds_no_memory_outside_of_a_turn(tmp_path: Path) -> None:
    message = "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"
    LocalEngine().run([Full(tmp_path, message)], workers=1, display=Display(Console(quiet=True), "full", 1))
    assert (tmp_path / "lost").read_text() == f"oom: {message}"


def test_a_cluster_is_asked_for_and_ray_is_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "kdbench.engines.ray", raising=False)
    done = kdbench("run", "--engine", "ray", "--out", tmp_path, "--device", "cpu")
    assert done.returncode == 3 and not list(tmp_path.iterdir())
    assert done.stderr.count("\n") == 1 and "pip install 'kdbench[ray]'" in done.stderr
