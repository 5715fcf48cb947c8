"""Images that live on the device as uint8 and are augmented there, a batch at a time."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from kdbench.data.sources import ImageSet
from kdbench.data.stream import Shard, TrainingStream
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

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Images as they are, float (B, C, side, side) in [0, 255] and channels last in memory, and their labels."""
        inner = slice(self._shift, self._shift + self._size)
        for start in range(0, len(self), size):
            images = self._images[start : start + size, inner, inner]
            yield images.permute(0, 3, 1, 2).float(), self.labels[start : start + size]

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


class ResidentStream(TrainingStream):
    """Training batches from images that live on the device."""

    def __init__(
        self, source: ResidentImages, recipe: Recipe, num_classes: int, seed: int, pair: str, shard: Shard | None = None
    ) -> None:
        super().__init__(source.labels, recipe, num_classes, seed, pair, shard)
        self._source = source

    def images(self, epoch: int, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        augment, device, count = self.recipe.augment, self.labels.device, len(self)
        generator = self.generator("augment", epoch)
        offsets = torch.randint(0, 2 * augment.shift + 1, (2, count), generator=generator).to(device)
        flips = (torch.rand(count, generator=generator) < augment.flip).to(device)
        for index in torch.cat(list(batches)).to(device).split(len(batches[0])):
            yield self._source.shifted(index, offsets[0, index], offsets[1, index], flips[index])
