"""A race drops what is shown worse, keeps the records ordinary, and a full run fills the gaps."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from kdbench.results.folder import Results
from tests.support.command import kdbench

AWRY = """
from kdbench.method import Batch, Method, Outputs
from torch import Tensor
from torch.nn import functional as F


class Awry(Method):
    \"\"\"Learns the label after the right one.\"\"\"

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        classes = student.logits.shape[1]
        return {"ce": F.cross_entropy(student.logits, (batch.labels + 1) % classes)}
"""


@pytest.mark.runs
def test_a_race(short_suite: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "awry.py").write_text(AWRY)
    grid = ["run", "--suite", short_suite(2), "--pairs", "resnet-t:resnet-s", "--methods", f"{tmp_path}/awry.py,dist"]
    where = ["--seeds", "4", "--limit", "500,500", "--no-throughput", "--out", tmp_path / "out"]
    done = kdbench(*grid, *where, "--race")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "dropped: awry; 1 method goes on" in done.stdout
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    rounds = manifest["race"]["dropped"]["awry"]
    seeds = [cell["seed"] for cell in manifest["cells"] if cell["method"] == "awry"]
    assert rounds == 3 and seeds == [0, 1, 2], "no round is trained after a single other method is left"
    report = (tmp_path / "out" / "report" / "report.md").read_text()
    assert "Dropped in the race after 3 seeds, shown worse than the best: awry" in report
    before = {record["key"] for record in Results(tmp_path / "out").cells()}

    again = kdbench(*grid, *where, "--race")
    assert "0 to run" in " ".join(again.stdout.split())
    whole = kdbench(*grid, *where)
    assert whole.returncode == 0 and "12 finished, 4 to run" in " ".join(whole.stdout.split())
    after = [record for record in Results(tmp_path / "out").cells() if record["status"] == "done"]
    assert before < {record["key"] for record in after} and len(after) == 16
    assert "race" not in json.loads((tmp_path / "out" / "manifest.json").read_text())


def test_it_is_about_all_cells(tmp_path: Path) -> None:
    done = kdbench("run", "--race", "--shard", "1/2", "--out", tmp_path)
    assert done.returncode == 3 and "without --shard" in done.stderr
