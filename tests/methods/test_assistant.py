"""Acceptance tests of the hybrid assistant, and every option of it."""

import math
from typing import Any

import pytest
import torch
from kdbench_methods.assistant import Assistant
from kdbench_methods.parts.losses import ofa_loss
from torch import Tensor

from kdbench.method import Needs
from kdbench.testing import build, one_batch, small_pair

PAIRS = [
    ("vit", "cnn"),
    ("cnn", "vit"),
    ("swin", "cnn"),
    ("cnn", "swin"),
    ("mixer", "swin"),
    ("cnn", "cnn"),
    ("vit", "mixer"),
]


@pytest.mark.parametrize(("teacher", "student"), PAIRS)
def test_stages_1_to_3_are_the_networks_own(teacher: str, student: str) -> None:
    """Acceptance (i): what enters the projector is the first network's stage 3 bit for bit."""
    method = build(Assistant, small_pair(teacher, student))
    entered: list[Tensor] = []
    method.bridge.register_forward_pre_hook(lambda module, args: entered.append(args[0].map))
    one_batch(method)
    first = method.pair.student if student == "cnn" or teacher != "cnn" else method.pair.teacher
    images = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    if first is method.pair.student:
        first.train()
    with torch.no_grad():
        (feature,) = first.model.forward_intermediates(  # type: ignore[operator]
            images, indices=[first.stages[3].tap], intermediates_only=True, output_fmt="NCHW"
        )
    assert torch.equal(entered[0], feature)


def test_one_path_without_contrast_is_a_single_ofa_head() -> None:
    """Acceptance (ii)."""
    method = build(Assistant, small_pair("vit", "cnn"), path_weights=[1, 0, 0], nce_weight=0)
    terms, student, teacher, batch = one_batch(method)
    assert set(terms) == {"ce", "ofa t-s"}
    assert torch.equal(terms["ofa t-s"], ofa_loss(student.logits, teacher.logits, batch.labels))


def test_contrast_starts_at_log_b() -> None:
    """Acceptance (iv), with a temperature at which random features are about equally similar."""
    terms, *_ = one_batch(build(Assistant, small_pair("vit", "cnn"), tau_init=10.0), size=32)
    for name in ("nce t-s", "nce t-f", "nce f-s"):
        assert terms[name].item() == pytest.approx(math.log(32), rel=0.05)


@pytest.mark.parametrize(("teacher", "student"), PAIRS)
def test_nothing_is_added_to_the_student(teacher: str, student: str) -> None:
    """Acceptance (v)."""
    pair = small_pair(teacher, student)
    before = list(pair.student.model.state_dict())
    method = build(Assistant, pair)
    one_batch(method)
    assert list(pair.student.model.state_dict()) == before
    shared = {id(p) for model in (pair.teacher, pair.student) for p in model.parameters()}
    assert not shared & {id(p) for p in method.parameters()}, "the assistant owns only its projectors"


def _gradients(method: Any, *names: str) -> dict[str, bool]:
    """Whether each group of parameters gets a gradient from the named terms alone."""
    terms, *_ = one_batch(method)
    method.zero_grad()
    method.pair.student.zero_grad()
    sum(terms[name] for name in names).backward()  # type: ignore[union-attr]
    student = method.pair.student.model
    return {
        "stem": any(
            p.grad is not None and p.grad.any()
            for n, p in student.named_parameters()
            if n.startswith(("conv1", "patch_embed"))
        ),
        "classifier": any(p.grad is not None and p.grad.any() for p in student.get_classifier().parameters()),
        "bridge": any(p.grad is not None and p.grad.any() for p in method.bridge.parameters()),
    }


@pytest.mark.parametrize(
    ("options", "terms", "expected"),
    [
        # Teacher -> assistant moves the projector and, through shared stages, the student's first half.
        ({}, ["ofa t-f"], {"stem": True, "classifier": False, "bridge": True}),
        ({"share_grad": False}, ["ofa t-f"], {"stem": False, "classifier": False, "bridge": True}),
        # Assistant -> student: with a fixed target only the student moves.
        ({}, ["ofa f-s"], {"stem": True, "classifier": True, "bridge": False}),
        ({"sg_target": False}, ["ofa f-s"], {"stem": True, "classifier": True, "bridge": True}),
    ],
)
def test_where_gradients_go(options: dict[str, Any], terms: list[str], expected: dict[str, bool]) -> None:
    assert _gradients(build(Assistant, small_pair("vit", "cnn"), **options), *terms) == expected


def test_a_cnn_teacher_lends_its_first_stages_to_the_students_last() -> None:
    assert _gradients(build(Assistant, small_pair("cnn", "vit")), "ofa t-f") == {
        "stem": False,
        "classifier": True,
        "bridge": True,
    }
    closed = build(Assistant, small_pair("cnn", "vit"), share_grad=False)
    assert _gradients(closed, "ofa t-f") == {"stem": False, "classifier": False, "bridge": True}
    assert all(p.requires_grad for p in closed.pair.student.parameters())


@pytest.mark.parametrize(
    "options",
    [
        {"order": "teacher_first"},
        {"teacher_tail": "trained"},
        {"tail_entry": "stage"},
        {"assistant_ce": 1.0},
        {"nce_proj": "mlp"},
        {"nce_proj": "embed128"},
        {"nce_symmetric": True},
        {"tau_shared": True},
        {"gamma": 1.5},
        {"cls_mode": "mean_token"},
        {"cls_mode": "patch_mean"},
    ],
    ids=str,
)
@pytest.mark.parametrize(("teacher", "student"), [("vit", "cnn"), ("swin", "cnn")])
def test_every_option_trains_and_matters(teacher: str, student: str, options: dict[str, Any]) -> None:
    method = build(Assistant, small_pair(teacher, student), **options)
    terms, *_ = one_batch(method)
    total = sum(terms.values(), start=torch.zeros(()))
    assert torch.isfinite(total)
    total.backward()
    for name, parameter in method.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
    plain = build(Assistant, small_pair(teacher, student))
    unchanged = {name: term.item() for name, term in one_batch(plain).terms.items()} == {
        n: t.item() for n, t in terms.items()
    }
    only_for_class_tokens = "cls_mode" in options and teacher == "swin"
    only_for_down_sampling = "tail_entry" in options and teacher == "vit"
    only_in_values_learned_later = options in ({"teacher_tail": "trained"}, {"tau_shared": True})
    assert unchanged is (only_for_class_tokens or only_for_down_sampling or only_in_values_learned_later)


def test_a_trained_tail_leaves_the_teacher_alone() -> None:
    method = build(Assistant, small_pair("vit", "cnn"), teacher_tail="trained")
    teacher = {id(p) for p in method.pair.teacher.parameters()}
    trained = [name for name, p in method.named_parameters() if p.requires_grad and name.startswith("trained_tail")]
    assert trained and all("blocks.3" in n or "norm" in n or "head" in n for n in trained), trained
    assert not teacher & {id(p) for p in method.parameters()}


def test_needs_follow_the_order() -> None:
    method = build(Assistant, small_pair("vit", "cnn"))
    assert method.student_needs == Needs(frozenset({3}), pooled=True)
    assert method.teacher_needs == Needs(pooled=True)
    method = build(Assistant, small_pair("cnn", "vit"))
    assert method.student_needs == Needs(pooled=True)
    assert method.teacher_needs == Needs(frozenset({3}), pooled=True)
