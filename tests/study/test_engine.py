"""What workers are forked off."""

import subprocess
import sys

from kdbench.study.engine import PRELOADED

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
