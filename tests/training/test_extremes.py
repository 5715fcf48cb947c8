"""The largest loss and gradient norm of a step, with their steps, as they were."""

import math

import pytest
import torch

from kdbench.compute.device import Compute
from kdbench.registry import Registry
from kdbench.suites.schema import Suite
from kdbench.training.arena import Arena
from kdbench.training.contender import Extremes
from kdbench.training.lockstep import drawn, lockstep
from tests.conftest import NO_DATA


def look(extremes: Extremes, *steps: tuple[float, float]) -> None:
    for loss, gradient in steps:
        extremes.look(torch.tensor(loss), torch.tensor(gradient))


def test_each_has_its_own_step() -> None:
    extremes = Extremes(torch.device("cpu"))
    look(extremes, (-2.5, 1.0), (-4.0, 9.0), (7.0, 3.0), (6.0, 9.0), (math.nan, math.nan))
    assert extremes.record() == {
        "first_loss": -2.5,
        "loss": 7.0,
        "loss_step": 3,
        "gradient": 9.0,
        "gradient_step": 2,
    }


def test_what_is_beyond_all_bounds_is_the_largest_number() -> None:
    extremes = Extremes(torch.device("cpu"))
    look(extremes, (1.0, 1.0), (math.inf, math.inf))
    record = extremes.record()
    assert record["loss"] == record["gradient"] == torch.finfo(torch.float32).max


def test_they_go_on_from_a_checkpoint() -> None:
    whole, first, second = (Extremes(torch.device("cpu")) for _ in range(3))
    steps = [(1.0, 5.0), (3.0, 4.0), (2.0, 6.0)]
    look(whole, *steps)
    look(first, *steps[:2])
    second.restore(first.state())
    look(second, *steps[2:])
    assert second.record() == whole.record()


@pytest.mark.parametrize("micro_batch", [None, 10])
@pytest.mark.parametrize("clip_grad", [None, 1e-3])
def test_they_are_those_of_the_training(proxy: Suite, micro_batch: int | None, clip_grad: float | None) -> None:
    """The loss of a whole batch, and the norm before clipping; the first step tells both."""
    suite = proxy.model_copy(
        update={"recipes": {n: r.model_copy(update={"clip_grad": clip_grad}) for n, r in proxy.recipes.items()}}
    )
    pair = suite.pairs[0]
    compute = Compute(torch.device("cpu"), "fp32", 1, micro_batch=micro_batch)
    arena = Arena.enter(suite, pair, 0, "val", compute, NO_DATA)
    plugin = Registry.installed().plugins["kd"]
    contender, twin = (arena.contender("kd", plugin.method, plugin.hyperparameters().model_dump()) for _ in range(2))
    draw = next(drawn([contender], arena.stream, 0))
    lockstep([contender], arena.teacher, draw, compute)
    record = contender.extremes.record()
    assert record["loss_step"] == record["gradient_step"] == 1
    assert record["first_loss"] == record["loss"]

    loss = torch.zeros(())
    for part in draw.parts(micro_batch):
        with torch.no_grad():
            answer = arena.teacher(part.view(arena.teacher))
        terms = twin.method(twin.student(part.view(twin.student)), answer, part.batch)
        partial = sum(terms.values(), torch.zeros(())) * (len(part) / len(draw))
        partial.backward()
        loss += partial.detach()
    gradients = [p.grad.norm() for p in twin.student.parameters() if p.grad is not None]
    assert record["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert record["gradient"] == pytest.approx(torch.stack(gradients).norm().item(), rel=1e-4)
