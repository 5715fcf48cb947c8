"""The process that draws beside the first one: what goes wrong in it is one line."""

import subprocess
import sys

import pytest

SCRIPT = """
import os, signal, time
from kdbench.errors import KdbenchError
from kdbench.report.parallel import together
parent = os.getpid()
def job():
    if os.getpid() == parent:
        time.sleep(1)
    else:
        {fault}
    return 1
try:
    print(together([job] * 3))
except KdbenchError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("pass", "[1, 1, 1]"),
        (
            "raise OSError(28, 'No space left')",
            "has failed: OSError: [Errno 28] No space left; run the same command again",
        ),
        ("os.kill(os.getpid(), signal.SIGKILL)", "has failed: it was ended, as happens where memory is short"),
    ],
    ids=["well", "raises", "killed"],
)
def test_a_fault_of_the_other_process(fault: str, told: str) -> None:
    script = SCRIPT.format(fault=fault)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert told in done.stdout and not done.stderr, done.stdout + done.stderr
