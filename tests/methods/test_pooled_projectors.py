"""SRD and VkD on pooled features; and where they and the logit methods have to stay finite."""

import math

import pytest
import torch
from kdbench_methods.ctkd import CTKD
from kdbench_methods.dist import DIST
from kdbench_methods.dkd import DKD
from kdbench_methods.hard import Hard
from kdbench_methods.lskd import LSKD
from kdbench_methods.mlld import MLLD
from kdbench_methods.rld import RLD
from kdbench_methods.srd import SRD, log_sum_error
from kdbench_methods.vkd import Orthogonal, VkD
from torch import Tensor

from kdbench.method import Method, Outputs
from tests.methods.test_logit_methods import B, batch, build, drawn, kl, softmax

__all__ = ["drawn"]

METHODS = [LSKD, DKD, RLD, DIST, MLLD, CTKD, Hard, SRD, VkD]


def _outputs(drawn: tuple[Tensor, Tensor, Tensor]) -> tuple[Outputs, Outputs]:
    generator = torch.Generator().manual_seed(1)
    f_s, f_t = (torch.randn(B, width, generator=generator, dtype=torch.float64) for width in (4, 5))
    return Outputs(drawn[0], f_s), Outputs(drawn[1], f_t)


def _product(features: Tensor, weight: Tensor) -> list[list[float]]:
    return [
        [sum(w * f for w, f in zip(row, image, strict=True)) for row in weight.tolist()] for image in features.tolist()
    ]


def test_srd(drawn: tuple[Tensor, Tensor, Tensor]) -> None:
    student, teacher = _outputs(drawn)
    method = build(SRD).double()

    def normal(column: list[float]) -> list[float]:
        mean = sum(column) / B
        variance = sum((value - mean) ** 2 for value in column) / B
        return [(value - mean) / math.sqrt(variance + 1e-4) for value in column]

    total = 0.0
    projected = _product(student.pooled, method.project.weight)
    for d in range(5):
        columns = normal([row[d] for row in projected]), normal([row[d] for row in teacher.pooled.tolist()])
        total += sum(abs(s - t) ** 4 for s, t in zip(*columns, strict=True))
    terms = method(student, teacher, batch(drawn[2]))
    assert terms["feature"].item() == pytest.approx(2 * math.log(total), rel=1e-10)
    rows = zip(drawn[0].tolist(), drawn[1].tolist(), strict=True)
    assert terms["kd"].item() == pytest.approx(sum(kl(softmax(t), softmax(s)) for s, t in rows) / B, rel=1e-10)


def test_features_that_agree_have_a_finite_logarithm() -> None:
    features = torch.randn(B, 3, requires_grad=True)
    log_sum_error(features, features.detach(), 4.0).backward()
    assert features.grad is not None and features.grad.isfinite().all()


def test_vkd(drawn: tuple[Tensor, Tensor, Tensor]) -> None:
    student, teacher = _outputs(drawn)
    method = build(VkD).double()
    total = 0.0
    for s_row, t_row in zip(_product(student.pooled, method.project.weight), teacher.pooled.tolist(), strict=True):
        mean = sum(t_row) / 5
        deviation = math.sqrt(sum((value - mean) ** 2 for value in t_row) / 5 + 1e-5)
        for s, t in zip(s_row, t_row, strict=True):
            gap = abs(s - (t - mean) / deviation)
            total += gap**2 / 2 if gap < 1 else gap - 0.5
    terms = method(student, teacher, batch(drawn[2]))
    assert terms["feature"].item() == pytest.approx(total / (B * 5), rel=1e-10)


def test_the_projector_of_vkd_stays_orthogonal(drawn: tuple[Tensor, Tensor, Tensor]) -> None:
    student, teacher = _outputs(drawn)
    method = build(VkD).double()
    optimizer = torch.optim.AdamW(method.parameters(), lr=0.1, weight_decay=0.5)
    before = method.project.weight.detach()
    for _ in range(20):
        optimizer.zero_grad()
        method(student, teacher, batch(drawn[2]))["feature"].backward()
        optimizer.step()
    after = method.project.weight
    torch.testing.assert_close(after.T @ after, torch.eye(4, dtype=torch.float64))
    assert (after - before).abs().max() > 0.01
    projected = method.project(student.pooled)
    torch.testing.assert_close(torch.cdist(projected, projected), torch.cdist(student.pooled, student.pooled))


@pytest.mark.parametrize("widths", [(4, 4), (6, 3)])
def test_the_projector_of_vkd_of_other_shapes(widths: tuple[int, int]) -> None:
    project = Orthogonal(*widths)
    weight = project.weight
    assert weight.shape == widths[::-1]
    torch.testing.assert_close(weight @ weight.T, torch.eye(widths[1]))


def test_the_projector_of_vkd_does_not_jump() -> None:
    """A QR decomposition alone changes a column's sign where its first element does."""
    matrices: list[Tensor] = []
    for first in (1e-4, -1e-4):
        project = Orthogonal(1, 3)
        project.free.data = torch.tensor([[first], [2.0], [-1.0]])
        matrices.append(project.weight)
    torch.testing.assert_close(*matrices, atol=1e-3, rtol=0)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.__name__)
@pytest.mark.parametrize(("size", "classes"), [(2, 2), (2, 1000), (8, 10)])
@pytest.mark.parametrize("autocast", [False, True])
def test_terms_are_finite_at_the_edges(method: type[Method], size: int, classes: int, autocast: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    # A sure teacher, and logits beyond where a probability is a rounded 0 or 1.
    logits = [torch.randn(size, classes, generator=generator) * scale for scale in (5, 100, 5, 100)]
    pooled = [torch.randn(size, width, generator=generator) for width in (4, 5)]
    labels = torch.arange(size) % classes
    student, teacher = logits[0].requires_grad_(), logits[1]
    built = build(method, labels)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        # The logits of a network under autocast.
        z_s, z_t = (z.bfloat16() if autocast else z for z in (student, teacher))
        terms = built(
            Outputs(z_s, pooled[0]).with_second(Outputs(logits[2])),
            Outputs(z_t, pooled[1]).with_second(Outputs(logits[3])),
            batch(labels),
        )
    sum(terms.values()).backward()
    assert all(term.isfinite() and term.ndim == 0 for term in terms.values()), terms
    gradients = [student.grad, *(parameter.grad for parameter in built.parameters())]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
