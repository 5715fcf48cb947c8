"""MLDR-KD and HCD against loops written straight from their equations, and what they and PAT have to stand."""

import math
from typing import Any

import pytest
import torch
from kdbench_methods.hcd import HCD, overlap
from kdbench_methods.mldr import MLDR, Gate, dfra
from kdbench_methods.parts.heads import StageHeads
from kdbench_methods.pat import PAT
from torch import Tensor

from kdbench.method import Method, Pair, UnsupportedPair
from kdbench.testing import build, one_batch, small_pair

METHODS: dict[str, type[Method]] = {"mldr": MLDR, "hcd": HCD, "pat": PAT}
B, C = 5, 7


def make_pair(teacher: str, student: str) -> Pair:
    return small_pair(teacher, student, C)


def softmax(row: list[float]) -> list[float]:
    exponents = [math.exp(value) for value in row]
    return [value / sum(exponents) for value in exponents]


def kl(teacher: list[float], student: list[float]) -> float:
    """KL(softmax(teacher) || softmax(student)) of rows of logits."""
    return sum(t * math.log(t / s) for t, s in zip(softmax(teacher), softmax(student), strict=True))


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("temperature", "alpha"), [(1.0, 2.0), (4.0, 0.5)])
def test_relations_of_mldr(temperature: float, alpha: float) -> None:
    student, teacher = random(B, C), 2 * random(B, C, seed=1)
    s, t = ((z / temperature).tolist() for z in (student, teacher))
    root, classes, images, plain = math.sqrt(C), 0.0, 0.0, 0.0
    for b in range(B):
        plain += kl(t[b], s[b]) / B
        for c in range(C):
            rows = ([z[b][c] * z[b][d] / root for d in range(C)] for z in (t, s))
            classes += kl(*rows) / (B * C)
            rows = ([z[b][c] * z[other][c] / root for other in range(B)] for z in (t, s))
            images += kl(*rows) / (B * C)
    expected = classes + images + alpha * plain
    assert dfra(student, teacher, temperature, alpha).item() == pytest.approx(expected, rel=1e-10)
    assert dfra(teacher, teacher, temperature, alpha).item() == pytest.approx(0, abs=1e-12)


def test_the_gate_of_mldr_weighs_stages_for_each_class() -> None:
    gate: Any = Gate([4, 6, 6], C).double()
    vectors = [random(B, width, seed=seed) for seed, width in enumerate((4, 6, 6))]
    weights = gate(vectors)
    assert weights.shape == (B, 3, C)
    first, _, last = gate.score
    align = gate.align[0]
    for b in range(B):
        scores = []
        for k, vector in enumerate(vectors):
            x = align.weight @ vector[b] + align.bias if k == 0 else vector[b]
            hidden = [v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in (first.weight @ x + first.bias).tolist()]
            scores.append((last.weight @ torch.tensor(hidden, dtype=torch.float64) + last.bias).tolist())
        for c in range(C):
            expected = softmax([scores[k][c] for k in range(3)])
            assert weights[b, :, c].tolist() == pytest.approx(expected, rel=1e-10)


def test_terms_of_mldr() -> None:
    pair = _double(make_pair("vit", "swin"))
    method = build(MLDR, pair, logit_weight=2.0, stage_weight=3.0, fused_weight=5.0).double()
    terms, student, teacher, batch = one_batch(method, B)
    heads = method.heads.by_stage
    vectors = [head.vector(student.stages[k]) for k, head in heads.items()]
    logits = [head(student.stages[k]) for k, head in heads.items()]
    weights = method.gate(vectors)
    fused = torch.stack([weights[:, i] * z for i, z in enumerate(logits)]).sum(dim=0)
    expected = {
        "ce": batch.cross_entropy(student.logits),
        "logit": 2 * dfra(student.logits, teacher.logits, 1.0, 2.0),
        "stages": 3 * torch.stack([dfra(z, teacher.logits, 1.0, 2.0) for z in logits]).sum(),
        "fused": 5 * dfra(fused, teacher.logits, 1.0, 2.0),
    }
    assert terms.keys() == expected.keys()
    for name, term in expected.items():
        assert terms[name].item() == pytest.approx(term.item(), rel=1e-10), name


def test_overlap_of_sub_logits() -> None:
    logits, labels = random(B, 3, C) + 0.5, torch.tensor([0, 6, 2, 2, 5])
    total = 0.0
    for b in range(B):
        vectors = [[0.0 if c == labels[b] else logits[b, j, c].item() for c in range(C)] for j in range(3)]
        lengths = [math.sqrt(sum(v * v for v in vector)) for vector in vectors]
        for i in range(3):
            for j in range(3):
                cosine = sum(p * q for p, q in zip(vectors[i], vectors[j], strict=True)) / lengths[i] / lengths[j]
                if i != j and cosine > 0.1:
                    total += (cosine - 0.1) ** 2 / 6
    assert total > 0
    assert overlap(logits, labels, 0.1).item() == pytest.approx(total / B, rel=1e-10)
    apart = torch.eye(C, dtype=torch.float64)[:3].expand(2, 3, C)
    assert overlap(apart, torch.tensor([5, 6]), 0.5).item() == 0, "orthogonal ones do not overlap"


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_terms_of_hcd(temperature: float) -> None:
    pair = _double(make_pair("vit", "cnn"))
    method = build(HCD, pair, temperature=temperature, count=3, hcd_weight=6.0, sub_weight=0.5).double()
    for parameter in method.mappers.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    terms, student, teacher, batch = one_batch(method, B)
    ce = distilled = overlaps = 0.0
    z_s, smooth = (student.logits / temperature).tolist(), 0.1 / C
    for vector, mapper in zip(method.heads(student.stages), method.mappers, strict=True):
        first, _, last = mapper
        for b in range(B):
            x = torch.cat([vector[b], teacher.pooled[b]])
            shared = last.weight @ (first.weight @ x + first.bias).clamp(min=0) + last.bias
            for j in range(3):
                sub = (shared[j * C : (j + 1) * C] + teacher.logits[b]).tolist()
                target = [smooth + (0.9 if c == batch.labels[b] else 0) for c in range(C)]
                ce -= sum(q * math.log(p) for q, p in zip(target, softmax(sub), strict=True)) / (3 * B)
                distilled += temperature**2 * kl([v / temperature for v in sub], z_s[b]) / (3 * B)
        joined = torch.cat([vector, teacher.pooled], dim=1)
        logits = mapper(joined).view(B, 3, C) + teacher.logits[:, None]
        overlaps += overlap(logits, batch.labels, 0.5).item()
    z_t = (teacher.logits / temperature).tolist()
    expected = {
        "ce": batch.cross_entropy(student.logits).item(),
        "kd": temperature**2 * sum(kl(z_t[b], z_s[b]) for b in range(B)) / B,
        "sub": 0.5 * ce / 4,
        "hcd": 6 * distilled / 4,
        "diversity": overlaps / 4,
    }
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=1e-10)
    terms["hcd"].backward()
    assert all(p.grad is not None and p.grad.any() for p in method.mappers.parameters()), "targets move, too"


def _double(pair: Pair) -> Pair:
    pair.teacher.double()
    pair.student.double()
    return pair


def test_heads_end_in_their_vector_where_that_is_asked_for() -> None:
    pair = make_pair("vit", "cnn")
    heads, full = StageHeads(pair, (2, 4), 0), StageHeads(pair, (2, 4), C)
    _, student, _, _ = one_batch(build(MLDR, pair), B)
    assert [x.shape for x in heads(student.stages)] == [(B, 32), (B, 32)]
    assert [x.shape for x in full(student.stages)] == [(B, C), (B, C)]
    head = full.by_stage[4]
    assert torch.equal(head(student.stages[4]), head.classifier(head.vector(student.stages[4])))


def test_one_stage_cannot_be_fused() -> None:
    with pytest.raises(UnsupportedPair, match="fewer than two"):
        build(MLDR, make_pair("vit", "cnn"), stages=(3,))


@pytest.mark.runs
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(("teacher", "student"), [("vit", "cnn"), ("cnn", "swin")])
def test_half_precision(name: str, teacher: str, student: str) -> None:
    expected, *_ = one_batch(build(METHODS[name], make_pair(teacher, student)))
    with torch.autocast("cpu", torch.bfloat16):
        terms, *_ = one_batch(build(METHODS[name], make_pair(teacher, student)))
    torch.stack([term.float() for term in terms.values()]).sum().backward()
    for term, value in terms.items():
        assert value.item() == pytest.approx(expected[term].item(), rel=0.1, abs=0.02), term
