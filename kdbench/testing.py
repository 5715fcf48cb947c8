"""Tests for packages that ship methods: the contract of a method as a class of pytest, and small networks to try it on.

A test file of a method `myidea` is two statements:

    from kdbench.testing import MethodContract


    class TestMyIdea(MethodContract):
        methods = "myidea"

It trains the method for two steps on pairs of networks that take milliseconds. `small_pair`, `build` and `one_batch`
are for tests that compare a method's terms with its equation. pytest is imported by this module alone.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

import pytest
import torch
from torch import Tensor

from kdbench.compute.device import Compute
from kdbench.data.batch import Draw
from kdbench.errors import UnsupportedPair
from kdbench.hyperparameters import schema
from kdbench.method import Batch, Method, Outputs, Pair, Task
from kdbench.models.create import create_model
from kdbench.models.spec import ModelSpec
from kdbench.models.staged import StagedModel
from kdbench.registry import Plugin, Registry
from kdbench.suites.schema import Recipe
from kdbench.training.contender import Contender, build_contender
from kdbench.training.guard import build_watched
from kdbench.training.lockstep import lockstep, teacher_outputs
from kdbench.training.selfcheck import self_check

SMALL_MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "cnn": ("resnet18", {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 24]}),
    "wider cnn": ("resnet18", {"layers": [1, 1, 1, 1], "channels": [8, 12, 16, 32]}),
    "bottleneck cnn": ("resnet26", {"channels": [4, 4, 8, 8]}),
    "pre-activation cnn": ("cifar_wrn_16_1", {}),
    "mobilenet": ("mobilenetv2_035", {}),
    "convnext": ("convnext_atto", {"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16]}),
    "vit": ("vit_tiny_patch16_224", {"patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 2}),
    "wider vit": ("vit_tiny_patch16_224", {"patch_size": 8, "embed_dim": 48, "depth": 4, "num_heads": 2}),
    "vit with dropout": (
        "vit_tiny_patch16_224",
        {"patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 2, "drop_path_rate": 0.3, "proj_drop_rate": 0.1},
    ),
    "swin": (
        "swin_tiny_patch4_window7_224",
        {"embed_dim": 12, "depths": [1, 1, 1, 1], "num_heads": [2, 2, 4, 4], "window_size": 4, "drop_path_rate": 0.0},
    ),
    "mixer": ("mixer_s32_224", {"patch_size": 8, "num_blocks": 4, "embed_dim": 24}),
}
"""Small networks of each family, for images of 32 x 32 pixels and more: timm name and keyword arguments."""

PAIRS = [("wider cnn", "cnn"), ("wider vit", "cnn"), ("wider vit", "vit"), ("wider cnn", "vit with dropout")]
"""The pairs (teacher, student) of the contract; a method has to support one of them."""

RECIPE = Recipe(epochs=2, batch_size=8, optimizer="sgd", lr=0.01, weight_decay=5e-4, warmup_epochs=0)
STEPS = 2
"""Some terms appear, or change, with the second step, such as those of a method that has a memory."""

FP32 = Compute(torch.device("cpu"), "fp32", threads=1)
BF16 = Compute(torch.device("cpu"), "bf16", threads=1)


def staged(name: str, classes: int = 10, size: int = 32, in_chans: int = 3, **kwargs: object) -> StagedModel:
    """A staged timm model for images of `size` x `size` pixels, with weights drawn from seed 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = create_model(ModelSpec(timm=name, kind="cnn", recipe="-", kwargs=kwargs), classes, in_chans, size)
    return StagedModel(model, (in_chans, size, size), ((0.5,) * in_chans, (0.25,) * in_chans))


def small_model(name: str, classes: int = 4, size: int = 32) -> StagedModel:
    """A small network by its name in `SMALL_MODELS`, or by timm's, for images of `size` x `size` pixels."""
    timm_name, kwargs = SMALL_MODELS.get(name, (name, {}))
    return staged(timm_name, classes, size, **kwargs)


def small_pair(teacher: str, student: str, classes: int = 4, size: int = 32) -> Pair:
    """A pair of small networks, the teacher frozen and in eval mode, the student in training mode."""
    networks = small_model(teacher, classes, size), small_model(student, classes, size)
    networks[0].eval().requires_grad_(False)
    return Pair(networks[0], networks[1].train(), Task(classes, (3, size, size), torch.arange(60) % classes, 4))


def build(method: type[Method], pair: Pair, **hyperparameters: Any) -> Any:
    """The method for `pair` in training mode, its own weights drawn from seed 0.

    Args:
        hyperparameters: those that differ from their defaults.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return method(pair, schema(method, Method)(**hyperparameters).model_dump()).train()


class OneBatch(NamedTuple):
    """The loss terms of a batch, and what they were computed from."""

    terms: dict[str, Tensor]
    student: Outputs
    teacher: Outputs
    batch: Batch


def one_batch(method: Method, size: int = 6, *, seed: int = 1, epoch: int = 0) -> OneBatch:
    """Run both networks and `method` on a batch of noise, with label smoothing of 0.1.

    Args:
        size: number of images.
        seed: of the noise.
        epoch: epochs that the method is told to be finished.
    """
    pair = method.pair
    dtype = next(pair.student.parameters()).dtype
    images = torch.randn(size, *pair.task.image_shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    index = torch.arange(size)
    batch = Batch(pair.task.labels[index], None, 0.1, index, epoch, epoch / pair.task.epochs)
    assert method.teacher_needs is not None, "the method uses no teacher"
    with torch.no_grad():
        teacher = pair.teacher(images, method.teacher_needs)
    student = pair.student(images, method.student_needs)
    return OneBatch(method(student, teacher, batch), student, teacher, batch)


@dataclass(frozen=True)
class ShortTraining:
    """A training of a few steps on noise: the pair of networks, the batch and how it is computed.

    Attributes:
        teacher, student: names of `SMALL_MODELS`.
        size: images in a batch.
        mixed: whether the targets are those of mixed images.
    """

    teacher: str
    student: str
    size: int = 8
    classes: int = 4
    compute: Compute = FP32
    mixed: bool = False

    def contender(self, plugin: Plugin, hyperparameters: Mapping[str, Any] | None = None) -> Contender:
        """The method at its fair start, built under the eyes of the guard.

        Raises:
            UnsupportedPair: the method cannot work on this pair.
            KdbenchError: building it changes what it has to leave alone.
        """
        self.compute.apply()
        pair = _shared_pair(self.teacher, self.student, self.classes)
        task = Task(self.classes, pair.task.image_shape, torch.arange(6 * self.size) % self.classes, RECIPE.epochs)
        values = plugin.hyperparameters(**(hyperparameters or {})).model_dump()

        def method(student: StagedModel) -> Method:
            return build_watched(
                lambda: plugin.method(Pair(pair.teacher, student, task), values), plugin.method, pair.teacher, student
            )

        return build_contender(
            plugin.name,
            lambda: copy.deepcopy(pair.student),
            method,
            RECIPE,
            self.compute,
            steps_per_epoch=6,
            seed=0,
            pair="teacher:student",
        )

    def draw(self, step: int) -> Draw:
        """The batch of a step: other images in each, of the classes in turn."""
        generator = torch.Generator().manual_seed(step)
        images, second = (255 * torch.rand(self.size, 3, 32, 32, generator=generator) for _ in range(2))
        index = torch.arange(self.size) + step * self.size
        targets = torch.rand(self.size, self.classes, generator=generator).softmax(dim=1) if self.mixed else None
        return Draw(images, Batch(index % self.classes, targets, 0.1, index, 0, 0.0), second)

    def gradients(self, contender: Contender, step: int) -> dict[str, Tensor]:
        """One step; the gradients by parameter, of the student and of the method."""
        draw, teacher = self.draw(step), _shared_pair(self.teacher, self.student, self.classes).teacher
        contender.learn(contender.views(draw), teacher_outputs(teacher, [contender], draw, self.compute), draw.batch)
        gradients = {
            f"{owner}.{name}": parameter.grad.clone()
            for owner, module in (("student", contender.student.model), ("method", contender.method))
            for name, parameter in module.named_parameters()
            if parameter.grad is not None
        }
        contender.update()
        return gradients

    def train(self, contenders: Sequence[Contender], steps: Sequence[int] = range(STEPS)) -> None:
        """Train `contenders` in lockstep."""
        teacher = _shared_pair(self.teacher, self.student, self.classes).teacher
        for step in steps:
            lockstep(contenders, teacher, self.draw(step), self.compute)


@lru_cache
def _shared_pair(teacher: str, student: str, classes: int) -> Pair:
    return small_pair(teacher, student, classes)


@lru_cache
def _supported(plugin: Plugin) -> list[tuple[str, str]]:
    """The pairs of the contract that the method supports; there has to be one."""
    supported, reasons = [], []
    for pair in PAIRS:
        try:
            ShortTraining(*pair).contender(plugin)
        except UnsupportedPair as error:
            reasons.append(str(error))
        else:
            supported.append(pair)
    assert supported, f"{plugin.name} supports no pair of the contract: {reasons}"
    assert all(reasons), f"{plugin.name} refuses a pair without a reason"
    return supported


def _same(one: Any, other: Any) -> bool:
    """Whether two states hold the same bits."""
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and torch.equal(one, other)
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def _end(contender: Contender) -> dict[str, Any]:
    """The state of a contender that is still open, without the time it took."""
    assert contender.status is None, contender.error
    return {key: value for key, value in contender.state().items() if key != "seconds"}


class MethodContract:
    """What holds for every method; a subclass says for which, and pytest runs each test for each of them.

    Attributes:
        methods: as `--methods` of the command line takes them: names of installed methods, `package.module:Class`, a
            file, with commas between them.
        weights: by method, the hyperparameters that are weights of terms besides those called `weight` or `..._weight`.
    """

    methods: ClassVar[str]
    weights: ClassVar[Mapping[str, Sequence[str]]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "methods" in vars(cls):
            plugins = Registry.installed().select(cls.methods)
            pytest.mark.parametrize("plugin", plugins, ids=[plugin.name for plugin in plugins])(cls)

    def test_it_passes_the_self_check(self, plugin: Plugin) -> None:
        """What `kdbench verify` checks: with its defaults on each pair, with each preset on one."""
        pairs = _supported(plugin)
        for pair, values in [*((pair, {}) for pair in pairs), *((pairs[0], v) for v in plugin.method.presets.values())]:
            training = ShortTraining(*pair)
            # What a method does to a copy of the teacher, the next test does not see.
            teacher = copy.deepcopy(_shared_pair(*pair, training.classes).teacher)
            checks = self_check(training.contender(plugin, values), teacher, training.draw(0), training.compute)
            failed = [f"{check.name}: {check.detail}" for check in checks if not check.passed]
            assert not failed, f"{plugin.name} with {values} on {pair}: {'; '.join(failed)}"

    def test_without_weight_it_is_the_control(self, plugin: Plugin) -> None:
        """The student's first gradients are those of training without a teacher, bit by bit, here on mixed images."""
        if plugin.method.differs:
            pytest.skip(f"open division: {plugin.method.differs}")
        registry, values = Registry.installed(), self._weightless(plugin)
        control = registry.plugins[registry.by_role("control")]
        for pair in _supported(plugin):
            training = ShortTraining(*pair, mixed=True)
            expected, weightless = (
                {name: gradient for name, gradient in gradients.items() if name.startswith("student.")}
                for gradients in (
                    training.gradients(training.contender(control), 0),
                    training.gradients(training.contender(plugin, values), 0),
                )
            )
            assert _same(expected, weightless), (
                f"{plugin.name} with {values} on {pair} is not the control: name in `weights` what else is a weight"
            )

    def test_it_ends_with_the_same_bits_alone_and_beside_others(self, plugin: Plugin) -> None:
        """What it draws depends on the seed alone, and what it is given is left as it was."""
        registry, training = Registry.installed(), ShortTraining(*_supported(plugin)[0])
        alone, beside = training.contender(plugin), training.contender(plugin)
        others = [training.contender(registry.plugins[registry.by_role(role)]) for role in ("control", "baseline")]
        training.train([alone])
        training.train([others[0], beside, others[1]])
        assert _same(_end(alone), _end(beside)), f"{plugin.name} depends on something besides its seed"

    def test_it_goes_on_from_a_checkpoint(self, plugin: Plugin) -> None:
        """What it keeps from batch to batch is in its state dict."""
        training = ShortTraining(*_supported(plugin)[0])
        uninterrupted, resumed = training.contender(plugin), training.contender(plugin)
        training.train([uninterrupted])
        resumed.restore(copy.deepcopy(uninterrupted.state()))
        for contender in (uninterrupted, resumed):
            training.train([contender], range(STEPS, 2 * STEPS))
        assert _same(_end(uninterrupted), _end(resumed)), f"{plugin.name} keeps something that is not in its state dict"

    def test_in_half_precision_all_is_finite(self, plugin: Plugin) -> None:
        """Under autocast to bfloat16."""
        _check_finite(plugin, ShortTraining(*_supported(plugin)[0], compute=BF16))

    @pytest.mark.parametrize(
        ("size", "classes"), [(2, 2), (8, 2), (2, 1000), (8, 1000)], ids=lambda number: str(number)
    )
    def test_few_images_few_and_many_classes(self, plugin: Plugin, size: int, classes: int) -> None:
        """All is finite, or the pair is refused with a reason."""
        try:
            _check_finite(plugin, ShortTraining(*_supported(plugin)[-1], size, classes))
        except UnsupportedPair as error:
            assert str(error), f"{plugin.name} refuses a pair without a reason"

    def _weightless(self, plugin: Plugin) -> dict[str, Any]:
        """The hyperparameters that leave nothing but the hard-label loss."""
        values: dict[str, Any] = {}
        for name, field in plugin.hyperparameters.model_fields.items():
            if name == "ce_weight":
                values[name] = 1.0
            elif name.endswith(("weight", "weights")) or name in self.weights.get(plugin.name, ()):
                values[name] = tuple(0.0 for _ in field.default) if isinstance(field.default, tuple) else 0.0
        return values


def _check_finite(plugin: Plugin, training: ShortTraining) -> None:
    contender = training.contender(plugin)
    for step in range(STEPS):
        for name, gradient in training.gradients(contender, step).items():
            assert torch.isfinite(gradient).all(), f"{plugin.name} on {training}: the gradient of {name} is not finite"
    contender.end_epoch(1, STEPS)
    assert contender.status is None, contender.error
