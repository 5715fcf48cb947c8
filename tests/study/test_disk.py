"""Disks that are full, cannot be written or go away in the middle: no torn record, one line each, and the same command
ends it when the disk is well again. On file systems of their own, where this process may mount them."""

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kdbench.results.folder import Results
from tests.support.command import COMMAND, kdbench

pytestmark = pytest.mark.runs

Short = Callable[..., Path]


def mount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", folder], check=True, capture_output=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        mount(folder, "size=300k")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=False, capture_output=True)


@pytest.fixture(scope="module")
def arguments(short_suite: Short) -> list[str]:
    few = ["--pairs", "vit-t:resnet-s", "--seeds", "1", "--methods", "kd", "--limit", "250,300", "--device", "cpu"]
    quick = ["--no-throughput", "--no-report", "--checkpoint-every", "0s"]
    return ["run", "--suite", str(short_suite(2)), *few, *quick]


@pytest.fixture(scope="module")
def accuracies(arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    folder = tmp_path_factory.mktemp("well") / "results"
    assert kdbench(*arguments, "--out", folder).returncode == 0
    return top1(folder)


def top1(folder: Path) -> dict[str, float]:
    """By method; every record is whole, or reading it fails."""
    return {cell["method"]: cell["top1"] for cell in Results(folder).cells() if "top1" in cell}


def test_a_full_disk(arguments: list[str], accuracies: dict[str, float], disk: Path) -> None:
    folder = disk / "results"
    done = kdbench(*arguments, "--out", folder)
    assert done.returncode == 2
    output = done.stdout + done.stderr
    assert "No space left on device; free space or choose --out" in output and "Traceback" not in output
    assert "no checkpoint:" in output, "a checkpoint that cannot be written does not end the training"
    assert set(top1(folder)) < set(accuracies)
    assert not list(folder.rglob("*.part"))
    mount(disk, "remount,size=50m")
    assert kdbench(*arguments, "--out", folder).returncode == 0
    assert top1(folder) == accuracies


def test_a_disk_that_cannot_be_written(arguments: list[str], accuracies: dict[str, float], disk: Path) -> None:
    mount(disk, "remount,ro,size=50m")
    done = kdbench(*arguments, "--out", disk / "results")
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1 and "Read-only file system; free space or choose --out" in done.stderr
    mount(disk, "remount,rw")
    assert kdbench(*arguments, "--out", disk / "results").returncode == 0
    assert top1(disk / "results") == accuracies


def test_a_disk_that_goes_away(arguments: list[str], accuracies: dict[str, float], disk: Path) -> None:
    mount(disk, "remount,size=50m")
    folder = disk / "results"
    process = subprocess.Popen(
        [*COMMAND, *arguments, "--out", str(folder)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    while not list(folder.rglob("*.pt")) and process.poll() is None:
        time.sleep(0.05)
    subprocess.run(["umount", "-l", disk], check=True)
    disk.chmod(0o500)
    output, _ = process.communicate(timeout=120)
    assert process.returncode in (0, 2), output
    assert "Traceback" not in output
    assert kdbench(*arguments, "--out", folder).returncode == 0
    assert top1(folder) == accuracies
