"""Logit and contrastive losses against loops written straight from their equations, in float64."""

import math

import pytest
import torch
from kdbench_methods.parts.contrastive import InfoNCE
from kdbench_methods.parts.losses import kl_divergence, ofa_loss
from torch import Tensor

B, C = 5, 7


@pytest.fixture
def logits() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(B, C, generator=generator, dtype=torch.float64) * 3 for _ in range(2))
    return student, teacher, torch.randint(0, C, (B,), generator=generator)


def _softmax(row: Tensor, temperature: float) -> list[float]:
    exponents = [math.exp(value / temperature) for value in row.tolist()]
    return [value / sum(exponents) for value in exponents]


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_kl_divergence(logits: tuple[Tensor, Tensor, Tensor], temperature: float) -> None:
    student, teacher, _ = logits
    total = 0.0
    for b in range(B):
        p_s, p_t = _softmax(student[b], temperature), _softmax(teacher[b], temperature)
        total += sum(t * math.log(t / s) for s, t in zip(p_s, p_t, strict=True))
    expected = temperature**2 * total / B
    assert kl_divergence(student, teacher, temperature).item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("gamma", [1.0, 1.5, 0.7])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_ofa_loss(logits: tuple[Tensor, Tensor, Tensor], gamma: float, temperature: float) -> None:
    student, teacher, labels = logits
    total = 0.0
    for b in range(B):
        p_s, p_t = _softmax(student[b], temperature), _softmax(teacher[b], temperature)
        for c in range(C):
            one_hot = 1.0 if c == labels[b] else 0.0
            total -= ((p_t[c] + one_hot) ** gamma - one_hot) * math.log(p_s[c])
    assert ofa_loss(student, teacher, labels, gamma, temperature).item() == pytest.approx(total / B, rel=1e-10)


def test_ofa_with_gamma_one_is_the_kl_up_to_the_teachers_entropy(logits: tuple[Tensor, Tensor, Tensor]) -> None:
    student, teacher, labels = logits
    p_t = teacher.softmax(dim=1)
    entropy = -(p_t * p_t.log()).sum(dim=1).mean()
    torch.testing.assert_close(ofa_loss(student, teacher, labels) - entropy, kl_divergence(student, teacher))


@pytest.mark.parametrize("symmetric", [False, True])
def test_info_nce(symmetric: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    anchors, targets = (torch.randn(B, 3, generator=generator) for _ in range(2))
    loss = InfoNCE(tau=0.2, symmetric=symmetric)

    def cosine(a: Tensor, b: Tensor) -> float:
        return float((a.double() @ b.double()) / (a.double().norm() * b.double().norm()))

    def one_way(xs: Tensor, ys: Tensor) -> float:
        total = 0.0
        for i in range(B):
            similarities = [math.exp(cosine(xs[i], ys[j]) / 0.2) for j in range(B)]
            total -= math.log(similarities[i] / sum(similarities))
        return total / B

    expected = one_way(anchors, targets)
    if symmetric:
        expected = (expected + one_way(targets, anchors)) / 2
    assert loss(anchors, targets).item() == pytest.approx(expected, rel=1e-5)


def test_info_nce_of_unrelated_features_is_about_log_b() -> None:
    generator = torch.Generator().manual_seed(2)
    anchors, targets = (torch.randn(256, 512, generator=generator) for _ in range(2))
    # At tau = 1 the similarities of unrelated features are close to 0, so that every image is as likely.
    assert InfoNCE(tau=1.0)(anchors, targets).item() == pytest.approx(math.log(256), rel=0.01)


def test_the_temperature_is_learned_and_bounded() -> None:
    loss = InfoNCE(tau=0.001)
    anchors = torch.randn(4, 3)
    bounded = InfoNCE(tau=0.01)
    torch.testing.assert_close(loss(anchors, anchors.flip(0)), bounded(anchors, anchors.flip(0)))
    learning = InfoNCE(tau=0.07)
    learning(anchors, anchors.flip(0)).backward()
    assert learning.log_scale.grad is not None and learning.log_scale.grad.abs() > 0
