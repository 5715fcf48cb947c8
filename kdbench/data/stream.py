"""Which images make which batch, and what a method sees of them; where the images come from is left open."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from kdbench.compute.distributed import ALONE, Replica
from kdbench.data.augment.erasing import Noise
from kdbench.data.augment.members import Order
from kdbench.data.augment.steps import Erasing
from kdbench.data.batch import Batch
from kdbench.data.mixing import Mixer
from kdbench.data.seeds import Axis, derive_seed
from kdbench.suites.schema import Data, Recipe

SECOND_VIEW = "rand-m3-n2"
"""RandAugment on top of a recipe without it, for second views: two operations at a third of the full strength, as
Multi-Level Logit Distillation has them (CVPR 2023; magnitude 10 of 30 in its code, 3 of 10 in timm's notation)."""


class EvaluationSet(Protocol):
    """A split to be evaluated on."""

    def __len__(self) -> int: ...

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Images (B, C, side, side), float in [0, 255] and not normalised, and labels (B,), in a fixed order."""
        ...


class Counted:
    """A split to be evaluated on that counts how often it was read, as nothing else hands out its images.

    Attributes:
        part: which split.
        reads: how often its images were asked for.
    """

    def __init__(self, part: str, images: EvaluationSet) -> None:
        self.part = part
        self.reads = 0
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Those of the split, in its order."""
        self.reads += 1
        return self._images.batches(size)


class TrainingStream(ABC):
    """The training batches of a (pair, seed): a pure function of seed, pair and epoch, the same for every method.

    Order, augmentation and mixing have a random stream each, drawn on the host, so that CPU and GPU agree.
    """

    def __init__(
        self, labels: Tensor, recipe: Recipe, num_classes: int, seed: int, pair: str, replica: Replica | None = None
    ) -> None:
        """Args:
        labels: (N,) int64 of the training images, on the device that trains.

        Attributes:
            view: which view of the images this is, from 1.
            ahead: images that are prepared ahead of the batch that is asked for.
        """
        self.labels = labels
        self.recipe = recipe
        self.num_classes = num_classes
        self.seed = seed
        self.pair = pair
        self.replica = replica or ALONE
        self.view = 1
        self.ahead = 0

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch; the rest of the shuffled images waits for the next one."""
        return max(1, len(self) // self.recipe.batch_size)

    @abstractmethod
    def images(self, epoch: int, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        """Augmented images of an epoch, a tensor for each of `batches`.

        Args:
            batches: positions in the training set, (B,) int64 on the host.

        Yields:
            (B, C, side, side) on the device, float in [0, 255], not normalised.
        """

    @abstractmethod
    def with_recipe(self, recipe: Recipe) -> "TrainingStream":
        """The stream of the same images under another recipe."""

    def second_view(self, epoch: int) -> Iterator[Tensor]:
        """The images of an epoch, batch by batch, augmented anew: by the recipe, and more strongly where that is weak.

        They are not mixed, and so belong to the same labels and targets only where the recipe does not mix either.
        """
        augment = self.recipe.augment
        stronger = augment.model_copy(update={"randaugment": augment.randaugment or SECOND_VIEW})
        other = self.with_recipe(self.recipe.model_copy(update={"augment": stronger}))
        other.view = 2
        return other.images(epoch, self._batches(epoch))

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Batch]]:
        """Images (B, C, side, side), float in [0, 255] and not normalised, with what a method sees of the batch."""
        batches, steps = self._batches(epoch), self.steps_per_epoch
        # One copy to the device for all batches: a copy for each would wait for the device.
        indices = torch.cat(batches).to(self.labels.device).split(len(batches[0]))
        mixer = Mixer(self.recipe.augment, self.recipe.label_smoothing, self.num_classes, self.rng("mix", epoch))
        for step, (images, index) in enumerate(zip(self.images(epoch, batches), indices, strict=True)):
            images, labels, targets = mixer(images, self.labels[index])
            yield (
                images,
                Batch(
                    labels=labels,
                    targets=targets,
                    smoothing=self.recipe.label_smoothing,
                    index=index,
                    epoch=epoch,
                    progress=(epoch + step / steps) / self.recipe.epochs,
                ),
            )

    def _batches(self, epoch: int) -> list[Tensor]:
        """Positions in the training set, (B,) each, on the host."""
        size = self.recipe.batch_size
        order = torch.randperm(len(self), generator=self.generator("order", epoch))
        return [self.replica.of(order[step * size : (step + 1) * size]) for step in range(self.steps_per_epoch)]

    def seed_of(self, axis: Axis, epoch: int, *indices: int) -> int:
        """The seed of an axis, another one for each view."""
        # Negative, and so no image and no process.
        view = (-self.view,) if self.view > 1 else ()
        return derive_seed(self.seed, axis, self.pair, epoch, *indices, *view)

    def erasing(self, epoch: int, data: Data, order: Order) -> Erasing | None:
        """The recipe's random erasing of an epoch, on the device; None where it has none."""
        if not self.recipe.augment.erasing:
            return None
        seed = self.seed_of("noise", epoch, self.replica.rank)
        mean, std = torch.tensor([data.mean, data.std], device=order.device)
        noise = Noise(mean, std, torch.Generator(order.device).manual_seed(seed))
        return Erasing(self.recipe.augment.erasing, noise, data.image_size, self.rng("erasing", epoch), order)

    def generator(self, axis: Axis, epoch: int) -> torch.Generator:
        """The host's random stream of an axis."""
        return torch.Generator().manual_seed(self.seed_of(axis, epoch))

    def rng(self, axis: Axis, epoch: int) -> np.random.Generator:
        """The random stream of an axis for numpy, on the host."""
        return np.random.default_rng(self.seed_of(axis, epoch))
