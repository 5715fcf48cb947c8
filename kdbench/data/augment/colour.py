"""Changes of brightness, contrast and saturation with PIL's arithmetic; the colour jitter of torchvision."""

from itertools import permutations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BRIGHTNESS, CONTRAST, SATURATION = range(3)
ORDERS = np.array(list(permutations((BRIGHTNESS, CONTRAST, SATURATION))))


def grey(images: Tensor) -> Tensor:
    """ITU-R 601 luma (B, 1, H, W) in PIL's fixed point, exact in float32; images of one channel are grey already."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.split(1, dim=1)
    return (red * 19595).add_(green, alpha=38470).add_(blue, alpha=7471).add_(32768).div_(65536).floor_()


def blend(base: Tensor, images: Tensor, factor: Tensor) -> Tensor:
    """`base` at factor 0, `images` at 1, beyond them otherwise, clipped and cut to whole numbers.

    Args:
        base: broadcasts to `images` (B, C, H, W).
        factor: (B,).
    """
    return torch.lerp(base, images, factor.view(-1, 1, 1, 1)).clamp_(0, 255).floor_()


def enhance(images: Tensor, kind: Tensor, factor: Tensor) -> Tensor:
    """Change one property of each image; a factor of 1 leaves it as it is.

    Args:
        images: (B, C, H, W).
        kind: (B,), BRIGHTNESS (blended with black), CONTRAST (with its mean grey) or SATURATION (with its grey image).
        factor: (B,) float.
    """
    kind = kind.view(-1, 1, 1, 1)
    luma = grey(images)
    mean = luma.mean((2, 3), keepdim=True).add_(0.5).floor_()
    return blend(luma * (kind == SATURATION) + mean * (kind == CONTRAST), images, factor)


def draw_jitter(rng: np.random.Generator, count: int, strength: float) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Orders (count, 3) of the three kinds and their factors (count, 3), uniform in 1 -/+ `strength`, not negative."""
    orders = ORDERS[rng.integers(0, len(ORDERS), count)]
    return orders, rng.uniform(max(0.0, 1 - strength), 1 + strength, (count, 3)).astype(np.float32)


def jitter(images: Tensor, orders: Tensor, factors: Tensor) -> Tensor:
    """Apply what `draw_jitter` drew for these images; `torchvision.transforms.ColorJitter` without a change of hue."""
    for kind, factor in zip(orders.unbind(1), factors.unbind(1), strict=True):
        images = enhance(images, kind, factor)
    return images
