"""Every method on a simulated GPU: no step waits for the device, nothing mixes devices, a checkpoint goes on there."""

import time
from collections.abc import Callable
from functools import cache
from io import BytesIO
from typing import Any

import pytest
import torch
from torch.nn import functional

from kdbench.compute.device import Compute
from kdbench.registry import Registry
from kdbench.suites.loading import load_suite
from kdbench.training.arena import Arena
from kdbench.training.contender import Contender, isolated
from kdbench.training.evaluate import evaluate
from kdbench.training.lockstep import drawn, lockstep
from kdbench.training.selfcheck import Check
from tests.conftest import NO_DATA
from tests.support.simulated_gpu import CUDA, GPU

pytestmark = pytest.mark.runs

OnGpu = Callable[..., Any]
STEPS = 3
PAIRS = {"ofd": "resnet-t:resnet-s", "vitkd": "vit-t:vit-s", "fcfd": "resnet-t:resnet-s", "rcat": "vit-t:vit-s"}
"""Pairs of methods that cannot work on the usual one.

They want batch norms of the teacher (ofd), tokens (vitkd), no class token (fcfd), and a last stage that differs between
the few images of the check (rcat: that of resnet-s sees a black corner, constant in bf16, and its norms have no scale).
"""


@cache
def _arena(name: str) -> Arena:
    suite = load_suite("proxy")
    few = {"data": suite.data.model_copy(update={"limit": 100, "test_limit": 50, "curve_limit": 50})}
    pair = suite.select_pairs(name)[0]
    return Arena.enter(suite.model_copy(update=few), pair, 0, "test", Compute(CUDA, "bf16", 1), NO_DATA)


def _contender(arena: Arena, name: str) -> Contender:
    plugin = Registry.installed().plugins[name]
    presets = plugin.method.presets.get(arena.suite.preset or "", {})
    return arena.contender(name, plugin.method, plugin.hyperparameters().model_dump() | presets)


def _reloaded(state: dict[str, Any]) -> dict[str, Any]:
    """As a checkpoint brings it back: on the host."""
    torch.save(state, content := BytesIO())
    content.seek(0)
    return torch.load(content, map_location="cpu", weights_only=True)


def _whole_way(name: str) -> tuple[list[Check], list[str], str | None]:
    """A method from its build to the step after a checkpoint.

    Returns:
        Its self-check, the synchronisations of all steps but the first, and why it ended early.
    """
    arena = _arena(PAIRS.get(name, "vit-t:resnet-s"))
    copy = arena.with_own_teacher()
    checks = copy.check(_contender(copy, name))
    contender = _contender(arena, name)
    draws = drawn([contender], arena.stream, 0)
    # What is built at the first step may wait, as may the drawing of an epoch.
    draw = next(draws)
    lockstep([contender], arena.teacher, draw, arena.compute)
    GPU.reset()
    for _ in range(STEPS - 1):
        draw = next(draws)
        lockstep([contender], arena.teacher, draw, arena.compute)
    waits = [f"{why} at {line}" for why, line in GPU.waits_at]
    with isolated(contender):
        contender.end_epoch(1, STEPS)
        with contender.evaluated() as model:
            evaluate(model, arena.evaluation, 50, arena.compute, contender.predictor)
    restored = _contender(arena, name)
    restored.restore(_reloaded(contender.state()))
    lockstep([restored], arena.teacher, draw, arena.compute)
    return checks, waits, contender.error or restored.error


@pytest.mark.parametrize("name", sorted(Registry.installed().plugins))
def test_a_method_goes_its_whole_way_on_a_gpu(on_gpu: OnGpu, name: str) -> None:
    checks, waits, error = on_gpu(_whole_way, name)
    assert [f"{check.name}: {check.detail}" for check in checks if not check.passed] == []
    assert waits == []
    assert error is None


def _products(*names: str) -> list[str]:
    """Products of matrices in a step, by the types of the factors, of losses that ask for full precision."""
    arena = _arena("vit-t:resnet-s")
    contenders = [_contender(arena, name) for name in names]
    GPU.reset()
    lockstep(contenders, arena.teacher, next(drawn(contenders, arena.stream, 0)), arena.compute)
    assert all(contender.error is None for contender in contenders)
    return [f"{types} at {line}" for types, line in GPU.products if "parts/contrastive" in line]


def test_contrastive_losses_multiply_in_full_precision(on_gpu: OnGpu) -> None:
    found = on_gpu(_products, "crd", "assistant")
    assert found and all(product.startswith("float32 at") for product in found), found


def _after_the_host_waited() -> tuple[str | None, float]:
    """A contender in whose turn the host waits for kernels of others, longer than the limit of each."""
    arena = _arena("vit-t:resnet-s")
    contender = _contender(arena, "kd")
    contender.limit = 0.1
    with isolated(contender):
        time.sleep(0.2)
    return contender.status, contender.stopwatch.seconds


def test_the_time_of_a_contender_is_the_devices(on_gpu: OnGpu) -> None:
    assert on_gpu(_after_the_host_waited) == (None, 0.001)


def _settings() -> tuple[int, bool, bool]:
    """Fused attentions in a pass of a Swin, and whether products of float32 may be of TF32."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    arena = _arena("swin-t:mixer-s")
    GPU.reset()
    with torch.no_grad(), arena.compute.autocast():
        arena.teacher(next(drawn([], arena.stream, 0)).view(arena.teacher))
    fused = GPU.operations("_scaled_dot_product_efficient_attention")
    return fused, torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


def test_attention_is_fused_and_float32_is_float32(on_gpu: OnGpu) -> None:
    """In each of the four blocks."""
    assert on_gpu(_settings) == (4, False, False)


def _attention_errors() -> list[float]:
    """Of the simulated kernel's gradients, against torch's own attention on the host."""
    tensors = [*torch.randn(3, 2, 2, 5, 8, generator=torch.Generator().manual_seed(0)), torch.eye(5).expand(1, 2, 5, 5)]
    gradients = []
    for device in ("cpu", "cuda"):
        given = [tensor.clone().to(device).requires_grad_() for tensor in tensors]
        functional.scaled_dot_product_attention(*given[:3], attn_mask=given[3]).square().sum().backward()
        gradients.append([tensor.grad.cpu() for tensor in given if tensor.grad is not None])
    return [float((ours - theirs).abs().max()) for theirs, ours in zip(*gradients, strict=True)]


def test_the_simulated_attention_is_torchs(on_gpu: OnGpu) -> None:
    errors = on_gpu(_attention_errors)
    assert len(errors) == 4 and max(errors) < 1e-5
