"""SPOFA against loops written straight from its equations: heads, moving averages and the weights they make."""

import math
from typing import Any

import pytest
import torch
from kdbench_methods.ofa import OFA
from kdbench_methods.parts.losses import ofa_loss
from kdbench_methods.spofa import SPOFA, gradient_cosines
from torch import nn
from torch.nn import functional as F

from kdbench.method import Batch, Outputs
from kdbench.testing import build, one_batch
from tests.methods.test_hetero_methods import B, C, make_pair, random


def made(student: str, **options: Any) -> Any:
    return build(SPOFA, make_pair("vit", student), **options).double()


def images_batch(seed: int, mixed: bool) -> tuple[Any, Any, Batch]:
    targets = random(B, C, seed=seed + 3).softmax(dim=1) if mixed else None
    labels = torch.arange(B) % C if targets is None else targets.argmax(dim=1)
    return random(B, C, seed=seed), 2 * random(B, C, seed=seed + 1), Batch(labels, targets, 0.1, labels, 0, 0.0)


class Logits(nn.Module):
    """Heads that give what they are given."""

    def forward(self, stages: Any) -> list[Any]:
        return [feature.map for feature in stages.values()]

    def __len__(self) -> int:
        return 4


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("gamma", [1.0, 1.4])
def test_the_weights_of_three_batches(mixed: bool, gamma: float) -> None:
    method = made("cnn", gamma=(gamma,), output_scale=0.8)
    method.heads = Logits()
    averages: list[float | None] = [None] * 5
    for seed in (0, 10, 20):
        z_s, z_t, batch = images_batch(seed, mixed)
        stages: dict[int, Any] = {
            k: type("Feature", (), {"map": random(B, C, seed=seed + 5 + k) + (seed / 10) * z_t}) for k in range(1, 5)
        }
        expected = 0.0
        for number, head in enumerate(stages.values()):
            here = sum(cosine(a, b) for a, b in zip(head.map.tolist(), z_t.tolist(), strict=True)) / B
            before = here if (known := averages[number]) is None else known
            averages[number] = 0.99 * before + 0.01 * here
            weight = min(max(1 - 5 * (before - here), 0.1), 2)
            expected += weight * ofa_loss(head.map, z_t, batch.labels, gamma).item()
        probe = z_s.clone().requires_grad_()
        target = batch.labels if batch.targets is None else batch.targets
        (hard,) = torch.autograd.grad(F.cross_entropy(probe, target), probe)
        (soft,) = torch.autograd.grad(ofa_loss(probe, z_t, batch.labels, gamma), probe)
        agreement = [cosine(a, b) for a, b in zip(hard.tolist(), soft.tolist(), strict=True)]
        known, mean = averages[4], sum(agreement) / B
        averages[4] = average = mean if known is None else 0.99 * known + 0.01 * mean
        weights = [min(max(1 - 0.8 * max(average - g, 0), 0.5), 2) for g in agreement]
        each = [ofa_loss(z_s[[b]], z_t[[b]], batch.labels[[b]], gamma).item() for b in range(B)]
        terms = method(_Outputs(z_s, stages), Outputs(z_t), batch)
        assert terms["ofa"].item() == pytest.approx(expected, rel=1e-10)
        assert terms["kd"].item() == pytest.approx(
            sum(w * x for w, x in zip(weights, each, strict=True)) / B, rel=1e-10
        )
        assert len({*weights}) > 2, "images weigh differently"
    assert method.state_dict()["_averages"].tolist() == pytest.approx(averages, rel=1e-10)


class _Outputs:
    """Logits and stages."""

    def __init__(self, logits: Any, stages: Any) -> None:
        self.logits, self.stages = logits, stages


def test_gradients_are_those_of_autograd() -> None:
    z, target, wanted = random(B, C), random(B, C, seed=1).softmax(dim=1), random(B, C, seed=2).abs()
    probe = z.clone().requires_grad_()
    (hard,) = torch.autograd.grad(-(target * probe.log_softmax(dim=1)).sum(), probe)
    (soft,) = torch.autograd.grad(-(wanted * (probe / 3).log_softmax(dim=1)).sum(), probe)
    torch.testing.assert_close(gradient_cosines(z, target, wanted, 3.0), F.cosine_similarity(hard, soft, dim=1))


@pytest.mark.parametrize("student", ["cnn", "vit"])
def test_only_heads_of_maps_are_normalised(student: str) -> None:
    norms = [isinstance(head.classifier, nn.Sequential) for head in made(student).heads.by_stage.values()]
    plain = build(OFA, make_pair("vit", student))
    assert norms == [student == "cnn"] * 4
    assert not [head for head in plain.heads.by_stage.values() if isinstance(head.classifier, nn.Sequential)]


def test_without_scales_it_is_ofa_with_other_heads() -> None:
    method = made("vit", stage_scale=0.0, output_scale=0.0)
    method.pair.student.double(), method.pair.teacher.double()
    terms, student, teacher, batch = one_batch(method, B)
    plain = build(OFA, method.pair).double()
    plain.heads = method.heads
    expected = plain(student, teacher, batch)
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value)


def test_averages_go_on_from_a_checkpoint() -> None:
    first, second = made("cnn"), made("cnn")
    for method in (first, second):
        method.pair.student.double(), method.pair.teacher.double()
    one_batch(first, B)
    second.load_state_dict(first.state_dict())
    found, expected = one_batch(second, B, seed=2)[0], one_batch(first, B, seed=2)[0]
    assert all(torch.equal(found[name], expected[name]) for name in ("kd", "ofa"))
