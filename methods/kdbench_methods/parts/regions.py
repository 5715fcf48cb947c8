"""Features as a few regions of one width, which attend to each other across stages, and back into a stage's format."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdbench.method import StageInfo
from kdbench_methods.parts.projectors import init_projector


class RegionAttention(nn.Module):
    """Region-aware attention of PAT (arXiv 2501.08885): one self-attention over the regions of all stages."""

    def __init__(self, stages: list[StageInfo], side: int, width: int, heads: int) -> None:
        """Each stage becomes side x side regions of `width`."""
        super().__init__()
        self.side, self.heads = side, heads
        kernels = [(math.ceil(info.grid[0] / side), math.ceil(info.grid[1] / side)) for info in stages]
        self.embed = nn.ModuleList(
            nn.Conv2d(info.channels, width, kernel, kernel) for info, kernel in zip(stages, kernels, strict=True)
        )
        self._sizes = [(side * height, side * across) for height, across in kernels]
        self.norm = nn.LayerNorm(width)
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.register_buffer("positions", sinusoids(len(stages) * side**2, width), persistent=False)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """What the regions of each stage (B, width, side, side) have gathered."""
        sized = [
            x if x.shape[-2:] == size else F.interpolate(x, size) for x, size in zip(maps, self._sizes, strict=True)
        ]
        tokens = [embed(x).flatten(2) for embed, x in zip(self.embed, sized, strict=True)]
        x = self.norm(torch.cat(tokens, dim=2).transpose(1, 2))
        key, value = self.key_value(x).chunk(2, dim=2)
        query, key, value = (
            each.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for each in (self.query(x) + self.positions, key + self.positions, value)
        )
        gathered = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        by_stage = gathered.transpose(1, 2).unflatten(2, (len(maps), self.side, self.side))
        return list(by_stage.unbind(2))


def sinusoids(count: int, width: int) -> Tensor:
    """(count, width): the positional encoding of the Transformer (arXiv 1706.03762, section 3.5)."""
    angle = torch.arange(count)[:, None] * torch.exp(torch.arange(0, width, 2) * (-math.log(10000) / width))
    return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)


def aligner(width: int, grid: tuple[int, int], target: StageInfo) -> nn.Module:
    """From maps (B, width, *grid) to the format of a stage: over tokens for one that holds tokens."""
    module = MapAligner(width, grid, target) if target.layout == "map" else TokenAligner(width, grid, target)
    init_projector(module)
    return module


class MapAligner(nn.Module):
    """Nearest neighbours on the target's grid, batch norm, 1x1 convolution."""

    def __init__(self, width: int, grid: tuple[int, int], target: StageInfo) -> None:
        super().__init__()
        self.grid = target.grid
        # Where every cell is repeated as often, the order makes no difference but to the cost.
        self._late = all(large % small == 0 for large, small in zip(target.grid, grid, strict=True))
        self.norm = nn.BatchNorm2d(width)
        self.project = nn.Conv2d(width, target.channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self._late:
            return F.interpolate(self.project(self.norm(x)), self.grid)
        return self.project(self.norm(F.interpolate(x, self.grid)))


class TokenAligner(nn.Module):
    """Batch norm and linear layer over the width, then over the tokens."""

    def __init__(self, width: int, grid: tuple[int, int], target: StageInfo) -> None:
        super().__init__()
        self.grid, tokens = target.grid, grid[0] * grid[1]
        self.across_width = nn.Sequential(nn.BatchNorm1d(tokens), nn.Linear(width, target.channels))
        self.across_tokens = nn.Sequential(nn.BatchNorm1d(target.channels), nn.Linear(tokens, math.prod(target.grid)))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.across_width(x.flatten(2).transpose(1, 2))
        return self.across_tokens(tokens.transpose(1, 2)).unflatten(2, self.grid)
