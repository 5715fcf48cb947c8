"""What workers are forked off."""

import subprocess
import sys
from pathlib import Path

import pytest

from kdbench.study.engine import PRELOADED
from tests.command import kdbench

CODE = """
import threading, torch

def opened(*arguments, **options):
    raise AssertionError("a device is opened")

for name in ("init", "is_available", "device_count", "current_device", "get_device_properties", "synchronize"):
    setattr(torch.cuda, name, opened)
import {modules}
assert threading.active_count() == 1, threading.enumerate()
"""


def test_what_is_imported_before_the_fork_opens_no_device() -> None:
    code = CODE.format(modules=", ".join(PRELOADED))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_cluster_is_asked_for_and_ray_is_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "kdbench.study.ray_engine", raising=False)
    done = kdbench("run", "--engine", "ray", "--out", tmp_path, "--device", "cpu")
    assert done.returncode == 3 and not list(tmp_path.iterdir())
    assert done.stderr.count("\n") == 1 and "pip install 'kdbench[ray]'" in done.stderr
