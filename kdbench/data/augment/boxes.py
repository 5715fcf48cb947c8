"""Random boxes inside images, drawn on the host for many images at once."""

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.int64]
"""(N, 4): top, left, height, width in pixels."""

ATTEMPTS = 10


def random_boxes(
    rng: np.random.Generator,
    count: int,
    height: int | NDArray[np.int64],
    width: int | NDArray[np.int64],
    area: tuple[float, float],
    ratio: tuple[float, float],
    *,
    margin: int = 0,
) -> tuple[Boxes, NDArray[np.bool_]]:
    """Boxes of random area, shape and place: the first of ten attempts that fits.

    Args:
        height, width: of the images, one for all or (count,).
        area: range of the share of the image's area, uniform.
        ratio: range of width over height, uniform in its logarithm.
        margin: pixels that a box has to be smaller than the image in both directions.

    Returns:
        The boxes and, (count,), whether any attempt fitted; where none did, the box is meaningless.
    """
    target = rng.uniform(*area, (ATTEMPTS, count)) * height * width
    shape = np.exp(rng.uniform(np.log(ratio[0]), np.log(ratio[1]), (ATTEMPTS, count)))
    widths = np.rint(np.sqrt(target * shape)).astype(np.int64)
    heights = np.rint(np.sqrt(target / shape)).astype(np.int64)
    fits = (widths > 0) & (widths <= width - margin) & (heights > 0) & (heights <= height - margin)
    chosen = fits.argmax(0), np.arange(count)
    h, w = np.minimum(heights[chosen], height), np.minimum(widths[chosen], width)
    top = rng.integers(0, height - h + 1, count)
    left = rng.integers(0, width - w + 1, count)
    return np.stack([top, left, h, w], axis=1), fits[chosen]


def resized_crop_boxes(
    rng: np.random.Generator,
    count: int,
    height: int | NDArray[np.int64],
    width: int | NDArray[np.int64],
    area: tuple[float, float],
    ratio: tuple[float, float],
) -> Boxes:
    """Boxes of `torchvision.transforms.RandomResizedCrop`: random ones, else the largest central one within `ratio`."""
    boxes, is_found = random_boxes(rng, count, height, width, area, ratio)
    narrowest, widest = min(ratio), max(ratio)
    shape = np.divide(width, height)
    h = np.where(shape < narrowest, np.rint(np.divide(width, narrowest)), height).astype(np.int64)
    w = np.where(shape > widest, np.rint(np.multiply(height, widest)), width).astype(np.int64)
    central = np.stack(np.broadcast_arrays((height - h) // 2, (width - w) // 2, h, w), axis=-1)
    return np.where(is_found[:, None], boxes, central)
