"""Fair start, lockstep equals solo, frozen teacher: the invariants that make comparisons fair."""

import numpy as np
import pytest
import torch

from kdbench.data.resident import ResidentImages, ResidentStream
from kdbench.data.sources import ImageSet
from kdbench.method import Method, Pair, Task
from kdbench.models.staged import StagedModel
from kdbench.registry import Registry
from kdbench.suites.schema import Augment, Recipe
from kdbench.training.contender import Contender, build_contender
from kdbench.training.device import Compute
from kdbench.training.lockstep import train
from kdbench.training.weights import weights_sha256
from tests.conftest import staged

RECIPE = Recipe(
    epochs=2,
    batch_size=8,
    optimizer="adamw",
    lr=1e-3,
    weight_decay=0.05,
    warmup_epochs=1,
    label_smoothing=0.1,
    clip_grad=5.0,
    ema=0.9,
    augment=Augment(shift=2, flip=0.5, mixup=0.8, cutmix=1.0, mix_probability=0.5),
)
# One student with drop path and dropout, one with batch norm and drop path.
STUDENTS = {
    "vit": (
        "vit_tiny_patch16_224",
        {"patch_size": 8, "embed_dim": 24, "depth": 4, "num_heads": 2, "drop_path_rate": 0.3, "proj_drop_rate": 0.1},
    ),
    "resnet": ("resnet18", {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16], "drop_path_rate": 0.2}),
}
TEACHERS = {
    "vit": ("resnet18", {"layers": [1, 1, 1, 1], "channels": [8, 16, 16, 32]}),
    "resnet": ("vit_tiny_patch16_224", {"patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 2}),
}
METHODS = ["scratch", "kd", "fitnet", "ofa", "assistant"]


class _Course:
    """A small training on random images with real models and methods."""

    def __init__(self, student: str, compute: Compute) -> None:
        generator = np.random.default_rng(0)
        images = ImageSet(
            generator.integers(0, 256, (48, 28, 28, 3), dtype=np.uint8), generator.integers(0, 4, 48).astype(np.int64)
        )
        self.compute = compute
        self.stream = ResidentStream(ResidentImages(images, 32, 2, compute.device), RECIPE, 4, 0, "a:b")
        name, kwargs = TEACHERS[student]
        self.teacher = staged(name, 4, **kwargs).eval().requires_grad_(False)
        self.student = STUDENTS[student]
        self.plugins = Registry.installed().plugins

    def contender(self, name: str, seed: int = 0) -> Contender:
        task = Task(4, (3, 32, 32), 48, RECIPE.epochs)

        def method(student: StagedModel) -> Method:
            plugin = self.plugins[name]
            return plugin.method(Pair(self.teacher, student, task), plugin.hyperparameters().model_dump())

        return build_contender(
            name, lambda: _fresh(*self.student), method, RECIPE, self.stream.steps_per_epoch, seed, "a:b", self.compute
        )

    def train(self, *names: str) -> dict[str, Contender]:
        contenders = [self.contender(name) for name in names]
        train(contenders, self.teacher, self.stream, self.compute)
        for contender in contenders:
            assert contender.status is None, contender.error
        return {contender.name: contender for contender in contenders}


def _fresh(name: str, kwargs: dict) -> StagedModel:
    """A student with weights from the current random stream."""
    from kdbench.models.create import create_model
    from kdbench.models.spec import ModelSpec

    model = create_model(ModelSpec(timm=name, kind="cnn", recipe="-", kwargs=kwargs), 4, 3, 32)
    return StagedModel(model, (3, 32, 32), ((0.5,) * 3, (0.25,) * 3))


@pytest.fixture(params=STUDENTS)
def course(request: pytest.FixtureRequest, cpu: Compute) -> _Course:
    return _Course(request.param, cpu)


def test_lockstep_equals_solo_bitwise(course: _Course) -> None:
    together = course.train(*METHODS)
    for name in METHODS:
        alone = course.train(name)[name]
        beside = together[name]
        assert weights_sha256(alone.student.model) == weights_sha256(beside.student.model), name
        assert weights_sha256(alone.method) == weights_sha256(beside.method), name
        with alone.evaluated() as ours, beside.evaluated() as theirs:
            assert weights_sha256(ours.model) == weights_sha256(theirs.model), name
        assert alone.losses == beside.losses
    hashes = {weights_sha256(contender.student.model) for contender in together.values()}
    assert len(hashes) == len(METHODS), "methods that end with equal weights did not do anything"


def test_fair_start(course: _Course) -> None:
    starts = {weights_sha256(course.contender(name).student.model) for name in METHODS}
    assert len(starts) == 1
    assert weights_sha256(course.contender("kd", seed=1).student.model) not in starts


def test_everyone_sees_the_same_batches(course: _Course) -> None:
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


def test_teacher_is_frozen(course: _Course) -> None:
    before = weights_sha256(course.teacher.model)
    course.train("kd", "ofa", "assistant")
    assert weights_sha256(course.teacher.model) == before
    assert not course.teacher.training
    assert all(p.grad is None and not p.requires_grad for p in course.teacher.parameters())


def test_the_teacher_runs_once_a_batch_and_not_for_the_control(course: _Course) -> None:
    calls: list[int] = []
    course.teacher.register_forward_hook(lambda *_: calls.append(1))
    course.train("scratch")
    assert not calls
    course.train("kd", "ofa", "fitnet")
    assert len(calls) == RECIPE.epochs * course.stream.steps_per_epoch


def test_a_failing_contender_does_not_stop_the_others(course: _Course) -> None:
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


def test_student_keeps_timms_keys(course: _Course) -> None:
    trained = course.train("assistant")["assistant"]
    plain = _fresh(*course.student).model
    assert list(trained.student.model.state_dict()) == list(plain.state_dict())
    plain.load_state_dict(trained.student.model.state_dict())
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(plain.eval()(images), trained.student.eval()(images).logits)
