"""A folder of images of all sizes, from nothing to a result; and what goes wrong with such folders in real life."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
from PIL import Image

from kdbench.results.folder import Results
from tests.support.command import kdbench

pytestmark = pytest.mark.runs

SUITE = """
name = "mine"
description = "images of three textures"
protocol = "mine/1"
preset = "ofa-cifar100"
seeds = 1
eval_batch_size = 8

[data]
source = "folder"
image_size = 32
fit = "resize"
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 0.25]

[timing]
blocks = 2
warmup_steps = 1
warmup_seconds = 0.0

[recipes.short]
epochs = 8
batch_size = 8
optimizer = "adamw"
lr = 3e-3
eval_crop = 0.9
augment = { resized_crop = [0.5, 1.0], flip = 0.5, colour_jitter = 0.2, erasing = 0.2, mixup = 0.2 }

[models.resnet]
timm = "resnet18"
kind = "cnn"
recipe = "short"
kwargs = { layers = [1, 1, 1, 1], channels = [8, 16, 16, 32] }

[models.vit]
timm = "vit_tiny_patch16_224"
kind = "transformer"
recipe = "short"
kwargs = { patch_size = 8, embed_dim = 32, depth = 4, num_heads = 2 }

[[pairs]]
teacher = "resnet"
student = "vit"

[[pairs]]
teacher = "vit"
student = "resnet"
"""
Mistake = Callable[[Path], None]


def _texture(kind: int, height: int, width: int, random: np.random.Generator) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    wave = (np.sin(x / 2), np.sin(y / 2), np.sin((x + y) / 6))[kind]
    pixels = 128 + 90 * wave[..., None] + random.normal(0, 20, (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A suite and its data folder: JPEGs of many sizes, a few of them grey, and two trained teachers."""
    root, random = tmp_path_factory.mktemp("folder"), np.random.default_rng(0)
    for split, count in (("train", 24), ("val", 12)):
        for kind, name in enumerate(("across", "down", "waves")):
            folder = root / "data" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                image = _texture(kind, *random.integers(30, 60, 2), random)
                image.convert("L" if number % 5 == 0 else "RGB").save(folder / f"{number:02}.jpg", quality=95)
    suite = root / "mine.toml"
    suite.write_text(SUITE)
    done = kdbench("teachers", "train", "--suite", str(suite), "--data", str(root / "data"), "--device", "cpu")
    assert done.returncode == 0, done.stdout + done.stderr
    return suite, root / "data"


@pytest.fixture
def copied(prepared: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    suite, data = prepared
    shutil.copytree(data, tmp_path / "data")
    return suite, tmp_path / "data"


def test_from_a_folder_to_a_report(prepared: tuple[Path, Path], tmp_path: Path) -> None:
    suite, data = prepared
    run = ("run", "--suite", str(suite), "--data", str(data), "--out", str(tmp_path), "--device", "cpu", "--json")
    done = kdbench(*run, "--methods", "kd,ofa", "--loaders", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["cells"] == {"done": 6}
    cells = list(Results(tmp_path).cells())
    assert all(cell["evaluated"] == 36 for cell in cells)
    assert max(cell["top1"] for cell in cells) > 60, "three textures can be told apart"
    assert (tmp_path / "report" / "report.md").is_file()


def _truncate(data: Path) -> None:
    image = data / "train" / "down" / "03.jpg"
    image.write_bytes(image.read_bytes()[:400])


def _empty_class(data: Path) -> None:
    for image in (data / "train" / "waves").iterdir():
        image.unlink()


def _one_more_class(data: Path) -> None:
    shutil.copytree(data / "train" / "waves", data / "train" / "ripples")


def _no_images(data: Path) -> None:
    shutil.rmtree(data / "train")


def _not_an_image(data: Path) -> None:
    (data / "val" / "across" / "00.jpg").write_text("not an image")


def _classes(data: Path) -> None:
    for split in ("train", "val"):
        shutil.copytree(data / split / "waves", data / split / "ripples")


@pytest.mark.parametrize(
    ("mistake", "code", "message"),
    [
        (_truncate, 2, "03.jpg"),
        (_not_an_image, 2, "00.jpg"),
        (_empty_class, 3, "waves"),
        (_one_more_class, 3, "ripples"),
        (_no_images, 3, "train"),
        (_classes, 2, "holds weights of another model"),
    ],
)
def test_broken_folders(copied: tuple[Path, Path], tmp_path: Path, mistake: Mistake, code: int, message: str) -> None:
    suite, data = copied
    mistake(data)
    run = ("run", "--suite", str(suite), "--data", str(data), "--out", str(tmp_path / "out"), "--device", "cpu")
    done = kdbench(*run, "--methods", "kd", "--no-throughput", "--no-report", "--pairs", "vit:resnet")
    assert done.returncode == code, done.stdout + done.stderr
    told = " ".join((done.stdout + done.stderr).split())
    assert message in told and "Traceback" not in told
    if code == 2:
        cells = list(Results(tmp_path / "out").cells())
        assert [cell["status"] for cell in cells] == ["failed", "failed"]
        assert all(message in (cell["error"] or "") for cell in cells)


def _with_nan(path: Path) -> None:
    state = safetensors.torch.load_file(path)
    next(iter(state.values())).fill_(float("nan"))
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    safetensors.torch.save_file(state, path, metadata)


def test_a_broken_teacher_harms_only_its_own_pair(copied: tuple[Path, Path], tmp_path: Path) -> None:
    suite, data = copied
    _with_nan(data / "teachers" / "mine" / "vit.safetensors")
    run = ("run", "--suite", str(suite), "--data", str(data), "--out", str(tmp_path / "out"), "--device", "cpu")
    done = kdbench(*run, "--methods", "kd", "--no-throughput", "--no-report")
    assert done.returncode == 2, done.stdout + done.stderr
    statuses = {(cell["pair"], cell["status"]) for cell in Results(tmp_path / "out").cells()}
    assert statuses == {("vit:resnet", "failed"), ("resnet:vit", "done")}
    errors = {cell["error"] for cell in Results(tmp_path / "out").cells() if cell["status"] == "failed"}
    assert all(error and "weights that are not finite" in error and "\n" not in error for error in errors)


def test_a_teacher_of_another_model_is_refused_before_anything_runs(copied: tuple[Path, Path], tmp_path: Path) -> None:
    suite, data = copied
    vit = data / "teachers" / "mine" / "vit.safetensors"
    shutil.copy(vit.with_name("resnet.safetensors"), vit)
    done = kdbench("run", "--suite", suite, "--data", data, "--out", tmp_path / "out", "--device", "cpu")
    assert done.returncode == 3 and "the model of teacher vit is not what it was" in done.stderr
    assert not (tmp_path / "out").exists()


def test_verify_wants_neither_data_nor_teachers(tmp_path: Path, prepared: tuple[Path, Path]) -> None:
    suite, _ = prepared
    done = kdbench("verify", "kd,ofa", "--suite", str(suite), "--data", str(tmp_path), "--device", "cpu", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    verdicts = json.loads(done.stdout)
    assert len(verdicts) == 4 and all(verdict["status"] == "passed" for verdict in verdicts)
    assert all(str(tmp_path) in verdict["without_data"] for verdict in verdicts), "it says why noise was taken"
