"""The loss for one's own loop is the loss of the training, for all methods; what is missing is named."""

import copy
import random

import pytest
import timm
import torch
from torch import nn

import kdbench
from kdbench.compute.device import Compute
from kdbench.data.batch import Draw
from kdbench.errors import KdbenchError, UnsupportedPair
from kdbench.models.staged import StagedModel
from kdbench.registry import Registry
from kdbench.suites.schema import Suite
from kdbench.training.arena import Arena
from kdbench.training.contender import Contender, student_outputs
from kdbench.training.lockstep import drawn, teacher_outputs
from tests.conftest import NO_DATA

PAIRS = ["vit-t:resnet-s", "resnet-t:mixer-s", "vit-t:vit-s"]


@pytest.fixture(scope="module")
def arenas(proxy: Suite) -> dict[str, Arena]:
    compute = Compute(torch.device("cpu"), "fp32", 1)
    pairs = [pair for pair in proxy.pairs if pair.name in PAIRS]
    return {pair.name: Arena.enter(proxy, pair, 0, "val", compute, NO_DATA) for pair in pairs}


@pytest.mark.runs
@pytest.mark.parametrize("name", Registry.installed().names)
def test_it_is_what_training_uses(arenas: dict[str, Arena], name: str) -> None:
    """Terms and gradients of two batches, bit for bit, from the raw images on."""
    compared = [_compare(arena, name) for arena in arenas.values()]
    assert any(compared), "the method supports none of the pairs"


def _compare(arena: Arena, name: str) -> bool:
    plugin = Registry.installed().plugins[name]
    settings = plugin.hyperparameters(**plugin.method.presets.get(arena.suite.preset, {})).model_dump()
    try:
        contender = arena.contender(name, plugin.method, settings)
    except UnsupportedPair:
        return False
    task, mine = arena.task, copy.deepcopy(contender.student)
    criterion = kdbench.loss(
        name, teacher=arena.teacher, student=mine, labels=task.labels, epochs=task.epochs, **settings
    )
    criterion.load_state_dict({f"method.{key}": value for key, value in contender.method.state_dict().items()})
    draws = list(drawn([contender], arena.stream, 0))
    for draw in (draws[0], draws[1]):
        torch.manual_seed(1)
        random.seed(1)
        theirs = _trained_on(arena, contender, draw)
        torch.manual_seed(1)
        random.seed(1)
        ours = _own_loop(criterion, arena, mine, draw)
        assert {term: value.item() for term, value in ours.items()} == {term: v.item() for term, v in theirs.items()}
        for terms in (theirs, ours):
            sum(terms.values()).backward()
    parameters = [*zip(mine.parameters(), contender.student.parameters(), strict=True)]
    parameters += [*zip(criterion.parameters(), contender.method.parameters(), strict=True)]
    for own, other in parameters:
        assert (own.grad is None) == (other.grad is None)
        assert own.grad is None or torch.equal(own.grad, other.grad)
    return True


def _trained_on(arena: Arena, contender: Contender, draw: Draw) -> dict[str, torch.Tensor]:
    """As `Contender.learn` does it."""
    method = contender.method
    teacher = teacher_outputs(arena.teacher, [contender], draw, arena.compute)
    outputs = student_outputs(contender.student, contender.views(draw), method.student_needs)
    return method(outputs, teacher if method.teacher_needs is not None else None, draw.batch)


def _own_loop(
    criterion: kdbench.DistillationLoss, arena: Arena, student: StagedModel, draw: Draw
) -> dict[str, torch.Tensor]:
    seconds = [draw.view(model, True) for model in (student, arena.teacher)] if draw.second is not None else [None] * 2
    outputs = criterion.outputs(
        draw.view(student), draw.view(arena.teacher), second=seconds[0], teacher_second=seconds[1]
    )
    batch = draw.batch
    return criterion(
        *outputs,
        batch.labels,
        targets=batch.targets,
        smoothing=batch.smoothing,
        index=batch.index,
        epoch=batch.epoch,
        progress=batch.progress,
    )


def test_logits_alone() -> None:
    student, teacher, labels = torch.randn(4, 10, requires_grad=True), torch.randn(4, 10), torch.arange(4)
    terms = kdbench.loss("kd", temperature=2.0, kd_weight=3.0)(student, teacher, labels)
    soft = nn.functional.kl_div((student / 2).log_softmax(1), (teacher / 2).softmax(1), reduction="batchmean")
    assert terms["ce"].item() == pytest.approx(nn.functional.cross_entropy(student, labels).item())
    assert terms["kd"].item() == pytest.approx(3 * 4 * soft.item())


def test_networks_of_timm_and_of_others() -> None:
    teacher = timm.create_model("resnet10t", num_classes=5)
    convolutions = [nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU()]
    other = nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5))
    criterion = kdbench.loss("rkd", teacher=teacher, student=other, image_shape=(3, 64, 64))
    assert not teacher.training and not any(p.requires_grad for p in teacher.parameters())
    terms = criterion(*criterion.outputs(torch.randn(4, 3, 64, 64)), torch.arange(4))
    sum(terms.values()).backward()
    assert all(p.grad is not None for p in other.parameters())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fitnet", "pass student, the network"),
        ("crd", "pass labels, those of all training images"),
        ("dkd", "pass epoch, how many epochs are finished"),
        ("kdd", "unknown method 'kdd'"),
    ],
)
def test_what_is_missing_is_named(name: str, message: str) -> None:
    logits = torch.randn(4, 10)
    with pytest.raises(KdbenchError, match=message):
        kdbench.loss(name, num_classes=10)(logits, logits, torch.arange(4))


def test_a_preset_that_is_not_there() -> None:
    with pytest.raises(KdbenchError, match="kd has no preset 'imagenet'"):
        kdbench.loss("kd", preset="imagenet")
