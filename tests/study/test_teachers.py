"""Importing, training and verifying teachers, on the proxy's real data and shipped teachers."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from kdbench.compute.device import Compute
from kdbench.engines.channel import Channel
from kdbench.errors import KdbenchError
from kdbench.registry import Registry
from kdbench.study.teachers import Expects, ImportRequest, TeacherJob, guessing, import_teacher, verify_teacher
from kdbench.suites.loading import load_suite
from kdbench.suites.schema import Suite
from kdbench.training.teacher import load_teacher, new_model, normalisation_of, teacher_metadata
from kdbench.weights.files import read_safetensors, save_weights
from tests.conftest import NO_DATA

State = dict[str, Tensor]
NAME = "resnet-t"


@pytest.fixture
def weights(proxy: Suite) -> State:
    """The shipped ResNet in the order of its definition, under the names of another code base."""
    order = new_model(proxy, NAME, 10, Compute(torch.device("cpu"), "fp32", threads=1)).model.state_dict()
    state = read_safetensors(proxy.teacher_path(NAME, NO_DATA))
    return {f"net{number}.{name.replace('.', '_')}": state[name] for number, name in enumerate(order)}


def stored(suite: Suite, root: Path) -> Path:
    return suite.own_teachers(root) / f"{NAME}.safetensors"


def bring(suite: Suite, file: Path, root: Path, expects: Expects | None = None) -> Path:
    cpu = Compute(torch.device("cpu"), "fp32", threads=1)
    request = ImportRequest(file, expects)
    return import_teacher(suite, NAME, request, cpu, root, command="kdbench teachers import").path


def test_an_imported_teacher_is_as_good_as_where_it_came_from(
    proxy: Suite, weights: State, tmp_path: Path, cpu: Compute
) -> None:
    torch.save({"state_dict": weights, "epoch": 6}, tmp_path / "theirs.pth")
    path = bring(proxy, tmp_path / "theirs.pth", tmp_path)
    assert path == stored(proxy, tmp_path) == proxy.teacher_path(NAME, tmp_path)
    facts, shipped = teacher_metadata(path), teacher_metadata(proxy.teacher_path(NAME, NO_DATA))
    assert facts["top1"] == shipped["top1"]
    assert facts["imported_from"]["file"] == "theirs.pth" and facts["imported_from"]["matched"] == "by order"
    teacher, _ = load_teacher(proxy, NAME, 10, cpu, tmp_path)
    assert teacher.normalisation == normalisation_of(proxy)
    path = bring(proxy, proxy.teacher_path(NAME, NO_DATA), tmp_path / "other")
    again = teacher_metadata(path)
    assert again["sha256"] == shipped["sha256"] and again["imported_from"]["matched"] == "by name"


@pytest.mark.runs
def test_bad_weights_are_refused_and_harm_nothing(proxy: Suite, weights: State, tmp_path: Path, cpu: Compute) -> None:
    good, bad = tmp_path / "good.pth", tmp_path / "bad.pth"
    torch.save(weights, good)
    head, bias = list(weights)[-2:]
    other = new_model(proxy, "vit-t", 10, cpu).model.state_dict()
    eleven = {head: torch.cat([weights[head], weights[head][:1]]), bias: torch.cat([weights[bias], weights[bias][:1]])}
    cases: list[tuple[State, str]] = [
        (weights | {bias: weights[bias] * float("nan")}, "not finite"),
        (weights | eleven, "has 11 classes, suite proxy has 10"),
        (other, "does not fit the model ResNet"),
        # Another class order: every class is taken for its neighbour.
        (
            weights | {head: weights[head].roll(1, 0), bias: weights[bias].roll(1)},
            r"reaches only .* another class order",
        ),
        (weights | {head: -weights[head], bias: -weights[bias]}, r"reaches only \d\.\d+ % on .* guessing gives 10 %"),
    ]
    for present in (False, True):
        before = bring(proxy, good, tmp_path).read_bytes() if present else None
        for state, message in cases:
            torch.save(state, bad)
            with pytest.raises(KdbenchError, match=message):
                bring(proxy, bad, tmp_path)
        bad.write_bytes(good.read_bytes()[:-2000])
        with pytest.raises(KdbenchError, match="neither a whole safetensors file nor a whole torch checkpoint"):
            bring(proxy, bad, tmp_path)
        path = stored(proxy, tmp_path)
        assert (path.read_bytes() if path.exists() else None) == before
        assert [file.name for file in path.parent.glob("*")] == ([path.name] if present else [])


@pytest.mark.runs
def test_a_worse_teacher_does_not_replace_a_better_one(proxy: Suite, weights: State, tmp_path: Path) -> None:
    torch.save(weights, tmp_path / "good.pth")
    bias = list(weights)[-1]
    # Half of the classes are never answered.
    torch.save(weights | {bias: weights[bias] - 1000 * (torch.arange(10) < 5)}, tmp_path / "worse.pth")
    path = bring(proxy, tmp_path / "good.pth", tmp_path)
    before = path.read_bytes()
    with pytest.raises(KdbenchError, match=r"already holds a teacher of 90\.80 %; remove that file first"):
        bring(proxy, tmp_path / "worse.pth", tmp_path)
    assert path.read_bytes() == before
    path.write_bytes(before[:-1])
    bring(proxy, tmp_path / "worse.pth", tmp_path)
    assert 40 < teacher_metadata(path)["top1"] < 60, "a damaged teacher is replaced by any"


def test_the_normalisation_that_the_weights_expect(proxy: Suite, weights: State, tmp_path: Path) -> None:
    torch.save(weights, tmp_path / "w.pth")
    colours = {"timm": "3 channels", "imagenet": "3 channels", "inception": "3 channels"}
    for expects, message in colours.items():
        with pytest.raises(KdbenchError, match=message):
            bring(proxy, tmp_path / "w.pth", tmp_path, expects)  # type: ignore[arg-type]
    told = bring(proxy, tmp_path / "w.pth", tmp_path, ((0.286,), (0.35,)))
    assert teacher_metadata(told)["normalisation"] == [[0.286], [0.35]]


def test_guessing_is_told_from_knowing() -> None:
    assert guessing(10_000, 100, 1 / 100) == pytest.approx(3)
    assert guessing(50_000, 1000, 1 / 1000) == pytest.approx(0.3)
    assert guessing(2_000, 10, 1 / 10) == pytest.approx(30)
    assert guessing(2_000, 4, 0.7) == pytest.approx(73.15), "always the largest class, with luck"
    assert guessing(2_000, 100, 0.7) > 70, "the largest class alone gives 70 %"
    assert guessing(2_000, 2, 1 / 2) == pytest.approx(75), "three times the chance would be more than perfect"
    # Of 100 images 5 or more are right by luck in 3 of 1000 tries, 6 or more in fewer than 1.
    assert guessing(100, 100, 1 / 100) == pytest.approx(5)


@pytest.mark.runs
def test_verify_reads_everything_again(proxy: Suite, tmp_path: Path, cpu: Compute) -> None:
    shipped = proxy.teacher_path(NAME, NO_DATA)
    found = verify_teacher(proxy, NAME, cpu, NO_DATA)
    assert (found.stored, found.measured, found.error) == (90.8, pytest.approx(90.8), None)
    facts, teacher = teacher_metadata(shipped), load_teacher(proxy, NAME, 10, cpu, NO_DATA)[0]
    path = stored(proxy, tmp_path)
    save_weights(path, teacher.model, facts | {"top1": 91.2})
    assert "90.80 % is not the 91.20 %" in str(verify_teacher(proxy, NAME, cpu, tmp_path).error)
    save_weights(path, teacher.model, facts | {"normalisation": [[0.9], [0.1]]})
    found = verify_teacher(proxy, NAME, cpu, tmp_path)
    assert found.stored == 90.8 and found.measured is not None and found.measured < 80 and found.error
    content = bytearray(shipped.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)
    assert "not those it was written with" in str(verify_teacher(proxy, NAME, cpu, tmp_path).error)
    path.write_bytes(content[:-1])
    assert "not a whole safetensors file" in str(verify_teacher(proxy, NAME, cpu, tmp_path).error)


@pytest.fixture
def task(short_suite: Callable[..., Path], tmp_path: Path, cpu: Compute) -> TeacherJob:
    """One epoch on the embedded images, with a learning rate that leaves the weights as they are."""

    def standing_still(text: str) -> str:
        text = text.replace('teacher_source = "fashion-mnist"\n', "")
        return text.replace("lr = 0.1\n", "lr = 1e-30\n")

    suite = load_suite(str(short_suite(text=standing_still)))
    registry = Registry.installed()
    control = registry.plugins[registry.by_role("control")]
    return TeacherJob(suite, NAME, control, 0, cpu, tmp_path, stored(suite, tmp_path), "kdbench teachers train")


CHANNEL = Channel(lambda progress: None, lambda text: None)


@pytest.mark.runs
def test_a_training_starts_from_the_file(task: TeacherJob, weights: State, tmp_path: Path) -> None:
    torch.save(weights, tmp_path / "w.pth")
    replace(task, source=tmp_path / "w.pth").execute(CHANNEL)
    facts = teacher_metadata(task.target)
    assert facts["started_from"]["file"] == "w.pth" and facts["trained_on"] == "fashion-mnist-5k2k"
    assert facts["top1"] == pytest.approx(90.8, abs=1.5), "but for the batch statistics nothing has changed"


@pytest.mark.runs
def test_a_training_that_fails_replaces_nothing(task: TeacherJob) -> None:
    task.target.parent.mkdir(parents=True)
    task.target.write_bytes(b"what was there")
    recipes = {name: recipe.model_copy(update={"lr": 1e30}) for name, recipe in task.suite.recipes.items()}
    with pytest.raises(KdbenchError, match="non-finite"):
        replace(task, suite=task.suite.model_copy(update={"recipes": recipes})).execute(CHANNEL)
    assert task.target.read_bytes() == b"what was there"
