"""Logit distillation against loops written straight from the papers' equations, in float64."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from kdbench_methods.ctkd import CTKD
from kdbench_methods.dist import DIST
from kdbench_methods.dkd import DKD
from kdbench_methods.hard import Hard
from kdbench_methods.kd import KD
from kdbench_methods.lskd import LSKD
from kdbench_methods.mlld import MLLD
from kdbench_methods.parts.losses import binary_kl, kl_divergence, masked_kl, standardise, warm_up
from kdbench_methods.rld import RLD
from torch import Tensor

from kdbench.hyperparameters import schema
from kdbench.method import Batch, Method, Outputs, UnsupportedPair

B, C = 6, 7


def build(method: type[Method], labels: Tensor | None = None, classes: int = C, **options: Any) -> Any:
    """The method for networks that it does not look at but for the widths of their pooled features."""
    pair: Any = SimpleNamespace(
        task=SimpleNamespace(labels=labels, num_classes=classes),
        student=SimpleNamespace(pooled_width=4),
        teacher=SimpleNamespace(pooled_width=5),
    )
    return method(pair, schema(method, Method)(**options).model_dump())


def batch(labels: Tensor, epoch: int = 0) -> Batch:
    return Batch(labels, None, 0.0, torch.arange(len(labels)), epoch, 0.0)


@pytest.fixture
def drawn() -> tuple[Tensor, Tensor, Tensor]:
    """Logits of student and teacher, and labels, which the teacher gets wrong here and there."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(B, C, generator=generator, dtype=torch.float64) * 3 for _ in range(2))
    return student, teacher, torch.tensor([0, 3, 6, 1, 1, 5])


def softmax(row: list[float], temperature: float = 1.0) -> list[float]:
    exponents = [math.exp(value / temperature) for value in row]
    return [value / sum(exponents) for value in exponents]


def kl(target: list[float], other: list[float]) -> float:
    return sum(t * math.log(t / o) for t, o in zip(target, other, strict=True))


def scores(row: list[float]) -> list[float]:
    mean = sum(row) / len(row)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in row) / (len(row) - 1))
    return [(value - mean) / (deviation + 1e-7) for value in row]


def pearson(a: list[float], b: list[float]) -> float:
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    covariance = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    norms = math.sqrt(sum((x - mean_a) ** 2 for x in a)) * math.sqrt(sum((y - mean_b) ** 2 for y in b))
    return covariance / (norms + 1e-8)


def cross_entropy(logits: Tensor, labels: Tensor) -> float:
    rows = zip(logits.tolist(), labels.tolist(), strict=True)
    return sum(-math.log(softmax(row)[label]) for row, label in rows) / len(logits)


def one_and_rest(probabilities: list[float], index: int) -> list[float]:
    return [probabilities[index], sum(p for c, p in enumerate(probabilities) if c != index)]


def test_kd_of_standardised_logits(drawn: tuple[Tensor, Tensor, Tensor]) -> None:
    student, teacher, labels = drawn
    expected = 0.0
    for row_s, row_t in zip(student.tolist(), teacher.tolist(), strict=True):
        expected += 9 * 2**2 * kl(softmax(scores(row_t), 2), softmax(scores(row_s), 2)) / B
    terms = build(LSKD)(Outputs(student), Outputs(teacher), batch(labels))
    assert terms["kd"].item() == pytest.approx(expected, rel=1e-10)
    assert terms["ce"].item() == pytest.approx(0.1 * cross_entropy(student, labels), rel=1e-10)
    same = build(KD, temperature=2.0, ce_weight=0.1, kd_weight=9.0, standardise=True)
    assert same(Outputs(student), Outputs(teacher), batch(labels)) == terms
    # Neither the range nor the place of the teacher's logits matters.
    moved = build(LSKD)(Outputs(student), Outputs(teacher * 5 + 2), batch(labels))
    torch.testing.assert_close(moved["kd"], terms["kd"], rtol=1e-6, atol=0)


@pytest.mark.parametrize(("epoch", "ramp"), [(0, 0.05), (9, 0.5), (19, 1.0), (100, 1.0)])
@pytest.mark.parametrize("standard", [False, True])
def test_dkd(drawn: tuple[Tensor, Tensor, Tensor], epoch: int, ramp: float, standard: bool) -> None:
    student, teacher, labels = drawn
    target = others = 0.0
    for row_s, row_t, y in zip(student.tolist(), teacher.tolist(), labels.tolist(), strict=True):
        if standard:
            row_s, row_t = scores(row_s), scores(row_t)
        p_s, p_t = softmax(row_s, 4), softmax(row_t, 4)
        target += kl(one_and_rest(p_t, y), one_and_rest(p_s, y))
        without = [[value for c, value in enumerate(row) if c != y] for row in (row_t, row_s)]
        others += kl(softmax(without[0], 4), softmax(without[1], 4))
    method = build(DKD, temperature=4.0, alpha=1.5, beta=8.0, warmup_epochs=20, standardise=standard)
    terms = method(Outputs(student), Outputs(teacher), batch(labels, epoch))
    assert terms["target"].item() == pytest.approx(ramp * 1.5 * 4**2 * target / B, rel=1e-10)
    assert terms["others"].item() == pytest.approx(ramp * 8 * 4**2 * others / B, rel=1e-10)


def test_dkd_takes_kd_apart(drawn: tuple[Tensor, Tensor, Tensor]) -> None:
    """KD = target term + (1 - p_t,y) * term of the others, image by image."""
    for student, teacher, label in zip(*drawn, strict=True):
        one = label[None], student[None], teacher[None]
        labels, z_s, z_t = one
        mask = torch.nn.functional.one_hot(labels, C).bool()
        weight = 1 - z_t.softmax(dim=1)[0, label]
        whole = binary_kl(z_s, z_t, labels, labels) + weight * masked_kl(z_s, z_t, mask)
        torch.testing.assert_close(whole, kl_divergence(z_s, z_t))


@pytest.mark.parametrize("standard", [False, True])
def test_rld(drawn: tuple[Tensor, Tensor, Tensor], standard: bool) -> None:
    student, teacher, labels = drawn
    labels[0] = int(teacher[0].argmin())  # nothing is below this label: the image has no correlation term
    labels[1] = int(teacher[1].argmax())
    confidence = correlation = 0.0
    for row_s, row_t, y in zip(student.tolist(), teacher.tolist(), labels.tolist(), strict=True):
        if standard:
            row_s, row_t = scores(row_s), scores(row_t)
        best = row_t.index(max(row_t))
        confidence += kl(one_and_rest(softmax(row_t, 2), best), one_and_rest(softmax(row_s, 2), y))
        below = [c for c in range(C) if row_t[c] < row_t[y]]
        if below:
            correlation += kl(*(softmax([row[c] for c in below], 4) for row in (row_t, row_s)))
    method = build(RLD, temperature=4.0, confidence_temperature=2.0, alpha=1.5, beta=8.0, standardise=standard)
    terms = method(Outputs(student), Outputs(teacher), batch(labels))
    assert terms["confidence"].item() == pytest.approx(1.5 * 2**2 * confidence / B, rel=1e-10)
    assert terms["correlation"].item() == pytest.approx(8 * 4**2 * correlation / B, rel=1e-10)


def test_all_classes_masked(drawn: tuple[Tensor, Tensor, Tensor]) -> None:
    student, teacher, _ = drawn
    student = student.clone().requires_grad_()
    loss = masked_kl(student, teacher, torch.ones(B, C, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0 and student.grad is not None and not student.grad.any()


def test_dist(drawn: tuple[Tensor, Tensor, Tensor]) -> None:
    student, teacher, labels = drawn
    p_s, p_t = ([softmax(row, 4) for row in logits.tolist()] for logits in (student, teacher))
    inter = 1 - sum(pearson(p_s[b], p_t[b]) for b in range(B)) / B
    columns = [([row[c] for row in p_s], [row[c] for row in p_t]) for c in range(C)]
    intra = 1 - sum(pearson(a, b) for a, b in columns) / C
    terms = build(DIST, temperature=4.0, beta=2.0, gamma=3.0)(Outputs(student), Outputs(teacher), batch(labels))
    assert terms["inter"].item() == pytest.approx(2 * 4**2 * inter, rel=1e-10)
    assert terms["intra"].item() == pytest.approx(3 * 4**2 * intra, rel=1e-10)


def test_hard(drawn: tuple[Tensor, Tensor, Tensor]) -> None:
    student, teacher, labels = drawn
    decisions = torch.tensor([row.index(max(row)) for row in teacher.tolist()])
    terms = build(Hard)(Outputs(student), Outputs(teacher), batch(labels))
    assert terms["ce"].item() == pytest.approx(cross_entropy(student, labels) / 2, rel=1e-10)
    assert terms["hard"].item() == pytest.approx(cross_entropy(student, decisions) / 2, rel=1e-10)


@pytest.mark.parametrize("epoch", [0, 4, 9, 200])
def test_ctkd(drawn: tuple[Tensor, Tensor, Tensor], epoch: int) -> None:
    student, teacher, labels = drawn

    def loss(theta: float) -> float:
        t = 1 + 20 / (1 + math.exp(-theta))
        pairs = zip(student.tolist(), teacher.tolist(), strict=True)
        return 0.9 * t**2 * sum(kl(softmax(row_t, t), softmax(row_s, t)) for row_s, row_t in pairs) / B

    method = build(CTKD, kd_weight=0.9).double()
    kd = method(Outputs(student), Outputs(teacher), batch(labels, epoch))["kd"]
    kd.backward()
    assert kd.item() == pytest.approx(loss(1.0), rel=1e-10)
    slope = (loss(1 + 1e-4) - loss(1 - 1e-4)) / 2e-4
    ramp = (1 - math.cos(math.pi * min(epoch + 1, 10) / 10)) / 2
    assert method.theta.grad.item() == pytest.approx(-ramp * slope, rel=1e-5)


def _views(drawn: tuple[Tensor, Tensor, Tensor]) -> tuple[Outputs, Outputs]:
    student, teacher, _ = drawn
    generator = torch.Generator().manual_seed(1)
    again = [torch.randn(B, C, generator=generator, dtype=torch.float64) * 2 for _ in range(2)]
    return Outputs(student).with_second(Outputs(again[0])), Outputs(teacher).with_second(Outputs(again[1]))


@pytest.mark.parametrize("standard", [False, True])
def test_mlld(drawn: tuple[Tensor, Tensor, Tensor], standard: bool) -> None:
    student, teacher = _views(drawn)
    labels = drawn[2]

    def divergence(s: Outputs, t: Outputs, temperature: float) -> float:
        rows = zip(s.logits.tolist(), t.logits.tolist(), strict=True)
        pairs = [(scores(a), scores(b)) if standard else (a, b) for a, b in rows]
        return temperature**2 * sum(kl(softmax(b, temperature), softmax(a, temperature)) for a, b in pairs) / B

    def gram(rows: list[list[float]]) -> list[float]:
        return [sum(x * y for x, y in zip(a, b, strict=True)) for a in rows for b in rows]

    def gap(s: list[list[float]], t: list[list[float]]) -> float:
        return sum((a - b) ** 2 for a, b in zip(gram(s), gram(t), strict=True)) / len(s)

    instance = relation = 0.0
    for temperature in (4.0, 3.0, 5.0, 2.0, 6.0):
        instance += divergence(student, teacher, temperature) / 2
        first = temperature in (2.0, 6.0)
        instance += divergence(*((student, teacher) if first else (student.second, teacher.second)), temperature)
        p_s, p_t = ([softmax(row, temperature) for row in view.logits.tolist()] for view in (student, teacher))
        by_class = [[list(column) for column in zip(*p, strict=True)] for p in (p_s, p_t)]
        relation += (gap(p_s, p_t) + gap(*by_class)) / 2
    terms = build(MLLD, labels, standardise=standard)(student, teacher, batch(labels))
    assert terms["instance"].item() == pytest.approx(0.9 * instance, rel=1e-10)
    assert terms["relation"].item() == pytest.approx(0.9 * relation, rel=1e-10)
    assert terms["ce"].item() == pytest.approx(0.1 * cross_entropy(student.logits, labels), rel=1e-10)
    assert terms["second ce"].item() == pytest.approx(0.1 * cross_entropy(student.second.logits, labels), rel=1e-10)


def test_the_second_view_of_mlld_has_the_images_own_labels(drawn: tuple[Tensor, Tensor, Tensor]) -> None:
    student, teacher = _views(drawn)
    own = (drawn[2] + 1) % C
    mixed = Batch(drawn[2], torch.full((B, C), 1 / C), 0.0, torch.arange(B).flip(0), 0, 0.0)
    terms = build(MLLD, own, second_ce_weight=1.0)(student, teacher, mixed)
    assert terms["second ce"].item() == pytest.approx(cross_entropy(student.second.logits, own.flip(0)), rel=1e-10)
    # Without a use for it there is no second view, nor its effect on the student's batch norms.
    assert build(MLLD).second_view and not build(MLLD, second_ce_weight=0.0, kd_weight=0.0).second_view


def test_the_warm_up_counts_epochs_from_one() -> None:
    labels = torch.zeros(1, dtype=torch.int64)
    assert [warm_up(batch(labels, epoch), 4) for epoch in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert warm_up(batch(labels), 0) == warm_up(batch(labels), 1) == 1.0


def test_logits_without_a_deviation_are_finite() -> None:
    flat = torch.zeros(2, C, requires_grad=True)
    standardise(flat).square().sum().backward()
    assert flat.grad is not None and flat.grad.isfinite().all()


@pytest.mark.parametrize("method", [KD, LSKD, DKD, MLLD])
def test_standardised_logits_of_two_classes_say_nothing(method: type[Method]) -> None:
    """They are +-0.707 whatever the logits; of three classes they are not."""
    labels = torch.zeros(4, dtype=torch.int64)
    build(method, labels, classes=3, standardise=True)
    with pytest.raises(UnsupportedPair, match=r"standardised logits of two classes are always \+-0.707"):
        build(method, labels, classes=2, standardise=True)
    assert torch.allclose(standardise(torch.randn(5, 2)).abs(), torch.tensor(0.5).sqrt(), atol=1e-5)
