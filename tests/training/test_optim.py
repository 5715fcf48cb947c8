"""Optimizer and schedule follow the recipe."""

import math

import pytest
import torch
from torch import nn

from kdbench.errors import describe
from kdbench.suites.schema import Recipe
from kdbench.training.optim import build_optimizer, build_scheduler, learning_rate

BASE = {"epochs": 4, "batch_size": 8, "optimizer": "sgd", "lr": 0.1}


class _Student(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.pos_embed = nn.Parameter(torch.zeros(2, 3))

    def no_weight_decay(self) -> set[str]:
        return {"pos_embed"}


def _rates(recipe: Recipe, steps: int) -> list[float]:
    parameter = nn.Linear(2, 2)
    optimizer = build_optimizer(recipe, parameter, None)
    scheduler = build_scheduler(recipe, optimizer, steps)
    rates = []
    for _ in range(recipe.epochs * steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_weight_decay_on_everything_but_what_is_named() -> None:
    student, method = _Student(), nn.Linear(2, 2)
    recipe = Recipe(**BASE, weight_decay=0.05, decay_vectors=True)  # type: ignore[arg-type]
    groups = build_optimizer(recipe, student, method).param_groups
    decayed = {id(p) for group in groups if group["weight_decay"] == 0.05 for p in group["params"]}
    spared = {id(p) for group in groups if group["weight_decay"] == 0 for p in group["params"]}
    assert decayed == {id(p) for p in (*student.linear.parameters(), *method.parameters())}
    assert spared == {id(student.pos_embed)}


def test_weight_decay_spares_biases_and_what_the_model_names() -> None:
    student, method = _Student(), nn.Linear(2, 2)
    optimizer = build_optimizer(Recipe(**BASE, weight_decay=0.05), student, method)  # type: ignore[arg-type]
    decayed = {id(p) for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    assert decayed == {id(student.linear.weight), id(method.weight)}
    everything = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert everything == {id(p) for module in (student, method) for p in module.parameters()}


def test_cosine_by_step_with_warm_up() -> None:
    recipe = Recipe(**BASE, warmup_epochs=1, warmup_lr=0.0, min_lr=0.01)  # type: ignore[arg-type]
    rates = _rates(recipe, 10)
    assert rates[:10] == pytest.approx([0.1 * i / 10 for i in range(10)])
    expected = [0.01 + 0.5 * (0.1 - 0.01) * (1 + math.cos(math.pi * i / 40)) for i in range(10, 40)]
    assert rates[10:] == pytest.approx(expected)


def test_steps_by_epoch() -> None:
    recipe = Recipe(**BASE, schedule="step", schedule_by="epoch", milestones=(1, 3))  # type: ignore[arg-type]
    assert _rates(recipe, 2) == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.01, 0.01, 0.001, 0.001])


def test_the_rate_in_a_published_log() -> None:
    """The author's log of Swin-T -> ResNet18 (OFA-KD, issue 14: lr .1, min 1e-3, 300 epochs) prints 1.458e-3 at 287."""
    recipe = Recipe(
        epochs=300, batch_size=128, optimizer="sgd", lr=0.1, min_lr=1e-3, warmup_epochs=3, schedule_by="epoch"
    )
    assert learning_rate(recipe, 287.4) == pytest.approx(1.458e-3, abs=5e-7)


def test_constant() -> None:
    assert _rates(Recipe(**BASE, schedule="constant"), 3) == pytest.approx([0.1] * 12)  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "nesterov"), [("sgd", True), ("momentum", False)])
def test_momentum(name: str, nesterov: bool) -> None:
    optimizer = build_optimizer(Recipe(**{**BASE, "optimizer": name}), nn.Linear(2, 2), None)  # type: ignore[arg-type]
    assert optimizer.param_groups[0]["nesterov"] is nesterov
    assert optimizer.param_groups[0]["momentum"] == 0.9


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adamw"])
def test_a_gradient_may_come_later_than_the_others(optimizer: str) -> None:
    """Of a path that is drawn at random, say: the step is that of an optimizer which meets the parameter there."""
    torch.manual_seed(0)
    first, late, alone = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)
    alone.load_state_dict(late.state_dict())
    recipe = Recipe(**(BASE | {"optimizer": optimizer}), weight_decay=0.05)  # type: ignore[arg-type]
    both, one = build_optimizer(recipe, first, late), build_optimizer(recipe, alone, None)
    images = torch.randn(4, 2)
    first(images).square().sum().backward()
    both.step()
    for module, steps in ((late, both), (alone, one)):
        for _ in range(3):
            steps.zero_grad(set_to_none=True)
            module(images).square().sum().backward()
            steps.step()
    assert all(torch.equal(a, b) for a, b in zip(late.parameters(), alone.parameters(), strict=True))


def test_batch_norm_of_a_single_value_is_told_in_words() -> None:
    """The text of torch changes with its versions: the real error is looked at."""
    with pytest.raises(ValueError, match="more than 1 value") as caught:
        nn.BatchNorm2d(3)(torch.zeros(1, 3, 1, 1))
    assert describe(caught.value).startswith("batch norm cannot train on a batch, or a part of one, that has a single")
