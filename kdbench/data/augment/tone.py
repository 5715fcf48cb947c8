"""Tone curves and sharpness with PIL's arithmetic (ImageOps, ImageEnhance), on images that hold whole numbers."""

import torch
from torch import Tensor

from kdbench.data.augment.colour import blend


def apply_table(images: Tensor, tables: Tensor) -> Tensor:
    """Replace every value by that of a table.

    Args:
        images: (B, C, H, W).
        tables: (B, 1 or C, 256).
    """
    count, channels = images.shape[:2]
    values = images.flatten(2).long()
    return tables.float().expand(count, channels, 256).gather(2, values).view(images.shape)


def auto_contrast(images: Tensor) -> Tensor:
    """Stretch every channel (B, C, H, W) to the full range."""
    low, high = images.flatten(2).double().aminmax(dim=2, keepdim=True)
    value = torch.arange(256, dtype=torch.float64, device=images.device)
    # In float64 and term by term as in PIL, as the cut to whole numbers shows the last bit. A Python number over a
    # tensor would be a product with the reciprocal, which is not the quotient.
    scale = value[-1] / (high - low).clamp(min=1)
    stretched = (value * scale - low * scale).clamp(0, 255).floor()
    return apply_table(images, torch.where(high > low, stretched, value))


def equalize(images: Tensor) -> Tensor:
    """Spread the values of every channel (B, C, H, W) evenly."""
    values = images.flatten(2).long()
    one = torch.ones((), dtype=torch.int64, device=images.device)
    histogram = torch.zeros((*values.shape[:2], 256), dtype=torch.int64, device=images.device)
    histogram.scatter_add_(2, values, one.expand(values.shape))
    brightest = histogram.gather(2, values.amax(2, keepdim=True))
    step = (values.shape[2] - brightest) // 255
    below = histogram.cumsum(2) - histogram
    spread = ((step // 2 + below) // step.clamp(min=1)).clamp(max=255)
    return apply_table(images, torch.where(step > 0, spread, torch.arange(256, device=images.device)))


def sharpen(images: Tensor, factor: Tensor) -> Tensor:
    """Blend images (B, C, H, W) with a smooth copy, whose border is as it was; factor (B,), 1 changes nothing."""
    rows = images[:, :, :-2] + images[:, :, 1:-1] + images[:, :, 2:]
    box = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    smooth = images.clone()
    inner = smooth[:, :, 1:-1, 1:-1]
    inner.copy_(((box + 4 * inner) / 13 + 0.5).floor_())
    return blend(smooth, images, factor)
