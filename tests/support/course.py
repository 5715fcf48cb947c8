"""A small training on random images with real models and methods, which several tests look at."""

import numpy as np

from kdbench.compute.device import Compute
from kdbench.data.device_stream import DeviceImages, DeviceStream
from kdbench.data.sources import ImageSet
from kdbench.method import Method, Pair, Task
from kdbench.models.create import create_model
from kdbench.models.spec import ModelSpec
from kdbench.models.staged import StagedModel
from kdbench.registry import Registry
from kdbench.suites.schema import Augment, Data, Recipe
from kdbench.testing import staged
from kdbench.training.contender import Contender, build_contender
from kdbench.training.lockstep import train

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
# One student with drop path and dropout, one with batch norm and drop path, one with neither.
STUDENTS = {
    "vit": (
        "vit_tiny_patch16_224",
        {"patch_size": 8, "embed_dim": 24, "depth": 4, "num_heads": 2, "drop_path_rate": 0.3, "proj_drop_rate": 0.1},
    ),
    "resnet": ("resnet18", {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16], "drop_path_rate": 0.2}),
    "plain": ("vit_tiny_patch16_224", {"patch_size": 8, "embed_dim": 24, "depth": 4, "num_heads": 2}),
}
TEACHERS = {
    "vit": ("resnet18", {"layers": [1, 1, 1, 1], "channels": [8, 16, 16, 32]}),
    "resnet": ("vit_tiny_patch16_224", {"patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 2}),
    "plain": ("resnet18", {"layers": [1, 1, 1, 1], "channels": [8, 16, 16, 32]}),
}
METHODS = ["scratch", "kd", "fitnet", "ofa", "assistant"]
FURTHER = ["mlld", "crd", "simkd", "pat"]
"""With a second view, memory banks, a prediction of its own, a teacher that is run again."""


class Course:
    """A small training on random images with real models and methods."""

    def __init__(self, student: str, compute: Compute, recipe: Recipe = RECIPE) -> None:
        generator = np.random.default_rng(0)
        images = ImageSet(
            generator.integers(0, 256, (48, 28, 28, 3), dtype=np.uint8), generator.integers(0, 4, 48).astype(np.int64)
        )
        data = Data(source="-", image_size=32, mean=(0.5,) * 3, std=(0.25,) * 3)
        resident = DeviceImages(images, data, recipe.augment.shift, compute.device)
        self.compute = compute
        self.stream = DeviceStream(resident, recipe, 4, 0, "a:b", compute.replica)
        name, kwargs = TEACHERS[student]
        self.teacher = staged(name, 4, **kwargs).to(compute.device).eval().requires_grad_(False)
        self.recipe = recipe
        self.student = STUDENTS[student]
        self.plugins = Registry.installed().plugins

    def contender(self, name: str, seed: int = 0) -> Contender:
        task = Task(4, (3, 32, 32), self.stream.labels, self.recipe.epochs)

        def method(student: StagedModel) -> Method:
            plugin = self.plugins[name]
            return plugin.method(Pair(self.teacher, student, task), plugin.hyperparameters().model_dump())

        return build_contender(
            name,
            lambda: fresh(*self.student).to(self.compute.device),
            method,
            self.recipe,
            self.compute,
            steps_per_epoch=self.stream.steps_per_epoch,
            seed=seed,
            pair="a:b",
        )

    def train(self, *names: str) -> dict[str, Contender]:
        contenders = [self.contender(name) for name in names]
        train(contenders, self.teacher, self.stream, self.compute)
        for contender in contenders:
            assert contender.status is None, contender.error
        return {contender.name: contender for contender in contenders}


def fresh(name: str, kwargs: dict) -> StagedModel:
    """A student with weights from the current random stream."""
    model = create_model(ModelSpec(timm=name, kind="cnn", recipe="-", kwargs=kwargs), 4, 3, 32)
    return StagedModel(model, (3, 32, 32), ((0.5,) * 3, (0.25,) * 3))
