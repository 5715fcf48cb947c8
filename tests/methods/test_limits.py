"""Where every method has to hold: no weight left, half the precision, few images, few and many classes.

Methods are found, not listed: those that are registered, and every subclass of `Method` in a file of
`methods/kdbench_methods`. One that comes later is covered by being there.
"""

import copy
import importlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import kdbench_methods
import pytest
import torch
from kdbench_methods.parts.losses import standardise
from torch import Tensor

from kdbench.compute.device import Compute
from kdbench.data.batch import Draw
from kdbench.errors import UnsupportedPair
from kdbench.method import Batch, Method, Pair, Task
from kdbench.models.staged import StagedModel
from kdbench.registry import Plugin, Registry
from kdbench.suites.schema import Recipe
from kdbench.training.contender import Contender, build_contender
from kdbench.training.lockstep import teacher_outputs
from tests.conftest import staged

RECIPE = Recipe(epochs=2, batch_size=8, optimizer="sgd", lr=0.01, weight_decay=5e-4, warmup_epochs=0)
FP32 = Compute(torch.device("cpu"), "fp32", threads=1)
BF16 = Compute(torch.device("cpu"), "bf16", threads=1)
STEPS = 2

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "cnn": ("resnet18", {"layers": [1, 1, 1, 1], "channels": [8, 8, 12, 16]}),
    "large cnn": ("resnet18", {"layers": [1, 1, 1, 1], "channels": [8, 12, 16, 24]}),
    "vit": ("vit_tiny_patch16_224", {"patch_size": 8, "embed_dim": 16, "depth": 4, "num_heads": 2}),
    "large vit": ("vit_tiny_patch16_224", {"patch_size": 8, "embed_dim": 24, "depth": 4, "num_heads": 2}),
}
PAIRS = [("large cnn", "cnn"), ("large vit", "cnn"), ("large cnn", "vit")]

WEIGHTS = {"dist": ("beta", "gamma"), "dkd": ("alpha", "beta"), "rld": ("alpha", "beta")}
"""Hyperparameters that are weights without being called so, by the file a method stands in."""


def _plugins() -> list[Plugin]:
    """Every method once, under the name it is registered by or else that of its file."""
    found = dict(Registry.installed().plugins)
    known = {plugin.target for plugin in found.values()}
    for path in sorted(Path(kdbench_methods.__path__[0]).glob("*.py")):
        for target in _methods(f"kdbench_methods.{path.stem}"):
            if target not in known:
                name = path.stem if path.stem not in found else target.rpartition(":")[2]
                found[name] = Plugin(name, target, str(path))
    return list(found.values())


def _methods(module: str) -> list[str]:
    """The methods that a module defines; the module itself, as a method that fails, where it cannot be imported."""
    try:
        members = vars(importlib.import_module(module)).values()
    except Exception:
        return [module]
    classes = [m for m in members if isinstance(m, type) and issubclass(m, Method) and m.__module__ == module]
    return [f"{module}:{m.__name__}" for m in classes if not m.__name__.startswith("_")]


every_method = pytest.mark.parametrize("plugin", _plugins(), ids=lambda plugin: plugin.name)


@lru_cache
def _model(name: str, classes: int) -> StagedModel:
    timm_name, kwargs = MODELS[name]
    return staged(timm_name, classes, **kwargs)


@dataclass(frozen=True)
class Setting:
    """Images, labels and a pair of networks."""

    teacher: str
    student: str
    size: int = 8
    classes: int = 4
    compute: Compute = FP32
    mixed: bool = False

    def contender(self, plugin: Plugin, **options: Any) -> Contender:
        """A contender at its fair start."""
        teacher = _model(self.teacher, self.classes).eval().requires_grad_(False)
        labels = torch.arange(6 * self.size) % self.classes
        task = Task(self.classes, (3, 32, 32), labels, RECIPE.epochs)

        def build(student: StagedModel) -> Method:
            return plugin.method(Pair(teacher, student, task), plugin.hyperparameters(**options).model_dump())

        student = copy.deepcopy(_model(self.student, self.classes)).requires_grad_(True)
        return build_contender(
            plugin.name, lambda: student, build, RECIPE, self.compute, steps_per_epoch=6, seed=0, pair="a:b"
        )

    def learn(self, contender: Contender) -> None:
        """Add the gradients of the one batch of this setting."""
        generator = torch.Generator().manual_seed(0)
        raw, second = (255 * torch.rand(self.size, 3, 32, 32, generator=generator) for _ in range(2))
        index = torch.arange(self.size)
        labels = index % self.classes
        targets = torch.rand(self.size, self.classes, generator=generator).softmax(dim=1) if self.mixed else None
        draw = Draw(raw, Batch(labels, targets, 0.1, index, 0, 0.0), second)
        answer = teacher_outputs(_model(self.teacher, self.classes), [contender], draw, self.compute)
        contender.learn(contender.views(draw), answer, draw.batch)


@lru_cache
def _pairs(plugin: Plugin) -> list[tuple[str, str]]:
    """Those of the pairs that the method supports; there has to be one."""
    supported, reasons = [], []
    for pair in PAIRS:
        try:
            Setting(*pair).contender(plugin)
        except UnsupportedPair as error:
            reasons.append(str(error))
        else:
            supported.append(pair)
    assert supported, f"{plugin.name} refuses all pairs: {reasons}"
    assert all(reasons), "a pair is refused with a reason"
    return supported


def _weightless(plugin: Plugin) -> dict[str, Any]:
    """The hyperparameters that leave nothing but the hard-label loss."""
    file = plugin.target.partition(":")[0].rpartition(".")[2]
    options: dict[str, Any] = {}
    for name, field in plugin.hyperparameters.model_fields.items():
        if name == "ce_weight":
            options[name] = 1.0
        elif name.endswith(("weight", "weights")) or name in WEIGHTS.get(file, ()):
            options[name] = tuple(0.0 for _ in field.default) if isinstance(field.default, tuple) else 0.0
    return options


def _gradients(contender: Contender) -> dict[str, Tensor]:
    own = contender.student.model.named_parameters()
    return {name: parameter.grad for name, parameter in own if parameter.grad is not None}


@lru_cache
def _gradients_of_control(setting: Setting) -> dict[str, Tensor]:
    registry = Registry.installed()
    return _gradients(setting, setting.contender(registry.plugins[registry.by_role("control")]))


def _gradients(setting: Setting, contender: Contender) -> dict[str, Tensor]:
    setting.learn(contender)
    own = contender.student.model.named_parameters()
    return {name: parameter.grad for name, parameter in own if parameter.grad is not None}


@every_method
def test_without_weight_it_is_the_control(plugin: Plugin) -> None:
    """Bit by bit, in the gradients of the first step, here with mixed targets."""
    if plugin.method.differs:
        pytest.skip(f"open division: {plugin.method.differs}")
    for pair in _pairs(plugin):
        setting = Setting(*pair, mixed=True)
        expected = _gradients_of_control(setting)
        found = _gradients(setting, setting.contender(plugin, **_weightless(plugin)))
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[name], found[name]) for name in expected), setting


@every_method
def test_in_half_precision_all_is_finite(plugin: Plugin) -> None:
    _stays_finite(plugin, Setting(*_pairs(plugin)[0], compute=BF16))


@every_method
@pytest.mark.parametrize(
    ("size", "classes"), [(2, 4), (8, 2), (8, 1000)], ids=["2 images", "2 classes", "1000 classes"]
)
def test_few_images_few_and_many_classes(plugin: Plugin, size: int, classes: int) -> None:
    """Finite, or refused with a reason."""
    try:
        _stays_finite(plugin, Setting(*_pairs(plugin)[-1], size, classes))
    except UnsupportedPair as error:
        assert str(error), "a pair is refused with a reason"


def _stays_finite(plugin: Plugin, setting: Setting) -> None:
    """Two steps: some terms appear, or change, with the second, such as those with a memory."""
    contender = setting.contender(plugin)
    for _ in range(STEPS):
        setting.learn(contender)
        for module in (contender.student, contender.method):
            for name, parameter in module.named_parameters():
                assert parameter.grad is None or torch.isfinite(parameter.grad).all(), name
        contender.update()
    contender.end_epoch(1, STEPS)
    assert contender.status is None, contender.error


@pytest.mark.parametrize("name", ["kd", "lskd", "dkd", "mlld"])
def test_standardised_logits_of_two_classes_say_nothing(cpu: Compute, name: str) -> None:
    """They are +-0.707 whatever the logits; of three classes they are not."""
    plugin = Registry.installed().plugins[name]
    values = plugin.hyperparameters(standardise=True).model_dump()
    models = [staged("resnet18", layers=[1, 1, 1, 1], channels=[8, 8, 8, 8]) for _ in range(2)]

    def pair(classes: int) -> Pair:
        return Pair(models[0], models[1], Task(classes, (3, 32, 32), torch.zeros(4, dtype=torch.int64), 1))

    plugin.method(pair(3), values)
    with pytest.raises(UnsupportedPair, match=r"standardised logits of two classes are always \+-0.707"):
        plugin.method(pair(2), values)
    logits = torch.randn(5, 2, requires_grad=True)
    assert torch.allclose(standardise(logits).abs(), torch.tensor(0.5).sqrt(), atol=1e-5)
