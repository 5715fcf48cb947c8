"""Fair start, lockstep equals solo, frozen teacher: the invariants that make comparisons fair."""

from typing import Any

import pytest
import torch
from torch import Tensor

from kdbench.compute.device import Compute
from kdbench.training.lockstep import train
from kdbench.weights.files import weights_sha256
from tests.support.course import FURTHER, METHODS, RECIPE, Course, fresh


@pytest.fixture(params=["vit", "resnet"])
def course(request: pytest.FixtureRequest, cpu: Compute) -> Course:
    return Course(request.param, cpu)


@pytest.mark.runs
def test_lockstep_equals_solo_bitwise(course: Course) -> None:
    names = METHODS + FURTHER
    together = course.train(*names)
    for name in names:
        alone = course.train(name)[name]
        beside = together[name]
        assert weights_sha256(alone.student.model) == weights_sha256(beside.student.model), name
        torch.testing.assert_close(alone.method.state_dict(), beside.method.state_dict(), rtol=0, atol=0)
        with alone.evaluated() as ours, beside.evaluated() as theirs:
            assert weights_sha256(ours.model) == weights_sha256(theirs.model), name
        assert alone.losses == beside.losses
    hashes = {weights_sha256(contender.student.model) for contender in together.values()}
    assert len(hashes) == len(names), "methods that end with equal weights did not do anything"


def test_fair_start(course: Course) -> None:
    starts = {weights_sha256(course.contender(name).student.model) for name in METHODS}
    assert len(starts) == 1
    assert weights_sha256(course.contender("kd", seed=1).student.model) not in starts


def test_everyone_sees_the_same_batches(course: Course) -> None:
    seen: dict[str, list[torch.Tensor]] = {}
    contenders = [course.contender(name) for name in ("scratch", "kd", "ofa")]
    for contender in contenders:
        inputs = seen.setdefault(contender.name, [])
        contender.student.register_forward_pre_hook(lambda module, args, inputs=inputs: inputs.append(args[0].clone()))
    train(contenders, course.teacher, course.stream, course.compute)
    first = seen["scratch"]
    assert len(first) == RECIPE.epochs * course.stream.steps_per_epoch
    for inputs in seen.values():
        assert all(torch.equal(a, b) for a, b in zip(first, inputs, strict=True))


def test_teacher_is_frozen(course: Course) -> None:
    before = weights_sha256(course.teacher.model)
    course.train("kd", "ofa", "assistant")
    assert weights_sha256(course.teacher.model) == before
    assert not course.teacher.training
    assert all(p.grad is None and not p.requires_grad for p in course.teacher.parameters())


def test_the_teacher_runs_once_a_batch_and_not_for_the_control(course: Course) -> None:
    calls: list[int] = []
    course.teacher.register_forward_hook(lambda *_: calls.append(1))
    course.train("scratch")
    assert not calls
    course.train("kd", "ofa", "fitnet")
    assert len(calls) == RECIPE.epochs * course.stream.steps_per_epoch


def test_a_failing_contender_does_not_stop_the_others(course: Course) -> None:
    alone = course.train("kd")["kd"]
    contenders = [course.contender(name) for name in ("kd", "fitnet", "ofa")]
    raising, diverging = contenders[1], contenders[2]

    def explode(*_: object) -> None:
        raise ValueError("boom")

    raising.method.register_forward_pre_hook(explode)
    with torch.no_grad():
        diverging.student.model.get_classifier().weight.fill_(float("nan"))  # type: ignore[operator]
    train(contenders, course.teacher, course.stream, course.compute)
    assert raising.status == "failed" and "ValueError: boom" in (raising.error or "")
    assert diverging.status == "diverged" and "non-finite in epoch 1" in (diverging.error or "")
    assert contenders[0].status is None
    assert weights_sha256(contenders[0].student.model) == weights_sha256(alone.student.model)


def test_the_first_term_and_step_that_are_not_finite_are_told(course: Course) -> None:
    """From the next step on the weights are not finite, and so is every term."""
    contender, steps = course.contender("kd"), 0
    usual = contender.method.forward

    def forward(*given: Any) -> dict[str, Tensor]:
        nonlocal steps
        steps += 1
        terms = usual(*given)
        return terms | {"kd": terms["kd"] * float("nan")} if steps == 3 else terms

    contender.method.forward = forward  # type: ignore[method-assign]
    train([contender], course.teacher, course.stream, course.compute)
    told = f"the loss term kd became non-finite in epoch 1, step 3 of {course.stream.steps_per_epoch}"
    assert (contender.status, contender.error) == ("diverged", told)


def test_student_keeps_timms_keys(course: Course) -> None:
    trained = course.train("assistant")["assistant"]
    plain = fresh(*course.student).model
    assert list(trained.student.model.state_dict()) == list(plain.state_dict())
    plain.load_state_dict(trained.student.model.state_dict())
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(plain.eval()(images), trained.student.eval()(images).logits)
