"""Pieces of projectors, and what brings two features together, that several methods share."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from kdbench.method import Pair, UnsupportedPair


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
    """The initialisation of the OFA-KD code base: conv Kaiming-normal (fan out), linear truncated normal (0.02)."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=0.02)
        else:
            continue
        if part.bias is not None:
            nn.init.zeros_(part.bias)
