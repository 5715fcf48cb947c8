"""Whole runs in worker processes, on the proxy's real data, models and teachers, one epoch each."""

import json
import shutil
import subprocess
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from timm.models.mlp_mixer import MlpMixer

from kdbench.compute.device import Compute
from kdbench.data.normalise import normalise
from kdbench.results.folder import CellId, Results
from kdbench.results.schema import CellRecord
from kdbench.suites.loading import load_suite
from kdbench.suites.schema import Suite
from kdbench.training.arena import Arena
from kdbench.training.teacher import new_model
from kdbench.weights.files import load_weights
from tests.conftest import NO_DATA
from tests.support.command import kdbench
from tests.support.course import METHODS

pytestmark = pytest.mark.runs

Short = Callable[..., Path]
THREE = "vit-t:resnet-s,vit-t:vit-s,resnet-t:mixer-s"
FIVE = ["--methods", ",".join(METHODS)]
GROUP = ["--pairs", "vit-t:resnet-s", "--seeds", "1"]


def run(folder: Path, suite: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return kdbench("run", "--suite", str(suite), "--out", str(folder), "--device", "cpu", *arguments)


def records(folder: Path) -> dict[tuple[str, str, int], CellRecord]:
    return {(cell["pair"], cell["method"], cell["seed"]): cell for cell in Results(folder).cells()}


def deterministic(cell: CellRecord) -> dict[str, object]:
    return {name: value for name, value in cell.items() if name not in ("seconds", "environment", "date")}


@pytest.fixture(scope="module")
def finished(short_suite: Short, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run of five methods on three pairs with two seeds, its folder and its suite."""
    folder, suite = tmp_path_factory.mktemp("run") / "results", short_suite()
    done = run(folder, suite, *FIVE, "--pairs", THREE, "--seeds", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, suite


def test_every_planned_cell_has_a_record(finished: tuple[Path, Path]) -> None:
    folder, _ = finished
    manifest = Results(folder).manifest()
    cells = list(Results(folder).cells())
    assert len(manifest["cells"]) == 3 * 5 * 2
    assert {cell["key"] for cell in manifest["cells"]} == {cell["key"] for cell in cells}
    for cell in cells:
        assert cell["status"] == "done"
        bits = np.unpackbits(np.frombuffer(b64decode(cell["correct"]), dtype=np.uint8))
        assert cell["evaluated"] == 2000
        assert 100 * bits[:2000].mean() == pytest.approx(cell["top1"])
        assert cell["top1"] <= cell["top5"] <= 100
        # The learning curve is of the images that the suite reserves; the test split was read once, at the end.
        assert cell["reads"] == {"test": 1, "val": 1}
        assert cell["curves"]["eval_split"] == "val" and len(cell["curves"]["eval_top1"]) == 1
        assert "best_top1" not in cell
        assert cell["environment"] in Results(folder).environments()
    assert {m["key"] for m in manifest["throughput"]} == {record["key"] for record in Results(folder).throughput()}


def test_throughput_records_add_up(finished: tuple[Path, Path]) -> None:
    folder, _ = finished
    for record in Results(folder).throughput():
        assert record["status"] == "done", record["error"]
        assert len(record["blocks"]) == len(record["control_blocks"]) == len(record["baseline_blocks"]) == 3
        assert (record["phases"]["teacher"] > 1e-4) is (record["role"] != "control")
        assert record["flops"]["train"] == 3 * record["flops"]["student"] + record["flops"]["teacher"]


def test_the_report_is_there(finished: tuple[Path, Path]) -> None:
    report = finished[0] / "report"
    assert (report / "report.md").is_file()
    for name in ("gains", "tradeoff", "curves", "phases"):
        assert (report / "figures" / f"{name}.svg").stat().st_size > 5000


def test_running_again_starts_nothing(finished: tuple[Path, Path]) -> None:
    folder, suite = finished
    before = {path: path.stat().st_mtime_ns for path in (folder / "cells").rglob("*.json")}
    done = run(folder, suite, *FIVE, "--pairs", THREE, "--seeds", "2", "--no-report")
    assert done.returncode == 0
    assert "30 finished, 0 to run" in " ".join(done.stdout.split())
    assert before == {path: path.stat().st_mtime_ns for path in (folder / "cells").rglob("*.json")}


def test_only_what_is_missing_runs_and_comes_out_the_same(finished: tuple[Path, Path], tmp_path: Path) -> None:
    """A lost cell is trained alone now; it was trained beside four others before."""
    folder, suite = finished
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    before = records(copy)
    lost = ("vit-t:resnet-s", "ofa", 1)
    Results(copy).record_path(CellId(*lost, before[lost]["key"])).unlink()
    done = run(copy, suite, *FIVE, "--pairs", THREE, "--seeds", "2", "--no-report")
    assert "29 finished, 1 to run" in " ".join(done.stdout.split()), done.stdout + done.stderr
    after = records(copy)
    assert {place: deterministic(cell) for place, cell in after.items()} == {
        place: deterministic(cell) for place, cell in before.items()
    }


def test_students_load_in_plain_timm(finished: tuple[Path, Path], cpu: Compute) -> None:
    folder, suite_file = finished
    suite = load_suite(str(suite_file))
    for (pair, _, seed), cell in records(folder).items():
        path = folder / str(cell["checkpoint"])
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = {name: json.loads(text) for name, text in file.metadata().items()}
        if metadata["timm"].startswith("mixer"):
            # timm's entry point refuses overrides of what it sets itself; the class behind it takes them.
            plain = MlpMixer(**metadata["arguments"])
        else:
            plain = timm.create_model(metadata["timm"], **metadata["arguments"])
        plain.load_state_dict(safetensors.torch.load_file(path))
        arena = Arena.enter(suite, suite.select_pairs(pair)[0], seed, "test", cpu, NO_DATA)
        ours = new_model(suite, cell["student"]["name"], 10, cpu)
        load_weights(path, ours.model)
        raw, labels = next(arena.evaluation.batches(200))
        images = normalise(raw, ours.normalisation)
        with torch.no_grad():
            theirs = plain.eval()(images)
            torch.testing.assert_close(ours.eval()(images).logits, theirs, rtol=1e-5, atol=1e-5)
        bits = np.unpackbits(np.frombuffer(b64decode(cell["correct"]), dtype=np.uint8))[:200]
        agree = (theirs.argmax(dim=1) == labels).numpy() == bits.astype(bool)
        assert agree.mean() > 0.99, "the checkpoint is the evaluated student"


PLUGIN = '''
from torch import Tensor
from kdbench.method import Batch, Method, Outputs
from tests.conftest import NO_DATA
from tests.support.course import METHODS

class {name}(Method):
    """{name}."""

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        {body}
        return {{"ce": batch.cross_entropy(student.logits)}}
'''


def _plugin(folder: Path, name: str, body: str) -> Path:
    path = folder / f"{name.lower()}.py"
    path.write_text(PLUGIN.format(name=name, body=body))
    return path


def test_a_file_takes_part_and_a_failing_one_harms_nobody(short_suite: Short, tmp_path: Path) -> None:
    good = _plugin(tmp_path, "Good", "pass")
    late = _plugin(tmp_path, "Late", "assert batch.progress < 0.5, 'gave up half way'")
    nan = _plugin(tmp_path, "Nan", "student.logits.mul_(float('nan') if batch.progress > 0.5 else 1.0)")
    picky = (
        _plugin(tmp_path, "Picky", "pass")
        .read_text()
        .replace(
            "    def forward",
            "    def build(self, pair):\n"
            "        from kdbench.method import UnsupportedPair\n"
            "        raise UnsupportedPair('needs a teacher that sings')\n\n    def forward",
        )
    )
    (tmp_path / "picky.py").write_text(picky)
    wrong = _plugin(tmp_path, "Wrong", "return {'ce': student.logits}")
    shifty = _plugin(tmp_path, "Shifty", "if batch.progress > 0.5: return {'other': student.logits.sum()}")
    suite, folder = short_suite(), tmp_path / "results"
    files = ",".join(map(str, (good, late, nan, tmp_path / "picky.py", wrong, shifty)))
    done = run(folder, suite, *GROUP, "--methods", f"kd,{files}", "--no-throughput")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    by_method = {method: cell for (_, method, _), cell in records(folder).items()}
    assert {name: cell["status"] for name, cell in by_method.items()} == {
        "scratch": "done",
        "kd": "done",
        "good": "done",
        "late": "failed",
        "nan": "diverged",
        "picky": "unsupported",
        "wrong": "failed",
        "shifty": "failed",
    }
    assert "the loss terms changed within an epoch" in str(by_method["shifty"]["error"])
    assert "gave up half way" in str(by_method["late"]["error"])
    assert by_method["picky"]["error"] == "needs a teacher that sings"
    assert "must be a scalar tensor" in str(by_method["wrong"]["error"])
    assert by_method["good"]["curves"]["loss"]["ce"] == by_method["scratch"]["curves"]["loss"]["ce"]


def test_settings_make_other_cells(finished: tuple[Path, Path], tmp_path: Path) -> None:
    folder, suite = finished
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    done = run(copy, suite, *GROUP, "--methods", "kd", "--set", "kd.kd_weight=0", "--no-throughput", "--no-report")
    assert "1 finished, 1 to run" in " ".join(done.stdout.split()), done.stdout
    cells = [
        cell for cell in Results(copy).cells() if cell["method"] == "kd" and cell["hyperparameters"]["kd_weight"] == 0
    ]
    scratch = records(copy)["vit-t:resnet-s", "scratch", 0]
    assert [cell["top1"] for cell in cells] == [scratch["top1"]], "without its term it is the control"


def test_teachers_can_be_trained(short_suite: Short, tmp_path: Path, cpu: Compute) -> None:
    suite = short_suite(
        text=lambda text: text.replace('teacher_source = "fashion-mnist"\n', "").replace("epochs = 6", "epochs = 1")
    )
    data = tmp_path / "data"
    done = kdbench("teachers", "train", "--suite", str(suite), "--only", "resnet-t", "--data", str(data), "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = json.loads(done.stdout)
    assert row["top1"] > 50
    assert row["trained_on"] == "fashion-mnist-5k2k"
    mine = load_suite(str(suite))
    arena = Arena.enter(mine, mine.select_pairs("resnet-t:swin-s")[0], 0, "test", cpu, data)
    assert arena.teacher_record["sha256"] == row["sha256"]


def test_a_damaged_teacher_is_refused(proxy: Suite, short_suite: Short, tmp_path: Path) -> None:
    teachers = tmp_path / "teachers" / "proxy"
    shutil.copytree(proxy.own_teachers(proxy.folder), teachers)
    content = bytearray((teachers / "vit-t.safetensors").read_bytes())
    content[-1000] ^= 1
    (teachers / "vit-t.safetensors").write_bytes(content)
    folder = tmp_path / "results"
    one = [*GROUP, "--methods", "kd", "--no-throughput", "--no-report", "--data", str(tmp_path)]
    done = run(folder, short_suite(), *one)
    assert done.returncode == 2
    assert "its weights are not those it was written with" in done.stdout
    assert {cell["status"] for cell in Results(folder).cells()} == {"failed"}


def test_validation_split_is_held_out(short_suite: Short, tmp_path: Path) -> None:
    folder = tmp_path / "results"
    done = run(folder, short_suite(), *GROUP, "--methods", "kd", "--split", "val", "--no-throughput", "--no-report")
    assert done.returncode == 0, done.stdout + done.stderr
    for cell in Results(folder).cells():
        assert (cell["split"], cell["evaluated"]) == ("val", 4000)
