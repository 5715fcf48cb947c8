"""Fairness of whole runs: what a late cheat costs, the open division in the records."""

from pathlib import Path

import pytest

from kdbench.results.folder import Results
from tests.study.test_run import GROUP, Short, _plugin, records, run

pytestmark = pytest.mark.runs


def test_a_method_that_changes_the_teacher_late_voids_the_group(short_suite: Short, tmp_path: Path) -> None:
    body = "if batch.progress > 0.5: next(self.pair.teacher.parameters()).data.mul_(1.01)"
    sly = _plugin(tmp_path, "Sly", body)
    done = run(tmp_path / "results", short_suite(), *GROUP, "--methods", f"kd,{sly}", "--no-throughput", "--no-report")
    assert done.returncode == 2, done.stdout + done.stderr
    cells = records(tmp_path / "results")
    assert {cell["status"] for cell in cells.values()} == {"failed"}
    (error,) = {str(cell["error"]) for cell in cells.values()}
    assert error.startswith("the teacher of vit-t:resnet-s was changed during the training, so none of it counts")


def test_a_method_that_breaks_a_rule_at_once_harms_nobody(short_suite: Short, tmp_path: Path) -> None:
    rude = _plugin(tmp_path, "Rude", "teacher.logits.mul_(0); next(self.pair.teacher.parameters()).data.mul_(2)")
    arguments = [*GROUP, "--no-throughput", "--no-report"]
    done = run(tmp_path / "beside", short_suite(), *arguments, "--methods", f"kd,{rude}")
    assert done.returncode == 2, done.stdout + done.stderr
    assert run(tmp_path / "alone", short_suite(), *arguments, "--methods", "kd").returncode == 0
    beside, alone = records(tmp_path / "beside"), records(tmp_path / "alone")
    failed = beside.pop(("vit-t:resnet-s", "rude", 0))
    assert failed["error"] == "self-check 'teacher is frozen': the values of model.pos_embed changed"
    assert {place: cell["curves"]["loss"] for place, cell in beside.items()} == {
        place: cell["curves"]["loss"] for place, cell in alone.items()
    }


def test_the_open_division_is_recorded(short_suite: Short, tmp_path: Path) -> None:
    path = _plugin(tmp_path, "Opened", "pass")
    text = path.read_text().replace("    def forward", '    differs = "starts from elsewhere"\n\n    def forward')
    init = "    def build(self, pair):\n        next(pair.student.parameters()).data.mul_(2)\n\n"
    path.write_text(text.replace("    def forward", init + "    def forward"))
    done = run(tmp_path / "results", short_suite(), *GROUP, "--methods", f"kd,{path}", "--no-throughput")
    assert done.returncode == 0, done.stdout + done.stderr
    cells = records(tmp_path / "results")
    assert {method: cell.get("differs") for (_, method, _), cell in cells.items()} == {
        "scratch": None,
        "kd": None,
        "opened": "starts from elsewhere",
    }
    assert Results(tmp_path / "results").manifest().get("differs") == {"opened": "starts from elsewhere"}
    assert "| starts from elsewhere |" in (tmp_path / "results/report/report.md").read_text()


def test_the_best_epoch_is_known_where_it_is_asked_for(short_suite: Short, tmp_path: Path) -> None:
    """--best reads the test split every epoch and changes nothing else; without a reserved split there is no curve."""
    suite = short_suite(3)
    arguments = [*GROUP, "--methods", "kd", "--limit", "250,300", "--no-throughput", "--no-report"]
    for folder, *extra in (["once"], ["best", "--best"], ["val", "--split", "val"]):
        assert run(tmp_path / folder, suite, *arguments, *extra).returncode == 0
    once, best, val = (records(tmp_path / folder)["vit-t:resnet-s", "kd", 0] for folder in ("once", "best", "val"))
    assert once["reads"] == {"test": 1, "val": 2}
    assert best["reads"] == {"test": 2}
    assert val["reads"] == {"val": 2}
    assert "best_top1" not in once
    assert best["best_top1"] == max(best["curves"]["eval_top1"]) and best["curves"]["eval_split"] == "test"
    assert (once["top1"], once["correct"]) == (best["top1"], best["correct"])
    # Of the same images after the same training: the curve of the one is that of the other.
    assert once["curves"]["eval_top1"] == val["curves"]["eval_top1"]
    assert val["best_top1"] == max(val["curves"]["eval_top1"])
    assert once["key"] != best["key"]
    all_train = suite.with_name("all.toml")
    all_train.write_text(suite.read_text().replace("reserve_holdout = true", "reserve_holdout = false"))
    assert run(tmp_path / "all", all_train, *arguments).returncode == 0
    cell = records(tmp_path / "all")["vit-t:resnet-s", "kd", 0]
    assert cell["reads"] == {"test": 1}
    assert cell["curves"]["eval_epoch"] == cell["curves"]["eval_top1"] == []
    assert len(cell["curves"]["loss"]["kd"]) == 3
