"""Pictures for the tests of augmentation, as PIL has them and as batches."""

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor


def pictures(count: int, side: int, channels: int = 3, seed: int = 0) -> NDArray[np.uint8]:
    """(count, side, side, channels): coarse shapes under fine noise, some of small contrast and one constant."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (count, 4, 4, channels)).repeat(-(-side // 4), 1).repeat(-(-side // 4), 2)
    fine = rng.normal(0, 20, (count, side, side, channels))
    contrast = rng.uniform(0.2, 1, (count, 1, 1, 1))
    contrast[0] = 0
    return (128 + contrast * (coarse[:, :side, :side] + fine - 128)).clip(0, 255).astype(np.uint8)


def as_pil(pixels: NDArray[np.uint8]) -> Image.Image:
    """A picture (H, W, C), of one channel or three."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def as_batch(images: list[Image.Image]) -> Tensor:
    """Float (B, C, H, W) in [0, 255], channels last in memory."""
    pixels = np.stack([np.asarray(image).reshape(*image.size[::-1], -1) for image in images])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
