"""Exported students of real cells, loaded by plain timm and by onnxruntime, on the proxy's test images."""

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from huggingface_hub import ModelCard
from numpy.typing import NDArray
from torch import Tensor, nn

from kdbench.compute.device import Compute
from kdbench.data import opening
from kdbench.data.normalise import normalise
from kdbench.errors import KdbenchError
from kdbench.export.cell import find_cell
from kdbench.export.onnx_file import write_onnx
from kdbench.export.student import Student
from kdbench.files import read_json, write_json
from kdbench.models.staged import StagedModel
from kdbench.results.folder import Results
from kdbench.results.schema import CellRecord
from kdbench.suites.schema import Suite
from kdbench.training.evaluate import evaluate
from tests.conftest import NO_DATA
from tests.support.command import kdbench

pytestmark = pytest.mark.runs

PAIRS = {"resnet-s": "vit-t", "vit-s": "vit-t", "swin-s": "resnet-t", "mixer-s": "resnet-t"}
"""Every student of the proxy, with a teacher."""
STUDENTS = list(PAIRS)
OWN = """
from torch import nn


def build(num_classes, in_chans):
    layers = [nn.Conv2d(in_chans, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, num_classes))
"""


@pytest.fixture(scope="module")
def run(short_suite: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with results of every student of the proxy, of SimKD, and of a network of the user's own."""
    folder = tmp_path_factory.mktemp("export")
    (folder / "own.py").write_text(OWN)
    pairs = ",".join(f"{teacher}:{student}" for student, teacher in PAIRS.items())
    few = ["--suite", short_suite(), "--seeds", "1", "--limit", "200,2000", "--device", "cpu"]
    quiet = ["--no-throughput", "--no-report", "--out", "results"]
    done = kdbench("run", *few, *quiet, "--methods", "kd", "--pairs", f"{pairs},vit-t:./own.py:build", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    simkd = kdbench("run", *few, *quiet[:-1], "open", "--methods", "simkd", "--pairs", "vit-t:resnet-s", cwd=folder)
    assert simkd.returncode == 0, simkd.stdout + simkd.stderr
    return folder


@pytest.fixture(scope="module")
def images(proxy: Suite) -> list[tuple[Tensor, Tensor]]:
    """The test split of the proxy as the networks see it, and its labels."""
    split = opening.open_evaluation(proxy.data, NO_DATA, "test", 0.0, 1.0, Compute(torch.device("cpu"), "fp32", 1))
    normalisation = proxy.data.mean, proxy.data.std
    return [(normalise(raw, normalisation), labels) for raw, labels in split.batches(500)]


def export(run: Path, student: str, to: str, *options: object) -> Path:
    out = run / f"{student}-{to}"
    cell = f"{PAIRS[student]}:{student}/kd/0"
    done = kdbench("export", cell, "--results", "results", "--to", to, "--out", out.name, *options, cwd=run)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def trained(run: Path, student: str) -> Student:
    return Student.load(find_cell(f"{PAIRS[student]}:{student}/kd/0", Results(run / "results")))


def correct(record: CellRecord) -> NDArray[np.bool_]:
    """Which test images the student was right about in its own evaluation."""
    bits = np.unpackbits(np.frombuffer(base64.b64decode(record.get("correct", "")), dtype=np.uint8))
    return bits[: record.get("evaluated", 0)].astype(bool)


def check(run: Path, name: str, images: list[tuple[Tensor, Tensor]], answer: Callable[[Tensor], Tensor]) -> None:
    """Logits are the checkpoint's, and the images that `answer` gets right are those of the record."""
    student, right = trained(run, name), []
    with torch.no_grad():
        for batch, labels in images:
            logits = answer(batch)
            assert float((logits - student.model(batch)).abs().max()) <= 1e-5
            right.append((logits.argmax(1) == labels).numpy())
    found = np.concatenate(right)
    assert (found != correct(student.record)).sum() == 0
    assert 100 * found.mean() == pytest.approx(student.record.get("top1"))


@pytest.mark.parametrize("name", STUDENTS)
def test_a_folder_for_timm_answers_as_it_was_measured(
    run: Path, name: str, images: list[tuple[Tensor, Tensor]]
) -> None:
    folder = export(run, name, "timm")
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    check(run, name, images, model)
    wanted = timm.data.resolve_model_data_config(model)  # type: ignore[attr-defined]
    assert wanted["input_size"] == (1, 32, 32)
    assert (tuple(wanted["mean"]), tuple(wanted["std"])) == ((0.286,), (0.353,))


@pytest.mark.parametrize("name", STUDENTS)
def test_onnx_answers_as_it_was_measured(run: Path, name: str, images: list[tuple[Tensor, Tensor]]) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    session = onnxruntime.InferenceSession(export(run, name, "onnx") / "model.onnx")
    check(run, name, images, lambda batch: torch.from_numpy(session.run(None, {"images": batch.numpy()})[0]))
    facts = json.loads(session.get_modelmeta().custom_metadata_map["kdbench"])
    assert facts["pair"] == f"{PAIRS[name]}:{name}" and "mean 0.286, over standard deviation 0.353" in facts["input"]


def test_timm_loads_the_folder_without_kdbench(run: Path) -> None:
    """Where it can; what it cannot build says so, and needs one import."""
    folders = {name: export(run, name, "hf") for name in ("swin-s", "mixer-s")}
    code = (
        "import sys, timm\n"
        f"model = timm.create_model('local-dir:{folders['swin-s']}', pretrained=True)\n"
        "assert model.num_classes == 10 and not [name for name in sys.modules if name.startswith('kdbench')]\n"
        f"mixer = 'local-dir:{folders['mixer-s']}'\n"
        "try:\n    timm.create_model(mixer)\n"
        "except RuntimeError as error:\n    print(error)\n"
        "import kdbench.export.entry\n"
        "print(type(timm.create_model(mixer, pretrained=True)).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout == "Unknown model (kdbench)\nMlpMixer\n", done.stderr
    cards = {name: (folder / "README.md").read_text() for name, folder in folders.items()}
    assert "kdbench.export.entry" in cards["mixer-s"] and "kdbench.export.entry" not in cards["swin-s"]


def test_the_card_of_the_hub(run: Path) -> None:
    folder = export(run, "resnet-s", "hf")
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    card, student = ModelCard.load(folder / "README.md"), trained(run, "resnet-s")
    assert card.data.library_name == "timm" and "knowledge-distillation" in card.data.tags
    assert "license" not in card.data.to_dict()
    (result,) = card.data.eval_results
    assert result.metric_value == pytest.approx(student.record.get("top1"), abs=0.005)
    assert "| teacher | vit-t (`vit_tiny_patch16_224`, top-1 86.25 %) |" in card.text
    timm.create_model(f"local-dir:{folder}", pretrained=True)


def test_the_evaluation_of_the_checkpoint_is_the_records(run: Path, proxy: Suite, cpu: Compute) -> None:
    """The student that exports are compared with is what kdbench itself evaluated."""
    student = trained(run, "mixer-s")
    split = opening.open_evaluation(proxy.data, NO_DATA, "test", 0.0, 1.0, cpu)
    model = StagedModel(student.model, proxy.data.image_shape, (proxy.data.mean, proxy.data.std))
    found = evaluate(model, split, proxy.eval_batch_size, cpu)
    assert found.top1 == student.record.get("top1")


@pytest.mark.parametrize("to", ["timm", "hf"])
def test_a_network_that_is_not_timms_has_no_folder(run: Path, to: str) -> None:
    done = kdbench("export", "vit-t:own.build/kd/0", "--results", "results", "--to", to, "--out", "no", cwd=run)
    assert done.returncode == 3
    assert (
        done.stderr
        == "kdbench: ./own.py:build is not timm's, so timm could not build it from a folder; use --to onnx\n"
    )
    assert not (run / "no").exists()


def test_a_network_that_is_not_timms_as_onnx(run: Path) -> None:
    pytest.importorskip("onnxscript")
    arguments = ["vit-t:own.build/kd/0", "--results", "results", "--to", "onnx", "--out", "own", "--json"]
    done = kdbench("export", *arguments, cwd=run)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["files"] == ["own/model.onnx"] and told["difference"] <= 1e-5


class Fickle(nn.Module):
    """Its course depends on what it sees, which a graph cannot hold."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((1, 2)) if float(images.sum()) > 0 else images.amax((1, 2))


def test_what_torch_cannot_export_is_told_in_a_line(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    with pytest.raises(KdbenchError, match="torch cannot export resnet18 to ONNX: Could not guard on data-dep") as told:
        write_onnx(replace(trained(run, "resnet-s"), model=Fickle()), tmp_path)
    assert "\n" not in str(told.value)


def test_what_answers_with_its_method_is_refused(run: Path) -> None:
    arguments = ["vit-t:resnet-s/simkd/0", "--results", "open", "--to", "timm", "--out", "no"]
    done = kdbench("export", *arguments, cwd=run)
    assert done.returncode == 3 and done.stderr.count("\n") == 1
    assert "simkd answers through a projector and the teacher's classifier" in done.stderr


def test_mistakes_are_one_line(run: Path, tmp_path: Path) -> None:
    record = next((run / "results" / "cells").rglob("s0-*.json"))
    failed = tmp_path / "cells" / "a--b" / "kd" / "s0-1.json"
    write_json(failed, read_json(record) | {"status": "diverged", "error": "the loss became non-finite\nin epoch 3"})
    moved = tmp_path / "cells" / "a--b" / "kd" / "s0-2.json"
    write_json(moved, read_json(record))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    for cell, message in {
        "vit-t:resnet-s/kdd/0": "unknown method of results 'kdd'; did you mean kd",
        "vit-t:resnet-s/kd/7": "unknown seed of results '7'; known: 0",
        "vit-t:resnet/kd/0": "did you mean vit-t:resnet-s",
        "kd": "neither a record (.json) nor of the form PAIR/METHOD/SEED, as in vit-t:resnet-s/scratch/0",
        "none.json": "cannot read none.json",
        str(failed): "ended as 'diverged': the loss became non-finite; only a cell that is done has a student",
        str(moved): "is not there; to train it again, remove",
    }.items():
        done = kdbench("export", cell, "--results", "results", "--to", "timm", "--out", tmp_path / "out", cwd=run)
        assert done.returncode == 3, cell
        assert message in done.stderr and done.stderr.count("\n") == 1
    done = kdbench("export", record, "--to", "timm", "--out", tmp_path / "full")
    assert done.returncode == 3 and "is there and not empty" in done.stderr


def test_an_export_that_answers_differently_is_not_kept(run: Path) -> None:
    student = trained(run, "vit-s")
    own = student.model(student.probe).detach()
    assert student.difference(own) == 0
    with pytest.raises(KdbenchError, match="answers differently"):
        student.difference(own + 2e-5 * max(1.0, float(own.abs().max())))
