"""Pieces of projectors, and what brings two features together, that several methods share."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdbench.method import Needs, Outputs, Pair, StagedModel, UnsupportedPair


def common_stages(pair: Pair, wanted: Sequence[int], cells: int = 1) -> list[int]:
    """Those of the `wanted` stages that both networks have, shallow to deep.

    Args:
        cells: the least that the smaller of the two grids must have; over a single one nothing can be normalised.

    Raises:
        UnsupportedPair: there is none.
    """
    common = sorted({*wanted} & {*pair.student.stages} & {*pair.teacher.stages})
    if not common:
        raise UnsupportedPair(f"the two networks have none of the stages {tuple(wanted)} in common")
    large = []
    for k in common:
        height, width = smaller(pair.student.stages[k].grid, pair.teacher.stages[k].grid)
        if height * width >= cells:
            large.append(k)
    if not large:
        raise UnsupportedPair(
            f"fewer than {cells} cells are left in each of the stages {tuple(common)} at this image size"
        )
    return large


def smaller(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    """The smaller of two grids, each direction on its own."""
    return min(one[0], other[0]), min(one[1], other[1])


def common_grid(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Two maps (B, C, H, W), of any widths, average-pooled to the smaller of their grids."""
    (hs, ws), (ht, wt) = student.shape[-2:], teacher.shape[-2:]
    grid = smaller((hs, ws), (ht, wt))
    one, other = (x if x.shape[-2:] == grid else F.adaptive_avg_pool2d(x, grid) for x in (student, teacher))
    return one, other


def init_projector(module: nn.Module) -> None:
    """The initialisation of the OFA-KD code base: conv Kaiming-normal (fan out), linear truncated normal (0.02).

    Biases start at zero; that code leaves them as torch draws them.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=0.02)
        else:
            continue
        if part.bias is not None:
            nn.init.zeros_(part.bias)


def conv_norm(width_in: int, width_out: int, kernel: int = 1, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """A convolution that keeps the grid, batch norm, activation."""
    conv = nn.Conv2d(width_in, width_out, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width_out), activation())


@torch.no_grad()
def probe(model: StagedModel, needs: Needs) -> Outputs:
    """What a network puts out in eval mode for two fixed images, to see of what kind its features are."""
    reference = next(model.parameters())
    shape = 2, *model.image_shape
    images = torch.linspace(-1, 1, math.prod(shape), device=reference.device, dtype=reference.dtype)
    training = model.training
    try:
        return model.eval()(images.view(shape), needs)
    finally:
        model.train(training)


def activation_of(feature: Tensor) -> type[nn.Module]:
    """What a projector must end in to reach such features: a ReLU where a probe of them is nowhere negative."""
    return nn.Identity if bool((feature < 0).any()) else nn.ReLU
