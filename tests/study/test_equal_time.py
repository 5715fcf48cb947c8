"""`run --equal-time` on the proxy's real data and models: the control is trained on, once for each number of epochs."""

from pathlib import Path

import pytest

from kdbench.results.folder import Results
from tests.study.test_run import Short, records, run

PAIR = "resnet-t:resnet-s"
SLOW = '''
import time
from torch import Tensor
from kdbench.method import Batch, Method, Outputs

class Slow(Method):
    """Takes its time."""

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        time.sleep(0.1)
        return {"ce": batch.cross_entropy(student.logits)}
'''


@pytest.mark.runs
def test_the_control_is_trained_for_as_long(short_suite: Short, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    suite = short_suite(epochs=2)
    arguments = ["--methods", str(tmp_path / "slow.py"), "--pairs", PAIR, "--seeds", "1", "--limit", "100,300"]
    done = run(tmp_path / "results", suite, *arguments, "--equal-time")
    assert done.returncode == 0, done.stdout + done.stderr
    results = Results(tmp_path / "results")
    epochs = results.manifest().get("equal_time", {})[PAIR]
    assert epochs["scratch"] == 2 and epochs["slow"] > 6
    longer = records(results.at_epochs(epochs["slow"]).folder)
    (cell,) = longer.values()
    assert (cell["method"], cell["status"], cell["evaluated"]) == ("scratch", "done", 300)
    assert len(cell.get("curves", {}).get("epoch", [])) == epochs["slow"]
    assert cell["protocol"].endswith(f"+epochs={epochs['slow']}")
    table = (tmp_path / "results/report/report.md").read_text().split("trained for the same time")[1]
    # Slow is the control with a pause, so it falls behind where that may train on.
    gain = records(results.folder)[PAIR, "slow", 0].get("top1", 0.0) - cell.get("top1", 0.0)
    assert f"{gain:+.2f} ({epochs['slow']})" in table
    # Measured ratios are kept, so nothing is trained again.
    times = {path: path.stat().st_mtime_ns for path in results.folder.glob("equal-time/*/cells/**/*.json")}
    assert run(tmp_path / "results", suite, *arguments, "--equal-time").returncode == 0
    assert {path: path.stat().st_mtime_ns for path in results.folder.glob("equal-time/*/cells/**/*.json")} == times


def test_it_goes_by_throughput(short_suite: Short, tmp_path: Path) -> None:
    done = run(tmp_path, short_suite(), "--equal-time", "--no-throughput")
    assert done.returncode == 3
    assert done.stderr.strip().endswith("leave --no-throughput out")
