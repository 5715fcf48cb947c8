"""A teacher and students of the user's own, from a Python file and a checkpoint."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from kdbench.results.folder import Results
from tests.support.command import kdbench
from tests.test_anymodel import OWN

Short = Callable[..., Path]


@pytest.mark.runs
def test_from_a_file_and_a_checkpoint_to_records(
    short_suite: Short, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(OWN)
    suite = short_suite(text=lambda text: text.replace('teacher_source = "fashion-mnist"\n', ""))
    where = ("--suite", suite, "--data", "data", "--device", "cpu")
    request = "./mine.py:build:resnet-s,./mine.py:build:resnet10t[layers=[1,1,1,1]]"
    missing = kdbench("run", *where, "--pairs", request)
    assert missing.returncode == 3
    assert f"kdbench teachers train --suite {load_name(suite)} --only ./mine.py:build" in missing.stderr
    done = kdbench("teachers", "train", *where, "--only", "./mine.py:build", "--json")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    assert row["teacher"] == "mine.build" and row["top1"] > 20
    # Somebody's own training script would save it like this.
    torch.save({"state_dict": safetensors.torch.load_file(row["file"])}, "best.pt")
    run = ("run", *where, "--pairs", request, "--teacher-checkpoint", "best.pt", "--out", "out")
    short = ("--methods", "kd", "--seeds", "1", "--no-throughput", "--no-report")
    done = kdbench(*run, *short)
    assert done.returncode == 0, done.stdout + done.stderr
    cells = list(Results(tmp_path / "out").cells())
    assert {cell["pair"] for cell in cells} == {
        "mine.build@best:resnet-s",
        "mine.build@best:resnet10t[layers=[1,1,1,1]]",
    }
    assert {(cell["status"], cell["teacher"]["sha256"]) for cell in cells} == {("done", row["sha256"])}
    stored = tmp_path / "data/teachers/proxy/mine.build@best.safetensors"
    before = stored.stat().st_mtime_ns
    again = kdbench(*run, *short)
    assert "4 finished, 0 to run" in " ".join(again.stdout.split()) and stored.stat().st_mtime_ns == before


def load_name(suite: Path) -> str:
    from kdbench.suites.loading import load_suite

    return load_suite(str(suite)).name
