"""`kdbench plan`: what a run needs before it runs, what is missing for it, and a plan frozen in a file."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from kdbench.preview.frozen import read_frozen
from kdbench.results.folder import Results
from tests.support.command import kdbench

Short = Callable[..., Path]
FEW = ("--pairs", "resnet-t:mixer-s,mixer-t:resnet-s", "--methods", "kd,ofd", "--seeds", "2")


def test_what_is_missing_is_told_with_what_to_do(tmp_path: Path) -> None:
    """Without training data there is one line; with data, one for each teacher."""
    done = kdbench("plan", "--suite", "cifar100", "--data", tmp_path)
    assert done.returncode == 2 and done.stdout.startswith("missing: ") and str(tmp_path) in done.stdout


def test_a_frozen_plan_is_run_and_told(tmp_path: Path) -> None:
    small = ("--epochs", "1", "--limit", "100,100")
    done = kdbench("plan", "--freeze", "mine.json", *FEW, *small, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    frozen = read_frozen(tmp_path / "mine.json")
    assert (frozen.seeds, list(frozen.methods), len(frozen.pairs)) == ([0, 1], ["scratch", "kd", "ofd"], 2)
    again = kdbench("plan", "--freeze", "mine.json", *FEW, cwd=tmp_path)
    assert again.returncode == 3 and "a frozen plan is never changed" in again.stderr


def test_what_has_changed_since_is_refused(tmp_path: Path) -> None:
    method = tmp_path / "mine.py"
    method.write_text(
        "from kdbench.method import Method\n\n\nclass Mine(Method):\n    weight: float = 1.0\n\n"
        "    def forward(self, student, teacher, batch):\n"
        "        return {'ce': self.weight * batch.cross_entropy(student.logits)}\n"
    )
    words = ("--methods", "kd,./mine.py", "--pairs", "resnet-t:mixer-s", "--seeds", "1")
    assert kdbench("plan", "--freeze", "plan.json", *words, cwd=tmp_path).returncode == 0
    method.write_text(method.read_text().replace("1.0", "2.0"))
    done = kdbench("run", "--plan", "plan.json", cwd=tmp_path)
    assert done.returncode == 3 and "these have changed: method mine; go back" in done.stderr
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--plan none.json", "there is no plan none.json"),
        ("--plan plan.json --methods kd", "--plan says what to run"),
        ("--plan plan.json", "was changed after it was frozen"),
    ],
)
def test_mistakes_with_a_plan_are_one_line(words: str, message: str, tmp_path: Path) -> None:
    assert kdbench("plan", "--freeze", "plan.json", *FEW, cwd=tmp_path).returncode == 0
    content = json.loads((tmp_path / "plan.json").read_text())
    (tmp_path / "plan.json").write_text(json.dumps(content | {"seeds": [0]}))
    done = kdbench("run", *words.split(), cwd=tmp_path)
    assert done.returncode == 3 and message in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.runs
def test_the_estimate_is_of_the_size_of_the_truth(short_suite: Short, tmp_path: Path) -> None:
    words = ("--suite", short_suite(4), *FEW, "--out", tmp_path / "results", "--device", "cpu")
    done = kdbench("plan", *words, "--json")
    assert done.returncode == 0, done.stderr
    needs = json.loads(done.stdout)
    assert (needs["cells"], needs["finished"], needs["workers"]) == (12, 0, 2)
    assert list(needs["pairs"][1]["failed"]) == ["ofd"], "the margin of OFD wants a batch norm"
    done = kdbench("run", *words, "--no-throughput", "--no-report", "--workers", "2")
    assert done.returncode == 0, done.stderr
    records = [cell for cell in Results(tmp_path / "results").cells() if cell["status"] == "done"]
    groups = {(cell["pair"], cell["seed"]): cell["seconds"]["group"] for cell in records if "seconds" in cell}
    # Other tests run beside it.
    assert 0.25 < needs["seconds"]["accuracy"] * 2 / sum(groups.values()) < 4
    files = sum(path.stat().st_size for path in (tmp_path / "results").rglob("*") if path.suffix != ".lock")
    assert 0.5 < needs["disk"] / files < 2
    done = kdbench("plan", *words, "--json")
    assert json.loads(done.stdout)["finished"] == 12


@pytest.mark.runs
def test_a_run_keeps_to_its_plan(tmp_path: Path) -> None:
    small = ("--epochs", "1", "--limit", "100,100")
    assert kdbench("plan", "--freeze", "mine.json", *FEW, *small, cwd=tmp_path).returncode == 0
    done = kdbench("run", "--plan", "mine.json", "--no-throughput", "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    frozen = read_frozen(tmp_path / "mine.json")
    manifest = Results(tmp_path / "out").manifest()
    assert manifest["frozen"] == {"file": "mine.json", "sha256": frozen.sha256, "created": frozen.created}
    assert set(manifest["pairs"]) == set(frozen.pairs) and manifest["seeds"] == frozen.seeds
    page = (tmp_path / "out" / "report" / "report.md").read_text()
    assert f"sha256 {frozen.sha256[:12]}); all of its cells were run, and no others" in page
