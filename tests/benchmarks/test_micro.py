"""pytest-benchmark figures of kdbench's own hot code: `pytest tests/benchmarks -m bench`."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from kdbench_methods.parts.contrastive import InfoNCE
from kdbench_methods.parts.losses import kl_divergence, ofa_loss

from kdbench.compute.device import Compute
from kdbench.data.batch import Draw
from kdbench.models.features import Needs
from kdbench.registry import Registry
from kdbench.suites.schema import Suite
from kdbench.training.arena import Arena
from kdbench.training.lockstep import lockstep
from tests.conftest import NO_DATA

pytestmark = pytest.mark.bench

Benchmark = Callable[..., Any]


@pytest.mark.parametrize("loss", ["kl", "ofa", "nce"])
def test_loss(benchmark: Benchmark, loss: str) -> None:
    student, teacher = torch.randn(128, 100, requires_grad=True), torch.randn(128, 100)
    labels = torch.randint(100, (128,))
    contrast = InfoNCE(0.07)
    functions: dict[str, Callable[[], torch.Tensor]] = {
        "kl": lambda: kl_divergence(student, teacher, 4.0),
        "ofa": lambda: ofa_loss(student, teacher, labels, 1.5),
        "nce": lambda: contrast(student, teacher),
    }
    benchmark(lambda: functions[loss]().backward())


def test_augmentation(benchmark: Benchmark, proxy: Suite, cpu: Compute) -> None:
    arena = Arena.enter(proxy, proxy.pairs[0], 0, "test", cpu, NO_DATA)
    benchmark(lambda: sum(1 for _ in arena.stream.epoch(0)))


@pytest.mark.parametrize("needs", [Needs(), Needs(frozenset({1, 2, 3, 4}), pooled=True)], ids=["logits", "everything"])
def test_staged_forward(benchmark: Benchmark, proxy: Suite, cpu: Compute, needs: Needs) -> None:
    arena = Arena.enter(proxy, proxy.pairs[0], 0, "test", cpu, NO_DATA)
    images = torch.randn(25, 1, 32, 32)
    with torch.no_grad():
        benchmark(lambda: arena.teacher(images, needs))


@pytest.mark.parametrize("method", ["scratch", "kd"])
def test_step(benchmark: Benchmark, proxy: Suite, cpu: Compute, method: str) -> None:
    """A whole step of one contender; test_loop.py tells how much of it is the loop's."""
    arena = Arena.enter(proxy, proxy.pairs[0], 0, "test", cpu, NO_DATA)
    plugin = Registry.installed().plugins[method]
    contender = arena.contender(method, plugin.method, plugin.hyperparameters().model_dump())
    raw, batch = next(arena.stream.epoch(0))
    benchmark(lambda: lockstep([contender], arena.teacher, Draw(raw, batch), cpu))
    assert contender.status is None, contender.error
