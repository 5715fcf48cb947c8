"""The arena of a (pair, seed): data, teacher and task that every contender of it shares, and entering contenders."""

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch

from kdbench.data import sources
from kdbench.data.resident import ResidentImages, ResidentStream
from kdbench.data.sources import DataSet
from kdbench.data.stream import EvaluationSet, TrainingStream
from kdbench.method import Method, Pair, Task
from kdbench.models.staged import StagedModel
from kdbench.records import TeacherRecord
from kdbench.suites.schema import PairSpec, Suite
from kdbench.training.contender import Contender, build_contender
from kdbench.training.device import Compute
from kdbench.training.selfcheck import Check, self_check
from kdbench.training.teacher import load_teacher, new_model

Split = Literal["test", "val"]
"""What is evaluated: the test split after training on all training images, or a held-out share of those."""

CHECK_BATCH = 8


@dataclass(frozen=True)
class Arena:
    """What the contenders of a (pair, seed) have in common."""

    suite: Suite
    pair: PairSpec
    seed: int
    compute: Compute
    teacher: StagedModel
    teacher_record: TeacherRecord
    stream: TrainingStream
    evaluation: EvaluationSet
    task: Task

    @classmethod
    def enter(cls, suite: Suite, pair: PairSpec, seed: int, split: Split, compute: Compute, data_root: Path) -> "Arena":
        """Load the data (once a process) and the teacher.

        Raises:
            KdbenchError: data or teacher are missing or broken.
        """
        compute.apply()
        recipe, data = suite.recipe_of(pair.student), suite.data
        dataset = load_data(data.source, data_root)
        held_out = data.holdout if data.reserve_holdout or split == "val" else 0.0
        training, validation, test = resident_splits(
            data.source, data_root, held_out, data.image_size, recipe.augment.shift, compute.device
        )
        classes = len(dataset.classes)
        teacher, record = load_teacher(suite, pair.teacher, classes, compute, data_root)
        shape = (len(data.mean), data.image_size, data.image_size)
        return cls(
            suite=suite,
            pair=pair,
            seed=seed,
            compute=compute,
            teacher=teacher,
            teacher_record=record,
            stream=ResidentStream(training, recipe, classes, seed, pair.name),
            evaluation=test if split == "test" else validation,
            task=Task(classes, shape, len(training), recipe.epochs),
        )

    def contender(self, name: str, method: type[Method], hyperparameters: dict[str, Any]) -> Contender:
        """A contender at its fair start.

        Raises:
            UnsupportedPair: the method cannot work on this pair.
        """
        return build_contender(
            name,
            lambda: new_model(self.suite, self.pair.student, self.task.num_classes, self.compute),
            lambda student: method(Pair(self.teacher, student, self.task), hyperparameters),
            self.stream.recipe,
            self.stream.steps_per_epoch,
            self.seed,
            self.pair.name,
            self.compute,
        )

    def check(self, contender: Contender) -> list[Check]:
        """Self-check `contender`, and use it up, on the first images of the training stream."""
        raw, batch = next(self.stream.epoch(0))
        few = slice(min(CHECK_BATCH, len(raw)))
        batch = replace(
            batch,
            labels=batch.labels[few],
            targets=None if batch.targets is None else batch.targets[few],
            index=batch.index[few],
        )
        return self_check(contender, self.teacher, raw[few], batch, self.compute)


@lru_cache(maxsize=4)
def load_data(source: str, root: Path) -> DataSet:
    """A data set, read once a process."""
    return sources.load(source, root)


@lru_cache(maxsize=4)
def resident_splits(
    source: str, root: Path, holdout: float, image_size: int, shift: int, device: torch.device
) -> tuple[ResidentImages, ResidentImages, ResidentImages]:
    """Training images, those held out of them (the share `holdout` of each class) and test images, on the device."""
    dataset = load_data(source, root)
    kept, held = sources.split_holdout(dataset.train.labels, holdout)
    return (
        ResidentImages(dataset.train.take(kept), image_size, shift, device),
        ResidentImages(dataset.train.take(held), image_size, 0, device),
        ResidentImages(dataset.test, image_size, 0, device),
    )
