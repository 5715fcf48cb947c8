"""The arena of a (pair, seed): data, teacher and task that every contender of it shares, and entering contenders."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import update_bn

from kdbench.compute.device import Compute
from kdbench.data import opening
from kdbench.data.normalise import normalise
from kdbench.data.stream import Counted, TrainingStream
from kdbench.method import Method, Pair, Task
from kdbench.models.staged import StagedModel
from kdbench.results.schema import Split, TeacherRecord
from kdbench.suites.schema import PairSpec, Recipe, Suite
from kdbench.training.contender import Contender, build_contender
from kdbench.training.guard import build_watched
from kdbench.training.lockstep import drawn
from kdbench.training.selfcheck import Check, self_check
from kdbench.training.teacher import load_teacher, new_model

CHECK_BATCH = 8
REHEARSED_CLASSES = 10
"""Where a suite finds its classes in the data and there is none."""


@dataclass(frozen=True)
class Arena:
    """What the contenders of a (pair, seed) have in common.

    Attributes:
        evaluation: what their accuracies are of.
        validation: held-out training images, where that is another split and the suite reserves them.
    """

    suite: Suite
    pair: PairSpec
    seed: int
    compute: Compute
    teacher: StagedModel
    teacher_record: TeacherRecord
    stream: TrainingStream
    evaluation: Counted
    validation: Counted | None
    task: Task

    @classmethod
    def enter(cls, suite: Suite, pair: PairSpec, seed: int, split: Split, compute: Compute, data_root: Path) -> "Arena":
        """Load the data (once a process) and the teacher.

        Raises:
            KdbenchError: data or teacher are missing or broken.
        """
        compute.apply()
        recipe, data = suite.recipe_of(pair.student), suite.data
        classes = len(opening.open_dataset(data, data_root).classes)
        held_out = data.held_out(split)
        teacher, record = load_teacher(suite, pair.teacher, classes, compute, data_root)

        def evaluated_on(part: Split, limit: int | None = data.test_limit) -> Counted:
            limited = data.model_copy(update={"test_limit": limit})
            return opening.open_evaluation(limited, data_root, part, held_out, recipe.eval_crop, compute)

        curve_limit = min(filter(None, (data.curve_limit, data.test_limit)), default=None)
        stream = opening.open_training(data, data_root, held_out, recipe, compute, seed=seed, pair=pair.name)
        return cls(
            suite=suite,
            pair=pair,
            seed=seed,
            compute=compute,
            teacher=teacher,
            teacher_record=record,
            stream=stream,
            evaluation=evaluated_on(split),
            validation=evaluated_on("val", curve_limit) if split == "test" and data.reserve_holdout else None,
            task=Task(classes, data.image_shape, stream.labels, recipe.epochs),
        )

    @classmethod
    def without_data(cls, suite: Suite, pair: PairSpec, compute: Compute) -> "Arena":
        """An arena for self-checks where there is no data or no trained teacher: noise and fresh weights."""
        compute.apply()
        data, recipe = suite.data, suite.recipe_of(pair.student)
        classes = data.classes or REHEARSED_CLASSES
        noise = NoiseStream(data.image_shape, recipe, classes, pair.name, compute.device)
        teacher = new_model(suite, pair.teacher, classes, compute).requires_grad_(False).eval()
        # The features of a trained network are of its batch norms' scale; those of a fresh one may be of any.
        raw, _ = next(noise.epoch(0))
        update_bn([normalise(raw, teacher.normalisation)], teacher.model)
        spec = suite.models[pair.teacher]
        record = TeacherRecord(name=pair.teacher, timm=spec.timm, kind=spec.kind, sha256="", top1=0.0)
        task = Task(classes, data.image_shape, noise.labels, recipe.epochs)
        return cls(suite, pair, 0, compute, teacher, record, noise, Counted("noise", noise), None, task)

    def contender(self, name: str, method: type[Method], hyperparameters: dict[str, Any]) -> Contender:
        """A contender at its fair start.

        Raises:
            UnsupportedPair: the method cannot work on this pair.
            KdbenchError: building it changes what it has to leave alone.
        """

        def build(student: StagedModel) -> Method:
            pair = Pair(self.teacher, student, self.task)
            return build_watched(lambda: method(pair, hyperparameters), method, self.teacher, student)

        return build_contender(
            name,
            lambda: new_model(self.suite, self.pair.student, self.task.num_classes, self.compute),
            build,
            self.stream.recipe,
            self.compute,
            steps_per_epoch=self.stream.steps_per_epoch,
            seed=self.seed,
            pair=self.pair.name,
        )

    def with_own_teacher(self) -> "Arena":
        """The arena with a copy of the teacher, for a self-check: what damages the copy damages no other method."""
        return replace(self, teacher=copy.deepcopy(self.teacher))

    def check(self, contender: Contender) -> list[Check]:
        """Self-check `contender`, and use it up, on the first images of the training stream."""
        draw = next(drawn([contender], self.stream, 0))
        # As many at once as the losses of the training see.
        few = draw.part(slice(min(CHECK_BATCH, self.compute.micro_batch or CHECK_BATCH, len(draw))))
        return self_check(contender, self.teacher, few, self.compute)


class NoiseStream(TrainingStream):
    """A few images of uniform noise, to train and to evaluate on."""

    def __init__(
        self, shape: tuple[int, int, int], recipe: Recipe, num_classes: int, pair: str, device: torch.device
    ) -> None:
        labels = torch.arange(CHECK_BATCH, device=device) % num_classes
        super().__init__(labels, recipe.model_copy(update={"batch_size": CHECK_BATCH}), num_classes, 0, pair)
        self._shape = shape

    def with_recipe(self, recipe: Recipe) -> "NoiseStream":
        return NoiseStream(self._shape, recipe, self.num_classes, self.pair, self.labels.device)

    def images(self, epoch: int, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        generator = self.generator("rehearsal", epoch)
        for batch in batches:
            yield 255 * torch.rand(len(batch), *self._shape, generator=generator).to(self.labels.device)

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The images as an evaluation set."""
        (images,) = self.images(0, [torch.arange(len(self))])
        yield from zip(images.split(size), self.labels.split(size), strict=True)
