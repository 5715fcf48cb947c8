"""Images that live on the device as uint8 and are augmented there, a batch at a time."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from kdbench.data.batch import Batch
from kdbench.data.mixing import Mixer
from kdbench.data.seeds import derive_seed
from kdbench.data.sources import ImageSet
from kdbench.suites.schema import Recipe


class ResidentImages:
    """A split on the device, padded to the side that the models see (and by the largest random shift).

    Attributes:
        labels: (N,) int64 on the device.
    """

    def __init__(self, split: ImageSet, image_size: int, shift: int, device: torch.device) -> None:
        """Pad and move a split.

        Args:
            image_size: side of the batches, at least that of the images.
            shift: room for random translation, in pixels each way.
        """
        images = torch.from_numpy(split.images)
        height, width = images.shape[1:3]
        if max(height, width) > image_size:
            raise ValueError(f"images of {height}x{width} do not fit into {image_size} px")
        top, left = (image_size - height) // 2, (image_size - width) // 2
        padding = (
            left + shift,
            image_size - width - left + shift,
            top + shift,
            image_size - height - top + shift,
        )
        self._images = F.pad(images, (0, 0, *padding)).to(device)
        self.labels = torch.from_numpy(split.labels).to(device)
        self._size = image_size
        self._shift = shift
        # A view (N, tops, lefts, C, side, side): indexing it copies whole rows of pixels.
        self._windows = self._images.unfold(1, image_size, 1).unfold(2, image_size, 1)

    def __len__(self) -> int:
        return len(self.labels)

    def centred(self, start: int, stop: int) -> Tensor:
        """Images [start, stop) as they are: float (B, C, side, side) in [0, 255], channels last in memory."""
        inner = slice(self._shift, self._shift + self._size)
        return self._images[start:stop, inner, inner].permute(0, 3, 1, 2).float()

    def shifted(self, index: Tensor, top: Tensor, left: Tensor, flip: Tensor) -> Tensor:
        """Images at `index`, each cut out at its own offset and flipped where told.

        Args:
            index, top, left: (B,) int64; offsets in [0, 2 * shift].
            flip: (B,) bool.

        Returns:
            float (B, C, side, side) in [0, 255], channels last in memory.
        """
        cut = self._windows[index, top, left]
        flipped = torch.where(flip[:, None, None, None], cut.flip(3), cut)
        return flipped.to(torch.float32, memory_format=torch.channels_last)


@dataclass(frozen=True)
class TrainingStream:
    """The training batches of a (pair, seed): a pure function of seed, pair and epoch, the same for every method.

    Order, augmentation and mixing have a stream each; all are drawn on the host, so that CPU and GPU agree.
    """

    images: ResidentImages
    recipe: Recipe
    num_classes: int
    seed: int
    pair: str

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch; the rest of the shuffled images waits for the next one."""
        return max(1, len(self.images) // self.recipe.batch_size)

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Batch]]:
        """Images (B, C, side, side), float in [0, 255] and not normalised, with what a method sees of the batch."""
        augment, device, count = self.recipe.augment, self.images.labels.device, len(self.images)
        order = torch.randperm(count, generator=self._generator("order", epoch)).to(device)
        generator = self._generator("augment", epoch)
        offsets = torch.randint(0, 2 * augment.shift + 1, (2, count), generator=generator).to(device)
        flips = (torch.rand(count, generator=generator) < augment.flip).to(device)
        mixer = Mixer(augment, self.recipe.label_smoothing, self.num_classes, self._rng("mix", epoch))
        for step in range(self.steps_per_epoch):
            index = order[step * self.recipe.batch_size : (step + 1) * self.recipe.batch_size]
            images = self.images.shifted(index, offsets[0, index], offsets[1, index], flips[index])
            images, labels, targets = mixer(images, self.images.labels[index])
            yield (
                images,
                Batch(
                    labels=labels,
                    targets=targets,
                    smoothing=self.recipe.label_smoothing,
                    index=index,
                    epoch=epoch,
                    progress=(epoch + step / self.steps_per_epoch) / self.recipe.epochs,
                ),
            )

    def _generator(self, axis: str, epoch: int) -> torch.Generator:
        return torch.Generator().manual_seed(derive_seed(self.seed, axis, self.pair, epoch))

    def _rng(self, axis: str, epoch: int) -> np.random.Generator:
        return np.random.default_rng(derive_seed(self.seed, axis, self.pair, epoch))
