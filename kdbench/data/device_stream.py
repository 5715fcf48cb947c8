"""Images that live on the device as uint8 and are augmented there, a batch at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import floor

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from kdbench.compute.distributed import Replica
from kdbench.data.augment.boxes import resized_crop_boxes
from kdbench.data.augment.members import Order
from kdbench.data.augment.randaugment import Policy
from kdbench.data.augment.resample import resample, resize_weights
from kdbench.data.augment.steps import Jitter, RandAugment, Step
from kdbench.data.sources import ImageSet
from kdbench.data.stream import EvaluationSet, TrainingStream
from kdbench.errors import KdbenchError
from kdbench.suites.schema import Data, Recipe


class DeviceImages:
    """A split on the device, of images of one size.

    Attributes:
        data: how images get to the models' side: under `pad` they lie there padded already, room for a shift included.
        shift: that room, in pixels each way.
        images: (N, H, W, C) uint8 in their own size.
        labels: (N,) int64.
    """

    def __init__(self, split: ImageSet, data: Data, shift: int, device: torch.device) -> None:
        """Pad, where they are padded, and move.

        Raises:
            KdbenchError: the images are larger than the side they should be padded to.
        """
        images = torch.from_numpy(split.images)
        height, width, side = *images.shape[1:3], data.image_size
        self.data = data
        self.shift = shift
        self.labels = torch.from_numpy(split.labels).to(device)
        if data.fit == "resize":
            self.images = images.to(device)
            return
        if max(height, width) > side:
            raise KdbenchError(
                f"images of {height}x{width} px cannot be padded to image_size = {side}; "
                'set fit = "resize" under [data] of the suite'
            )
        top, left = shift + (side - height) // 2, shift + (side - width) // 2
        padded_side = side + 2 * shift
        padding = (left, padded_side - width - left, top, padded_side - height - top)
        padded = F.pad(images, (0, 0, *padding)).to(device)
        self.images = padded[:, top : top + height, left : left + width]
        # A view (N, tops, lefts, C, side, side): indexing it copies whole rows of pixels.
        self._windows = padded.unfold(1, side, 1).unfold(2, side, 1)

    def __len__(self) -> int:
        return len(self.labels)

    def evaluation(self, eval_crop: float) -> EvaluationSet:
        """The images as a split to be evaluated on, resized so that `eval_crop` of the side is left by a centre crop.

        Raises:
            KdbenchError: a crop of images that are padded, not resized.
        """
        if self.data.fit == "resize":
            return _Resized(self.images, self.labels, self.data, eval_crop)
        if eval_crop != 1:
            raise KdbenchError(f'eval_crop = {eval_crop} needs fit = "resize" under [data] of the suite')
        return _Padded(self._windows[:, self.shift, self.shift], self.labels)

    def shifted(self, index: Tensor, top: Tensor, left: Tensor, flip: Tensor) -> Tensor:
        """Padded images at `index`, each cut out at its own offset and flipped where told.

        Args:
            index, top, left: (B,) int64; offsets in [0, 2 * shift].
            flip: (B,) bool.

        Returns:
            float (B, C, side, side) in [0, 255], channels last in memory.
        """
        cut = self._windows[index, top, left]
        flipped = torch.where(flip[:, None, None, None], cut.flip(3), cut)
        return flipped.to(torch.float32, memory_format=torch.channels_last)

    def resized(self, index: Tensor, boxes: Tensor, top: Tensor, left: Tensor, flip: Tensor, cubic: Tensor) -> Tensor:
        """Boxes of the images at `index`, resized to the models' side, shifted and flipped where told.

        Args:
            boxes: (B, 4) int64: top, left, height, width.
            top, left: (B,) int64, shift of what is seen, in pixels of the result; zeros come in.
            flip, cubic: (B,) bool; the cubic filter instead of the linear one.

        Returns:
            float (B, C, side, side) in [0, 255], channels last in memory.
        """
        images, side = self.images[index], self.data.image_size
        pixel = torch.arange(side, device=images.device)
        across = torch.where(flip[:, None], pixel.flip(0), pixel)
        rows = resize_weights(boxes[:, 0], boxes[:, 2], side, pixel + top[:, None], images.shape[1], cubic)
        columns = resize_weights(boxes[:, 1], boxes[:, 3], side, across + left[:, None], images.shape[2], cubic)
        return resample(images, rows, columns)


@dataclass(frozen=True)
class _Padded:
    """Images (N, C, side, side) as they are."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in zip(self.images.split(size), self.labels.split(size), strict=True):
            yield images.float(), labels


class _Resized:
    """Images whose shorter side is resized to the models' side over `crop`, and the centre of that.

    Roundings are those of torchvision's Resize and CenterCrop, as timm calls them.
    """

    def __init__(self, images: Tensor, labels: Tensor, data: Data, crop: float) -> None:
        self._images, self._labels = images, labels
        side, (height, width), device = data.image_size, images.shape[1:3], images.device
        shorter, target = min(height, width), floor(side / crop)
        cubic = torch.tensor([data.interpolation == "bicubic"], device=device)

        def weights(length: int) -> Tensor:
            scaled = target * length // shorter
            pixel = torch.arange(side, device=device) + round((scaled - side) / 2)
            start, end = torch.tensor([[0], [length]], device=device)
            return resize_weights(start, end, scaled, pixel[None], length, cubic)

        self._rows, self._columns = weights(height), weights(width)

    def __len__(self) -> int:
        return len(self._labels)

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in zip(self._images.split(size), self._labels.split(size), strict=True):
            yield resample(images, self._rows, self._columns), labels


class DeviceStream(TrainingStream):
    """Training batches from images that live on the device."""

    def __init__(
        self,
        source: DeviceImages,
        recipe: Recipe,
        num_classes: int,
        seed: int,
        pair: str,
        replica: Replica | None = None,
    ) -> None:
        """Raises:
        KdbenchError: a RandAugment policy that is not supported, or padded images without room for the recipe's shift.
        """
        super().__init__(source.labels, recipe, num_classes, seed, pair, replica)
        augment = recipe.augment
        self._source = source
        self._policy = Policy.parse(augment.randaugment) if augment.randaugment else None
        self._gathers = augment.resized_crop is None and source.data.fit == "pad"
        if self._gathers and augment.shift > source.shift:
            raise KdbenchError(f"images padded for a shift of {source.shift} px cannot be shifted by {augment.shift}")

    def with_recipe(self, recipe: Recipe) -> "DeviceStream":
        return DeviceStream(self._source, recipe, self.num_classes, self.seed, self.pair, self.replica)

    def images(self, epoch: int, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        index = torch.cat(list(batches))
        order = Order(index.numpy(), len(batches[0]), len(self), self.labels.device)
        steps = self._steps(epoch, order)
        for step, images in enumerate(self._cut(epoch, index.to(order.device).split(order.batch))):
            for change in steps:
                images = change(images, step)
            yield images.contiguous(memory_format=torch.channels_last)

    def _cut(self, epoch: int, indices: Sequence[Tensor]) -> Iterator[Tensor]:
        """Crop, resize and flip."""
        augment, source, device, count = self.recipe.augment, self._source, self.labels.device, len(self)
        generator = self.generator("augment", epoch)
        shift = torch.randint(0, 2 * augment.shift + 1, (2, count), generator=generator) - augment.shift
        flips = (torch.rand(count, generator=generator) < augment.flip).to(device)
        if self._gathers:
            tops, lefts = (shift + source.shift).to(device)
            for index in indices:
                yield source.shifted(index, tops[index], lefts[index], flips[index])
            return
        rng = self.rng("crop", epoch)
        height, width = source.images.shape[1:3]
        if augment.resized_crop:
            shift.zero_()
            drawn = resized_crop_boxes(rng, count, height, width, augment.resized_crop, augment.ratio)
        else:
            square = min(height, width)
            drawn = np.array([[(height - square) // 2, (width - square) // 2, square, square]]).repeat(count, 0)
        boxes = torch.from_numpy(drawn).to(device)
        chance = {"bilinear": 0.0, "bicubic": 1.0, "random": 0.5}[augment.interpolation]
        cubic = torch.from_numpy(rng.random(count) < chance).to(device)
        tops, lefts = shift.to(device)
        for index in indices:
            yield source.resized(index, boxes[index], tops[index], lefts[index], flips[index], cubic[index])

    def _steps(self, epoch: int, order: Order) -> list[Step]:
        """What comes after the crop."""
        augment, data = self.recipe.augment, self._source.data
        side, steps = data.image_size, list[Step]()
        if self._policy:
            rng = self.rng("randaugment", epoch)
            steps.append(RandAugment(self._policy, augment.interpolation, data.mean, side, rng, order))
        elif augment.colour_jitter:
            steps.append(Jitter(augment.colour_jitter, self.rng("colour", epoch), order))
        erasing = self.erasing(epoch, data, order)
        return [*steps, erasing] if erasing else steps
