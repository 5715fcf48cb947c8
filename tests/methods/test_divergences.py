"""TTM, WTTM, NKD, ABKD, WKD-L and the entropy weights against loops written from their equations, in float64."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from kdbench_methods.abkd import ABKD
from kdbench_methods.dkd import DKD
from kdbench_methods.ea import EA
from kdbench_methods.kd import KD
from kdbench_methods.mlld import MLLD
from kdbench_methods.nkd import NKD
from kdbench_methods.rld import RLD
from kdbench_methods.ttm import TTM, WTTM
from kdbench_methods.wkd import WKD
from torch import Tensor, nn

from kdbench.hyperparameters import schema
from kdbench.method import Batch, Method, Outputs, UnsupportedPair
from tests.methods.test_logit_methods import B, C, batch, build, drawn, kl, one_and_rest, scores, softmax

__all__ = ["drawn"]
Drawn = tuple[Tensor, Tensor, Tensor]


def rows(drawn: Drawn) -> list[tuple[list[float], list[float], int]]:
    return list(zip(*(tensor.tolist() for tensor in drawn), strict=True))


@pytest.mark.parametrize("exponent", [0.1, 0.7, 1.0])
@pytest.mark.parametrize("method", [TTM, WTTM])
def test_ttm(drawn: Drawn, method: type[Method], exponent: float) -> None:
    student, teacher, labels = drawn
    expected = 0.0
    for row_s, row_t, _ in rows(drawn):
        power = [p**exponent for p in softmax(row_t)]
        weight = sum(power) if method is WTTM else 1.0
        expected += weight * kl([p / sum(power) for p in power], softmax(row_s)) / B
    terms = build(method, exponent=exponent, weight=3.0)(Outputs(student), Outputs(teacher), batch(labels))
    assert terms["kd"].item() == pytest.approx(3 * expected, rel=1e-10)


@pytest.mark.parametrize("method", [TTM, WTTM])
def test_with_exponent_one_ttm_is_kd(drawn: Drawn, method: type[Method]) -> None:
    student, teacher, labels = drawn
    given = Outputs(student), Outputs(teacher), batch(labels)
    torch.testing.assert_close(build(method)(*given)["kd"], build(KD)(*given)["kd"])


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_nkd(drawn: Drawn, temperature: float) -> None:
    student, teacher, labels = drawn
    target = others = 0.0
    for row_s, row_t, y in rows(drawn):
        target -= softmax(row_t)[y] * math.log(softmax(row_s)[y]) / B
        q_s, q_t = (softmax([z for i, z in enumerate(row) if i != y], temperature) for row in (row_s, row_t))
        others -= temperature**2 * sum(t * math.log(s) for t, s in zip(q_t, q_s, strict=True)) / B
    terms = build(NKD, temperature=temperature)(Outputs(student), Outputs(teacher), batch(labels))
    assert terms["target"].item() == pytest.approx(target, rel=1e-10)
    assert terms["others"].item() == pytest.approx(1.5 * others, rel=1e-10)


def test_nkd_of_two_classes_has_a_constant_second_term() -> None:
    student = torch.tensor([[1.0, -2.0], [0.5, 3.0]], requires_grad=True)
    terms = build(NKD)(Outputs(student), Outputs(torch.randn(2, 2)), batch(torch.tensor([0, 1])))
    assert terms["others"].item() == 0
    (gradient,) = torch.autograd.grad(terms["others"], student)
    assert not gradient.any()


def test_nkd_of_a_certain_student_is_finite(drawn: Drawn) -> None:
    student = (drawn[0].float() * 1000).requires_grad_()
    terms = build(NKD)(Outputs(student), Outputs(drawn[1].float()), batch(drawn[2]))
    (gradient,) = torch.autograd.grad(terms["target"] + terms["others"], student)
    assert gradient.isfinite().all() and all(term.isfinite() for term in terms.values())


def entropy(row: list[float], temperature: float) -> float:
    return -sum(p * math.log(p) for p in softmax(row, temperature))


def image_weight(row_s: list[float], row_t: list[float], temperature: float) -> float:
    h_s, h_t = entropy(row_s, temperature), entropy(row_t, temperature)
    return (h_t + h_t * h_s / math.log(len(row_s))) / 2


@pytest.mark.parametrize("standard", [False, True])
def test_entropy_weights(drawn: Drawn, standard: bool) -> None:
    student, teacher, labels = drawn
    expected: dict[str, float] = dict.fromkeys(("ea", "target", "others", "confidence", "correlation"), 0.0)
    for row_s, row_t, y in rows(drawn):
        weight = image_weight(row_s, row_t, 3.0) / B
        if standard:
            row_s, row_t = scores(row_s), scores(row_t)
        p_s, p_t = softmax(row_s), softmax(row_t)
        expected["ea"] += weight * kl(p_t, p_s)
        expected["target"] += weight * kl(one_and_rest(p_t, y), one_and_rest(p_s, y))
        without = [[z for c, z in enumerate(row) if c != y] for row in (row_t, row_s)]
        expected["others"] += 2 * weight * kl(softmax(without[0]), softmax(without[1]))
        expected["confidence"] += weight * kl(one_and_rest(p_t, p_t.index(max(p_t))), one_and_rest(p_s, y))
        below = [[z for c, z in enumerate(row) if row_t[c] < row_t[y]] for row in (row_t, row_s)]
        expected["correlation"] += 2 * weight * kl(softmax(below[0]), softmax(below[1])) if below[0] else 0.0
    given = Outputs(student), Outputs(teacher), batch(labels)
    terms = build(EA, standardise=standard)(*given)
    assert terms["kd"].item() == pytest.approx(expected["ea"], rel=1e-10)
    for method, names in ((DKD, ("target", "others")), (RLD, ("confidence", "correlation"))):
        found = build(method, entropy_weights=3.0, standardise=standard)(*given)
        for name in names:
            assert found[name].item() == pytest.approx(expected[name], rel=1e-10), name


def test_ea_is_kd_with_the_option(drawn: Drawn) -> None:
    student, teacher, labels = drawn
    given = Outputs(student), Outputs(teacher), batch(labels)
    assert build(EA)(*given) == build(KD, entropy_weights=3.0)(*given)
    assert build(EA, entropy_weights=0.0)(*given) == build(KD)(*given)


def test_entropy_weights_reach_k_of_mlld_on_both_views(drawn: Drawn) -> None:
    student, teacher, labels = drawn
    again_s, again_t = student.flip(1), teacher.flip(0)
    given = Outputs(student).with_second(Outputs(again_s)), Outputs(teacher).with_second(Outputs(again_t))
    options: dict[str, Any] = {"temperatures": (2.0, 4.0), "second": 1, "kd_weight": 1.0}
    terms = build(MLLD, labels, entropy_weights=3.0, **options)(*given, batch(labels))
    expected = 0.0
    first, again = (rows((a, b, labels)) for a, b in ((student, teacher), (again_s, again_t)))
    for images, share in (((first, 2.0), 0.5), ((first, 4.0), 0.5), ((again, 2.0), 1.0), ((first, 4.0), 1.0)):
        for row_s, row_t, _ in images[0]:
            divergence = kl(softmax(row_t, images[1]), softmax(row_s, images[1]))
            expected += share * images[1] ** 2 * image_weight(row_s, row_t, 3.0) * divergence / B
    assert terms["instance"].item() == pytest.approx(expected, rel=1e-10)
    assert terms["relation"] == build(MLLD, labels, **options)(*given, batch(labels))["relation"]


def test_entropy_weights_are_constants(drawn: Drawn) -> None:
    """The gradient is that of the weighed KL, image by image."""
    student, teacher, labels = drawn[0].requires_grad_(), *drawn[1:]
    (gradient,) = torch.autograd.grad(build(EA)(Outputs(student), Outputs(teacher), batch(labels))["kd"], student)
    weights = torch.tensor([image_weight(row_s, row_t, 3.0) for row_s, row_t, _ in rows(drawn)], dtype=torch.float64)
    expected = weights[:, None] * (student.softmax(dim=1) - teacher.softmax(dim=1)) / B
    torch.testing.assert_close(gradient, expected)


def divergence(p: list[float], q: list[float], a: float, b: float) -> float:
    pairs = zip(p, q, strict=True)
    return -sum(x**a * y**b - a / (a + b) * x ** (a + b) - b / (a + b) * y ** (a + b) for x, y in pairs) / (a * b)


@pytest.mark.parametrize(("alpha", "beta"), [(0.8, 0.3), (0.5, 0.5), (1.2, -0.2), (-0.4, 1.5)])
def test_abkd(drawn: Drawn, alpha: float, beta: float) -> None:
    student, teacher, labels = drawn
    expected = sum(divergence(softmax(t, 4), softmax(s, 4), alpha, beta) for s, t, _ in rows(drawn)) / B
    method = build(ABKD, alpha=alpha, beta=beta, temperature=4.0, weight=2.0)
    terms = method(Outputs(student), Outputs(teacher), batch(labels))
    assert terms["divergence"].item() == pytest.approx(2 * expected, rel=1e-10)


@pytest.mark.parametrize(("alpha", "beta"), [(0.0, 0.7), (0.0, 1.0), (2.0, 0.0), (0.8, -0.8), (-0.5, 0.5), (0.0, 0.0)])
def test_limits_of_abkd(drawn: Drawn, alpha: float, beta: float) -> None:
    """What a little beside them comes to, from both sides."""
    student, teacher, labels = drawn
    given = Outputs(student), Outputs(teacher), batch(labels)
    step = 1e-4
    beside = [
        sum(divergence(softmax(t), softmax(s), alpha + sign * step, beta + 2 * sign * step) for s, t, _ in rows(drawn))
        for sign in (-1, 1)
    ]
    found = build(ABKD, alpha=alpha, beta=beta)(*given)["divergence"].item()
    assert found == pytest.approx(sum(beside) / 2 / B, rel=1e-5)


def test_kl_and_its_reverse_are_corners_of_abkd(drawn: Drawn) -> None:
    student, teacher, labels = drawn
    one, other = Outputs(student), Outputs(teacher)
    forward, reverse = build(ABKD, alpha=1.0, beta=0.0), build(ABKD, alpha=0.0, beta=1.0)
    kd = build(KD)
    torch.testing.assert_close(forward(one, other, batch(labels))["divergence"], kd(one, other, batch(labels))["kd"])
    torch.testing.assert_close(reverse(one, other, batch(labels))["divergence"], kd(other, one, batch(labels))["kd"])


def with_classifier(classifier: object, classes: int = C, **options: Any) -> Any:
    """WKD for a teacher with that classifier."""
    teacher = SimpleNamespace(model=SimpleNamespace(get_classifier=lambda: classifier))
    pair: Any = SimpleNamespace(teacher=teacher, task=SimpleNamespace(num_classes=classes, epochs=8))
    return WKD(pair, schema(WKD, Method)(**options).model_dump())


def plan(p: list[float], q: list[float], cost: list[list[float]], epsilon: float, iterations: int) -> float:
    """Cost of what Sinkhorn's algorithm moves."""
    n = range(len(p))
    kernel = [[math.exp(-cost[i][j] / epsilon) for j in n] for i in n]
    u, v = [1.0 for _ in n], [0.0 for _ in n]
    for _ in range(iterations):
        v = [q[j] / sum(u[i] * kernel[i][j] for i in n) for j in n]
        u = [p[i] / sum(kernel[i][j] * v[j] for j in n) for i in n]
    return sum(u[i] * kernel[i][j] * v[j] * cost[i][j] for i in n for j in n)


@pytest.mark.parametrize(("epsilon", "iterations", "sharpen"), [(0.05, 10, 1.0), (0.5, 3, 2.0), (0.02, 1, 1.0)])
def test_wkd(drawn: Drawn, epsilon: float, iterations: int, sharpen: float) -> None:
    student, teacher, labels = drawn
    classifier = nn.Linear(5, C).double()
    options = {"epsilon": epsilon, "iterations": iterations, "sharpen": sharpen, "weight": 7.0, "decay_start": 0.5}
    method = with_classifier(classifier, **options)
    terms = method(Outputs(student), Outputs(teacher), batch(labels))
    vectors, expected, target = classifier.weight.tolist(), 0.0, 0.0
    for row_s, row_t, y in rows(drawn):
        target -= softmax(row_t)[y] * math.log(softmax(row_s)[y]) / B
        left = [c for c in range(C) if c != y]
        cost = [[1 - math.exp(-sharpen * (1 - cosine(vectors[i], vectors[j]))) for j in left] for i in left]
        q_s, q_t = (softmax([row[c] for c in left], 2.0) for row in (row_s, row_t))
        expected += plan(q_s, q_t, cost, epsilon, iterations) / B
    assert terms["target"].item() == pytest.approx(target, rel=1e-10)
    assert terms["wasserstein"].item() == pytest.approx(7 * expected, rel=1e-10)


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


def test_the_weight_of_wkd_falls_along_half_a_cosine(drawn: Drawn) -> None:
    student, teacher, labels = drawn
    method = with_classifier(nn.Linear(5, C).double(), decay_start=0.5)
    at = [method(Outputs(student), Outputs(teacher), batch(labels, epoch))["wasserstein"].item() for epoch in range(8)]
    shares = [1, 1, 1, 1, *((1 + math.cos(math.pi * i / 4)) / 2 for i in (1, 2, 3, 4))]
    assert [value / at[0] for value in at] == pytest.approx(shares, abs=1e-12)


def test_wkd_wants_a_row_of_a_classifier_for_each_class() -> None:
    for classifier in (nn.Identity(), nn.Linear(5, C - 1)):
        with pytest.raises(UnsupportedPair, match="compared by the rows of a classifier"):
            with_classifier(classifier)


def test_wkd_of_certain_networks_is_finite(drawn: Drawn) -> None:
    student = (drawn[0].float() * 1000).requires_grad_()
    given = Outputs(student), Outputs(drawn[1].float() * 1000), Batch(drawn[2], None, 0.0, torch.arange(B), 0, 0.0)
    loss = torch.stack(list(with_classifier(nn.Linear(5, C))(*given).values())).sum()
    (gradient,) = torch.autograd.grad(loss, student)
    assert torch.isfinite(loss) and gradient.isfinite().all()
