"""Losses between images of a batch against loops written straight from their equations, in float64."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from kdbench_methods.cc import cc_loss
from kdbench_methods.pkt import EPSILON, pkt_loss
from kdbench_methods.rkd import rkd_losses
from kdbench_methods.rsd import rsd_loss
from kdbench_methods.sp import sp_loss
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from kdbench.compute.distributed import Replica, join
from tests.compute.test_distributed import _in_processes

B = 8


def _features(*widths: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(B, width, generator=generator, dtype=torch.float64) + 0.3 for width in widths]


def _dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def _apart(rows: list[list[float]], i: int, j: int) -> list[float]:
    return [y - x for x, y in zip(rows[i], rows[j], strict=True)]


def _huber(error: float) -> float:
    return 0.5 * error**2 if abs(error) < 1 else abs(error) - 0.5


def _distances(rows: list[list[float]]) -> dict[tuple[int, int], float]:
    pairs = [(i, j) for i in range(B) for j in range(B)]
    distances = {(i, j): math.sqrt(_dot(_apart(rows, i, j), _apart(rows, i, j))) for i, j in pairs}
    mean = sum(distances.values()) / (B * (B - 1))
    return {pair: distance / mean for pair, distance in distances.items()}


def _cosine(rows: list[list[float]], i: int, j: int, k: int) -> float:
    a, b = _apart(rows, i, j), _apart(rows, i, k)
    return 0.0 if i in (j, k) else _dot(a, b) / math.sqrt(_dot(a, a) * _dot(b, b))


def test_rkd() -> None:
    student, teacher = _features(5, 8)
    s, t = student.tolist(), teacher.tolist()
    of_s, of_t = _distances(s), _distances(t)
    distance = sum(_huber(of_s[pair] - of_t[pair]) for pair in of_s) / B**2
    triplets = [(i, j, k) for i in range(B) for j in range(B) for k in range(B)]
    angle = sum(_huber(_cosine(s, *triplet) - _cosine(t, *triplet)) for triplet in triplets) / B**3
    found = rkd_losses(student, teacher)
    assert [loss.item() for loss in found] == [pytest.approx(distance, rel=1e-10), pytest.approx(angle, rel=1e-10)]


def test_rkd_of_images_that_are_alike() -> None:
    """Equal features, of two images and of all of them, give finite losses and gradients."""
    for alike in (2, B):
        student, teacher = _features(5, 8)
        student[:alike] = student[0]
        student.requires_grad_()
        sum(rkd_losses(student, teacher)).backward()
        assert student.grad is not None and student.grad.isfinite().all()
        assert student.grad.abs().max() < 10


def test_cc() -> None:
    student, teacher = _features(4, 4)
    apart = [
        [abs(s - t) for s, t in zip(*rows, strict=True)]
        for rows in zip(student.tolist(), teacher.tolist(), strict=True)
    ]
    expected = sum(_dot(apart[b], apart[b + 1]) for b in range(B - 1)) / (B - 1)
    assert cc_loss(student, teacher).item() == pytest.approx(expected, rel=1e-10)
    assert cc_loss(student[:1], teacher[:1]).item() == 0


def test_sp_of_maps_that_differ_in_width_and_grid() -> None:
    student, teacher = (x.unflatten(1, (3, -1, 2)) for x in _features(3 * 2 * 2, 3 * 4 * 2))
    expected = 0.0
    matrices = []
    for maps in (student, teacher):
        rows = [image.flatten().tolist() for image in maps]
        gram = [[_dot(a, b) for b in rows] for a in rows]
        matrices.append([[value / math.sqrt(_dot(row, row)) for value in row] for row in gram])
    for i in range(B):
        for j in range(B):
            expected += (matrices[0][i][j] - matrices[1][i][j]) ** 2 / B**2
    assert sp_loss(student, teacher).item() == pytest.approx(expected, rel=1e-10)


def test_pkt() -> None:
    student, teacher = _features(5, 8)
    probabilities = []
    for features in (student, teacher):
        rows = features.tolist()
        kernel = [[(_dot(a, b) / math.sqrt(_dot(a, a) * _dot(b, b)) + 1) / 2 for b in rows] for a in rows]
        probabilities.append([[value / sum(row) for value in row] for row in kernel])
    expected = 0.0
    for i in range(B):
        for j in range(B):
            p_s, p_t = probabilities[0][i][j], probabilities[1][i][j]
            expected += p_t * math.log((p_t + EPSILON) / (p_s + EPSILON)) / B**2
    assert pkt_loss(student, teacher).item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("kappa", [0.0, 0.01, 1.0])
def test_rsd(kappa: float) -> None:
    student, teacher = _features(4, 4)
    columns = []
    for features in (student, teacher):
        standardised = []
        for column in features.T.tolist():
            mean = sum(column) / B
            deviation = math.sqrt(sum((x - mean) ** 2 for x in column) / B)
            standardised.append([(x - mean) / (deviation + 1e-5) for x in column])
        columns.append(standardised)
    expected = 0.0
    for i in range(4):
        for j in range(4):
            r = _dot(columns[1][i], columns[0][j]) / B
            expected += (r - 1) ** 2 if i == j else kappa * r**2
    assert rsd_loss(student, teacher, kappa).item() == pytest.approx(expected, rel=1e-10)


def _rsd(student: Tensor, teacher: Tensor) -> Tensor:
    return rsd_loss(student, teacher, 0.01)


def _rkd(student: Tensor, teacher: Tensor) -> Tensor:
    return sum(rkd_losses(student, teacher), start=torch.zeros(()))


@pytest.mark.parametrize("loss", [_rkd, sp_loss, pkt_loss])
def test_the_same_relations_cost_nothing(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Relations do not change when features are scaled."""
    teacher, other = _features(5, 5)
    assert loss(3 * teacher, teacher).item() == pytest.approx(0, abs=1e-12)
    assert loss(other, teacher).item() > 1e-3


@pytest.mark.parametrize("loss", [_rkd, sp_loss, pkt_loss, _rsd, cc_loss])
def test_half_precision_is_computed_on_in_single(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    student, teacher = (x.bfloat16() for x in _features(5, 5))
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(student, teacher)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(loss(student.double(), teacher.double()).item(), rel=1e-5)


@pytest.mark.parametrize("loss", [_rkd, sp_loss, pkt_loss, _rsd, cc_loss])
def test_nothing_waits_for_the_device(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    """On tensors without values whatever reads one fails."""
    with FakeTensorMode():
        student = torch.randn(B, 5, requires_grad=True)
        loss(student, torch.randn(B, 5)).backward()
        with pytest.raises(DataDependentOutputException):
            student.sum().item()


def _shared(loss: Callable[[Tensor, Tensor], Tensor], replica: Replica) -> tuple[Tensor, Tensor, Tensor]:
    """The mean of the processes' losses, and the gradient with regard to a weight that all of them have."""
    student, teacher = _features(5, 8)
    own = replica.of(torch.arange(B))
    weight = torch.eye(5, dtype=torch.float64, requires_grad=True)
    value = loss(student[own] @ weight, teacher[own])
    value.backward()
    assert weight.grad is not None
    return value.detach(), weight.grad, own


def _all_shared() -> list[tuple[Tensor, Tensor, Tensor]]:
    replica = join(torch.device("cpu"))
    return [_shared(loss, replica) for loss in (_rkd, sp_loss, pkt_loss)]


@pytest.mark.runs
def test_two_processes_compare_the_images_of_both(tmp_path: Path) -> None:
    found = _in_processes(_all_shared, tmp_path)
    for number, loss in enumerate((_rkd, sp_loss, pkt_loss)):
        # The batch in the order of the processes; none of these losses depends on it.
        value, gradient, _ = _shared(loss, Replica(0, 1))
        values, gradients, _ = zip(*(part[number] for part in found), strict=True)
        torch.testing.assert_close(torch.stack(values).mean(), value)
        torch.testing.assert_close(torch.stack(gradients).mean(dim=0), gradient)
