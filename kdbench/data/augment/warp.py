"""Affine maps of images with PIL's sampling (Image.transform), whose cubic filter is that of a = -1."""

import torch
from torch import Tensor


def warp(
    images: Tensor, matrices: Tensor, fill: Tensor, *, cubic: bool, across: bool = True, down: bool = True
) -> Tensor:
    """Read every pixel of the result where its matrix says.

    Args:
        images: (B, C, H, W), whole numbers in [0, 255].
        matrices: (B, 6) float64: x' = a x + b y + c, y' = d x + e y + f, in pixels, pixel centres at halves.
        fill: (C,) value of what lies outside the image.
        across, down: whether any matrix moves pixels that way; what stays in its row or column is not interpolated
            there.
    """
    count, channels, height, width = images.shape
    a, b, c, d, e, f = matrices.view(count, 6, 1, 1).unbind(1)
    x = torch.arange(width, device=images.device, dtype=torch.float64) + 0.5
    y = torch.arange(height, device=images.device, dtype=torch.float64)[:, None] + 0.5
    # Float64, as it decides about the inside; what is left of the pixel is small and needs no more than float32.
    source_x, source_y = a * x + b * y + c, d * x + e * y + f
    inside = (source_x >= 0) & (source_x < width) & (source_y >= 0) & (source_y < height)
    columns, right_share = _taps(source_x, width, cubic, across)
    rows, low_share = _taps(source_y, height, cubic, down)
    pixels, between = images.flatten(2), _cubic if cubic else _linear

    def read(row: Tensor) -> list[Tensor]:
        start = row * width
        return [pixels.gather(2, (start + column).expand(count, channels, -1)) for column in columns]

    lines = [between(right_share, *read(row)) if across else read(row)[0] for row in rows]
    warped = (between(low_share, *lines) if down else lines[0]).clamp_(0, 255).floor_()
    return torch.where(inside[:, None], warped.view(images.shape), fill.view(-1, 1, 1))


def _taps(source: Tensor, size: int, cubic: bool, moves: bool) -> tuple[list[Tensor], Tensor]:
    """Pixels around `source` (B, H, W), each (B, 1, H * W) int64, and how far it is from the nearest one before it."""
    coordinate = (source - 0.5).flatten(1)[:, None]
    first = coordinate.floor()
    share, first = (coordinate - first).float(), first.long()
    steps = (range(-1, 3) if cubic else range(2)) if moves else range(1)
    return [(first + step).clamp_(0, size - 1) for step in steps], share


def _linear(share: Tensor, first: Tensor, second: Tensor) -> Tensor:
    return torch.lerp(first, second, share)


def _cubic(share: Tensor, before: Tensor, first: Tensor, second: Tensor, after: Tensor) -> Tensor:
    """The cubic through `first` and `second` whose slope at each is the difference of its neighbours (Keys, a = -1)."""
    rising, falling = before - first, second - after
    bend = torch.add(falling, rising, alpha=2).addcmul_(share, rising.add_(falling), value=-1)
    return torch.addcmul(first, share, torch.addcmul(second - before, share, bend))
