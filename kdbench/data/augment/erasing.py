"""Random erasing: rectangles of normal noise (arXiv 1708.04896), with the defaults of timm's `pixel` mode."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdbench.data.augment.boxes import Boxes, random_boxes

AREA = (0.02, 1 / 3)
RATIO = (0.3, 1 / 0.3)


def draw_erasing(
    rng: np.random.Generator, count: int, side: int, probability: float
) -> tuple[NDArray[np.bool_], Boxes]:
    """Which of `count` images lose a box, (count,) and (count, 4), and that box; both sides are below `side`."""
    chosen = rng.random(count) < probability
    boxes, is_found = random_boxes(rng, count, side, side, AREA, RATIO, margin=1)
    return chosen & is_found, boxes


@dataclass(frozen=True)
class Noise:
    """Standard normal noise in the normalised space of a data set, in units of [0, 255].

    Attributes:
        mean, std: (C,) of the [0, 1] pixel range.
        generator: on the device of the images.
    """

    mean: Tensor
    std: Tensor
    generator: torch.Generator

    def draw(self, count: int) -> Tensor:
        """(count, C), one row a pixel."""
        normal = torch.randn((count, len(self.mean)), generator=self.generator, device=self.mean.device)
        return (normal * self.std + self.mean) * 255


def erase(images: Tensor, rows: Tensor, boxes: Tensor, pixels: int, noise: Noise) -> None:
    """Replace a box of some of the images by noise, in place.

    Args:
        images: (B, C, H, W) float, not normalised.
        rows: (K,) int64, the images that lose something, each at most once.
        boxes: (K, 4) int64: top, left, height, width.
        pixels: sum of the boxes' areas, known on the host, so that nobody waits for the device.
    """
    top, left, box_height, box_width = boxes.unbind(1)
    areas = box_height * box_width
    of = torch.repeat_interleave(areas, output_size=pixels)
    number = torch.arange(pixels, device=images.device) - (areas.cumsum(0) - areas)[of]
    y, x = top[of] + number // box_width[of], left[of] + number % box_width[of]
    images[rows[of], :, y, x] = noise.draw(pixels)
