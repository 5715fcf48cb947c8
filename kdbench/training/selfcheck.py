"""The self-check of a method on a pair, before any training: does it do what a KD method has to do?"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from kdbench.compute.device import Compute
from kdbench.compute.failures import device_lost, out_of_memory
from kdbench.data.batch import Draw
from kdbench.errors import describe
from kdbench.method import Method
from kdbench.models.staged import StagedModel
from kdbench.training.contender import Contender, student_outputs, total
from kdbench.training.guard import RULES, STUDENT, TEACHER, broken_rules, watched
from kdbench.training.lockstep import teacher_outputs

LABELS = "labels make a difference"
STEPS = 3
"""Projectors may start at zero and so starve the layers before them in the first step."""


@dataclass(frozen=True)
class Check:
    """The verdict of one check."""

    name: str
    passed: bool
    detail: str


def self_check(contender: Contender, teacher: StagedModel, draw: Draw, compute: Compute) -> list[Check]:
    """Run a few steps on one batch and say what holds. The contender is used up.

    The checks: terms are finite scalars and not all zero, and each has a gradient; the gradient reaches the student and
    every trainable projector (or the method declares which it starves), and does not reach the teacher; other labels
    make another loss; the rules of its division are kept (`watch`); the student keeps exactly its own keys.

    Raises:
        Exception: memory ran out or the device is lost, which says nothing of the method.
    """
    student, method = contender.student, contender.method
    keys = set(student.model.state_dict())
    reached: dict[str, bool] = {}
    terms: dict[str, Tensor] = {}
    broken: dict[str, str] = {}
    changed: dict[str, str] = {}
    trainable = [p for module in (student, method) for p in module.parameters() if p.requires_grad]
    try:
        for _ in range(STEPS):
            answer = teacher_outputs(teacher, [contender], draw, compute)
            with compute.autocast():
                outputs = student_outputs(student.forward, contender.views(draw), method.student_needs)
            with watched(teacher, student, draw.batch, answer) as changed:
                with compute.autocast():
                    terms = method(outputs, answer if method.teacher_needs is not None else None, draw.batch)
                problem = _terms_problem(terms) or _without_gradient(terms, trainable)
                if not problem:
                    total(terms).backward()
            broken |= broken_rules(changed, type(method))
            if problem:
                return [*_failed(broken), Check("loss terms", False, problem)]
            for name, parameter in [*_named("student", student.model), *_named("method", method)]:
                reached[name] = reached.get(name, False) or _has_gradient(parameter)
            with torch.no_grad():
                for parameter in trainable:
                    if parameter.grad is not None:
                        parameter -= 0.01 * parameter.grad
                        parameter.grad = None
        labels = _label_check(contender, teacher, draw, compute)
    except Exception as error:
        if device_lost(error) or out_of_memory(error):
            raise
        # A rule that was broken is often why.
        return [*_failed(broken | broken_rules(changed, type(method))), Check("runs", False, describe(error))]
    values = ", ".join(f"{name} {term.item():.3g}" for name, term in terms.items())
    return [
        Check("loss terms", True, values),
        _student_check(reached),
        _projector_check(method, reached),
        labels,
        *_rule_checks(method, teacher, broken),
        _prediction_check(method),
        Check(
            "student keeps timm's keys",
            set(student.model.state_dict()) == keys,
            f"{len(keys)} tensors, {contender.extra_parameters:,} extra parameters beside them",
        ),
    ]


def _terms_problem(terms: object) -> str | None:
    if not isinstance(terms, dict) or not terms:
        return f"forward must return a dict of named terms, it returned {type(terms).__name__}"
    for name, term in terms.items():
        if not isinstance(term, Tensor) or term.ndim != 0:
            shape = tuple(term.shape) if isinstance(term, Tensor) else type(term).__name__
            return f"term '{name}' must be a scalar tensor, it is {shape}"
        if not torch.isfinite(term):
            return f"term '{name}' is {term.item()}"
    if all(term.item() == 0 for term in terms.values()):
        return "all terms are zero"
    return None


def _without_gradient(terms: dict[str, Tensor], trainable: Sequence[Tensor]) -> str | None:
    """Which term nothing can be learned from: it depends neither on the student nor on a projector."""
    for name, term in terms.items():
        if not term.requires_grad or not any(
            gradient is not None
            for gradient in torch.autograd.grad(term, trainable, retain_graph=True, allow_unused=True)
        ):
            return f"term '{name}' has no gradient: it depends neither on the student nor on a projector"
    return None


def _label_check(contender: Contender, teacher: StagedModel, draw: Draw, compute: Compute) -> Check:
    """Whether the same images, with the same random draws, have another loss under other labels."""
    method, batch = contender.method, draw.batch
    classes = contender.student.num_classes
    moved = None if batch.targets is None else batch.targets.roll(1, dims=1)
    losses: list[dict[str, Tensor]] = []
    before = copy.deepcopy(method.state_dict())
    # Watched so that what it sets is put back; what is against the rules was found in the steps before.
    with watched(teacher, contender.student), compute.autocast():
        answer = teacher_outputs(teacher, [contender], draw, compute)
        for labelled in (batch, replace(batch, labels=(batch.labels + 1) % classes, targets=moved)):
            method.load_state_dict(copy.deepcopy(before))
            with torch.random.fork_rng(devices=[compute.device] if compute.device.type == "cuda" else []):
                torch.manual_seed(0)
                outputs = student_outputs(contender.student.forward, contender.views(draw), method.student_needs)
                terms = method(outputs, answer if method.teacher_needs is not None else None, labelled)
            losses.append({name: term.detach().float() for name, term in terms.items()})
    told = "another loss under other labels"
    given, other = losses
    # Term by term: beside a large one a small one would not be seen.
    if given.keys() != other.keys() or not all(torch.isclose(given[name], other[name], rtol=1e-5) for name in given):
        return Check(LABELS, True, told)
    zero = [name for name, term in other.items() if not term.any()]
    if zero:
        return Check(LABELS, True, f"no, and {', '.join(zero)} is zero here")
    if method.differs:
        return Check(LABELS, True, f"no; open division: {method.differs}")
    return Check(LABELS, False, "the loss is the same under other labels: add `batch.cross_entropy(student.logits)`")


def _named(prefix: str, module: nn.Module) -> list[tuple[str, Tensor]]:
    return [(f"{prefix}.{name}", p) for name, p in module.named_parameters() if p.requires_grad]


def _has_gradient(parameter: Tensor) -> bool:
    return parameter.grad is not None and bool(parameter.grad.any())


def _student_check(reached: dict[str, bool]) -> Check:
    of_student = [hit for name, hit in reached.items() if name.startswith("student.")]
    return Check(
        "gradient reaches the student", any(of_student), f"{sum(of_student)} of {len(of_student)} parameter tensors"
    )


def _projector_check(method: Method, reached: dict[str, bool]) -> Check:
    of_method = {name.removeprefix("method."): hit for name, hit in reached.items() if name.startswith("method.")}
    missed = [name for name, hit in of_method.items() if not hit]
    unexplained = [name for name in missed if not any(name.startswith(prefix) for prefix in method.starved)]
    if unexplained:
        detail = f"no gradient for {', '.join(unexplained[:3])}"
    elif missed:
        detail = "; ".join(f"{prefix}: {reason}" for prefix, reason in method.starved.items())
    else:
        detail = f"{len(of_method)} parameter tensors" if of_method else "it has none"
    return Check("gradient reaches every projector", not unexplained, detail)


def _prediction_check(method: Method) -> Check:
    name = "the student answers alone"
    if type(method).predict is Method.predict and method.inference_needs is None:
        return Check(name, True, "its own logits count")
    if method.inference_needs is None:
        return Check(name, False, "`predict` is overridden, and never called: set `inference_needs`")
    detail = f"open division: {method.differs}" if method.differs else "`predict` is overridden: say so in `differs`"
    return Check(name, bool(method.differs), f"{detail}; {method.inference_parameters:,} parameters beside it")


def _failed(broken: dict[str, str]) -> list[Check]:
    return [Check(rule, False, change) for rule, change in broken.items()]


def _rule_checks(method: Method, teacher: StagedModel, broken: dict[str, str]) -> list[Check]:
    """A verdict a rule; the teacher must not only stay as it is but be as it should."""
    if any(parameter.grad is not None for parameter in teacher.parameters()):
        broken = broken | {TEACHER: "a gradient reached the teacher"}
    elif any(module.training for module in teacher.modules()):
        broken = broken | {TEACHER: "the teacher was put into training mode"}
    kept = {
        rule: f"open division: {method.differs}" if rule == STUDENT and method.differs else fine
        for rule, fine in RULES.items()
    }
    return [Check(rule, rule not in broken, broken.get(rule, fine)) for rule, fine in kept.items()]


def passed(checks: list[Check]) -> bool:
    """Whether all of the checks passed."""
    return all(check.passed for check in checks)
