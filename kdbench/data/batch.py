"""A batch as it was drawn, and what a method sees of it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol

from torch import Tensor
from torch.nn import functional as F

from kdbench.data.normalise import normalise
from kdbench.models.features import Normalisation


@dataclass(frozen=True)
class Batch:
    """Labels and bookkeeping of one batch; the images themselves stay with the loop.

    Attributes:
        labels: (B,) int64 hard labels; the heavier of the two where images are mixed.
        targets: (B, classes) soft targets where images are mixed (mixup, cutmix), else None.
        smoothing: label smoothing of the recipe, part of `targets` already where those are given.
        index: (B,) int64 position of each image in the training set.
        epoch: epochs finished so far.
        progress: share of the training done, in [0, 1).
    """

    labels: Tensor
    targets: Tensor | None
    smoothing: float
    index: Tensor
    epoch: int
    progress: float

    def part(self, which: slice) -> "Batch":
        """What there is to see of some of the images."""
        targets = None if self.targets is None else self.targets[which]
        return replace(self, labels=self.labels[which], targets=targets, index=self.index[which])

    def cross_entropy(self, logits: Tensor) -> Tensor:
        """The recipe's hard-label loss of `logits` (B, classes), mean over the batch."""
        if self.targets is not None:
            return F.cross_entropy(logits, self.targets)
        return F.cross_entropy(logits, self.labels, label_smoothing=self.smoothing)


class Normalised(Protocol):
    """A model that says how its input is normalised."""

    @property
    def normalisation(self) -> Normalisation: ...


class Draw:
    """A batch as it was drawn from the training stream, shared by all that learn from it.

    Attributes:
        images: (B, C, H, W), float in [0, 255], not normalised.
        second: another view of the same images, where a method asks for one.
        batch: what a method sees of the batch.
    """

    def __init__(self, images: Tensor, batch: Batch, second: Tensor | None = None) -> None:
        self.images = images
        self.second = second
        self.batch = batch
        self._views: dict[tuple[Normalisation, bool], Tensor] = {}

    def __len__(self) -> int:
        return len(self.images)

    def view(self, model: Normalised, second: bool = False) -> Tensor:
        """The images as `model` takes them; they are normalised once for each distinct mean and standard deviation."""
        key = model.normalisation, second
        if key not in self._views:
            images = self.second if second else self.images
            assert images is not None, "a second view is drawn where a method asks for one"
            self._views[key] = normalise(images, model.normalisation)
        return self._views[key]

    def part(self, which: slice) -> "Draw":
        """Some of the images, with what belongs to them."""
        second = None if self.second is None else self.second[which]
        return Draw(self.images[which], self.batch.part(which), second)

    def parts(self, most: int | None) -> Iterator["Draw"]:
        """The whole in as few parts of at most `most` images as will do, in order; itself where that is one, or None.

        Their sizes differ by one at most: batch norm cannot train on a last part of a single image.
        """
        if most is None or most >= len(self):
            yield self
            return
        count = -(-len(self) // most)
        ends = [len(self) * number // count for number in range(count + 1)]
        for start, end in pairwise(ends):
            yield self.part(slice(start, end))
