"""Affine maps of images with PIL's sampling (Image.transform), whose cubic filter is that of a = -1."""

import torch
from torch import Tensor


def warp(images: Tensor, matrices: Tensor, fill: Tensor, *, cubic: bool) -> Tensor:
    """Read every pixel of the result where its matrix says.

    Args:
        images: (B, C, H, W), whole numbers in [0, 255].
        matrices: (B, 6) float64: x' = a x + b y + c, y' = d x + e y + f, in pixels, pixel centres at halves.
        fill: (C,) value of what lies outside the image.
    """
    count, channels, height, width = images.shape
    a, b, c, d, e, f = matrices.view(count, 6, 1, 1).unbind(1)
    x = torch.arange(width, device=images.device, dtype=torch.float64) + 0.5
    y = torch.arange(height, device=images.device, dtype=torch.float64)[:, None] + 0.5
    # Float64, as it decides about the inside; what is left of the pixel is small and needs no more than float32.
    source_x, source_y = a * x + b * y + c, d * x + e * y + f
    inside = (source_x >= 0) & (source_x < width) & (source_y >= 0) & (source_y < height)
    left, top = (source_x - 0.5).floor(), (source_y - 0.5).floor()
    right_share, low_share = (
        share.float().view(count, 1, -1) for share in (source_x - 0.5 - left, source_y - 0.5 - top)
    )
    left, top = left.long().view(count, 1, -1), top.long().view(count, 1, -1)
    pixels = images.flatten(2)
    taps = range(-1, 3) if cubic else range(2)
    between = _cubic if cubic else _linear
    lines = []
    for row in taps:
        start = (top + row).clamp(0, height - 1) * width
        values = [
            pixels.gather(2, ((left + column).clamp(0, width - 1) + start).expand(count, channels, -1))
            for column in taps
        ]
        lines.append(between(values, right_share))
    warped = between(lines, low_share).clamp_(0, 255).floor_().view(images.shape)
    return torch.where(inside[:, None], warped, fill.view(-1, 1, 1))


def _linear(values: list[Tensor], share: Tensor) -> Tensor:
    first, second = values
    return first + (second - first) * share


def _cubic(values: list[Tensor], share: Tensor) -> Tensor:
    before, first, second, after = values
    slope = second - before
    bend = 2 * (before - first) + second - after
    rest = first - before - second + after
    return first + share * (slope + share * (bend + share * rest))
