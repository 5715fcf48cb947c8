"""Whatever a plug-in does to its worker: it is closed with the fitting status, and all other cells are those of a clean
run."""

from collections.abc import Callable
from pathlib import Path

import pytest

from kdbench.results.folder import Results
from kdbench.results.schema import CellRecord
from tests.support.command import kdbench

pytestmark = pytest.mark.runs

Short = Callable[..., Path]
Clean = tuple[Path, dict[str, CellRecord]]

PLUGIN = """
import os, time
import torch
from kdbench.method import Batch, Method, Outputs, Pair
from torch import Tensor, nn

class Bad(Method):
    def build(self, pair: Pair) -> None:
        self.weight = nn.Parameter(torch.ones(()))
        {build}

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        # The self-check is passed: what is bad comes later.
        late = batch.progress > 0.5
        ce = self.weight * batch.cross_entropy(student.logits)
        {forward}
        return {{"ce": ce}}


class Backward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        raise ArithmeticError("nothing comes back")
"""

FAULTS = {
    "raises in build": (("raise ArithmeticError('no such thing')", "pass"), "failed", "no such thing"),
    "raises in the loss": (("pass", "assert not late, 'gave up half way'"), "failed", "gave up half way"),
    "raises in backward": (("pass", "ce = Backward.apply(ce) if late else ce"), "failed", "nothing comes back"),
    "returns nan": (("pass", "ce = ce * float('nan') if late else ce"), "diverged", "became non-finite"),
    "returns a wrong shape": (
        ("pass", "ce = ce.expand(2) if late else ce"),
        "failed",
        "grad can be implicitly created",
    ),
    "sleeps for ever": (("pass", "late and time.sleep(1e6)"), "timeout", "nothing came back for"),
    "takes too long": (("pass", "time.sleep(1)"), "timeout", "it took more than 8 seconds"),
    "ends the process": (("pass", "late and os._exit(7)"), "failed", "exit code 7 at bad, for the second time"),
    "ends the process in build": (("os._exit(7)", "pass"), "failed", "exit code 7 at bad, for the second time"),
    "is killed": (("pass", "late and os.kill(os.getpid(), 9)"), "failed", "SIGKILL, perhaps for want of memory at bad"),
    "finds no memory": (("pass", "late and torch.ones(2**45)"), "oom", "can't allocate memory"),
}


def run(folder: Path, suite: Path, methods: str) -> tuple[int, str, dict[str, CellRecord]]:
    """Exit code, output and records by method of a run of a group."""
    few = ["--pairs", "vit-t:resnet-s", "--seeds", "1", "--limit", "250,300", "--no-throughput", "--no-report"]
    care = ["--time-limit", "8s", "--checkpoint-every", "0s", "--device", "cpu"]
    done = kdbench("run", "--suite", str(suite), "--out", str(folder), "--methods", methods, *few, *care)
    assert "Traceback" not in done.stderr + done.stdout
    return done.returncode, done.stdout + done.stderr, {cell["method"]: cell for cell in Results(folder).cells()}


@pytest.fixture(scope="module")
def clean(short_suite: Short, tmp_path_factory: pytest.TempPathFactory) -> Clean:
    """A suite, and the records of a run that nothing disturbs."""
    suite = short_suite(2)
    code, output, cells = run(tmp_path_factory.mktemp("clean") / "results", suite, "kd,fitnet")
    assert code == 0, output
    return suite, cells


def check(clean: Clean, folder: Path, plugin: Path, status: str, error: str) -> None:
    suite, expected = clean
    code, output, cells = run(folder, suite, f"kd,fitnet,{plugin}")
    assert code == 2, output
    assert error in str(cells["bad"]["error"])
    statuses = {name: cell["status"] for name, cell in cells.items()}
    assert statuses == {"scratch": "done", "kd": "done", "fitnet": "done", "bad": status}
    for name, cell in expected.items():
        cells[name].update(seconds=cell["seconds"], date=cell["date"])
        assert cells[name] == cell
    assert not [path for path in (folder / "unfinished").rglob("*") if path.is_file()]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_plugin_harms_nobody_else(clean: Clean, fault: str, tmp_path: Path) -> None:
    (build, forward), status, error = FAULTS[fault]
    plugin = tmp_path / "bad.py"
    plugin.write_text(PLUGIN.format(build=build, forward=forward))
    check(clean, tmp_path / "results", plugin, status, error)


def test_a_plugin_that_allocates_until_it_is_killed(clean: Clean, tmp_path: Path) -> None:
    """By the system's own killer, in a memory cgroup of its own."""
    group = Path("/sys/fs/cgroup/memory/kdbench-test")
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(2**30))
    except OSError as error:
        pytest.skip(f"no memory cgroup can be made here: {error}")
    try:
        enter = f"(late and open('{group}/cgroup.procs', 'w').write(str(os.getpid())))"
        forward = f"{enter}; hoard = [torch.ones(2**24) for _ in range(200 * late)]"
        plugin = tmp_path / "bad.py"
        plugin.write_text(PLUGIN.format(build="pass", forward=forward))
        check(clean, tmp_path / "results", plugin, "failed", "SIGKILL, perhaps for want of memory at bad")
    finally:
        group.rmdir()


def test_what_failed_is_tried_again(clean: Clean, tmp_path: Path) -> None:
    suite, _ = clean
    folder, plugin = tmp_path / "results", tmp_path / "bad.py"
    plugin.write_text(PLUGIN.format(build="pass", forward="late and os._exit(7)"))
    assert run(folder, suite, f"kd,{plugin}")[0] == 2
    plugin.write_text(PLUGIN.format(build="pass", forward="pass"))
    code, output, _ = run(folder, suite, f"kd,{plugin}")
    assert code == 0, output
