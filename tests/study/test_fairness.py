"""Fairness of whole runs: what a late cheat costs, the open division in the records."""

from pathlib import Path

from kdbench.records import Results
from tests.study.test_run import GROUP, Short, _plugin, records, run


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
