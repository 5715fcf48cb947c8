"""Resizing a crop of every image as two batched matrix products, with the filters and roundings of PIL."""

import torch
from torch import Tensor


def resize_weights(start: Tensor, length: Tensor, scaled: int, target: Tensor, size: int, cubic: Tensor) -> Tensor:
    """Weights of a resize along one axis, antialiased as in PIL: the filter widens with the reduction.

    A pixel outside the resized crop has no weights at all and comes out black.

    Args:
        start, length: (B,) the crop, in pixels of the source.
        scaled: pixels that the crop is resized to.
        target: (B, out) int64, which of those pixels are wanted.
        size: pixels of the source.
        cubic: (B,) bool, the cubic filter (a = -1/2) instead of the linear one.

    Returns:
        (B, out, size) float32, rows sum to one.
    """
    start, length, cubic = start[:, None, None].float(), length[:, None, None].float(), cubic[:, None, None]
    scale, target = length / scaled, target[..., None]
    inside = (target >= 0) & (target < scaled)
    centre = start + (target + 0.5) * scale
    source = torch.arange(size, device=start.device) + 0.5
    distance = (source - centre).abs() / scale.clamp(min=1)
    near, far = distance.clamp(max=1), distance.clamp(1, 2)
    weights = torch.where(
        cubic,
        ((1.5 * near - 2.5) * near * near + 1) + (((2.5 - 0.5 * far) * far - 4) * far + 2),
        1 - near,
    )
    weights = weights * (inside & (source > start) & (source < start + length))
    # A row without weights stays zero, whatever it is divided by.
    return weights / weights.sum(-1, keepdim=True).where(inside, 1)


def resample(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Resize images by weights, columns first and rounded in between, as PIL does.

    Results part from PIL's by a level where a sum lies at a half; in TF32, whose products are coarser, in some 3 % of
    the pixels.

    Args:
        images: (B, H, W, C) uint8.
        rows: (B or 1, out, H) weights down the image.
        columns: (B or 1, out, W) weights along its rows.

    Returns:
        (B, C, out, out) float in [0, 255], whole numbers, channels last in memory.
    """
    count, height, _, channels = images.shape
    out = rows.shape[1]
    # As weights sum to one, a half on top of the pixels makes the floor of a weighted sum its rounding.
    source = images.permute(0, 3, 1, 2).float().add_(0.5).flatten(1, 2)
    wide = torch.matmul(source, columns.transpose(1, 2)).floor_().clamp_(0, 255).add_(0.5)
    wide = wide.unflatten(1, (channels, height)).permute(0, 2, 3, 1).reshape(count, height, out * channels)
    result = torch.matmul(rows, wide).floor_().clamp_(0, 255)
    return result.view(count, out, out, channels).permute(0, 3, 1, 2)
