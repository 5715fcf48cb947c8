"""Stage heads: from a stage of the student to a vector and on into logit space (OFA-KD, arXiv 2310.19444)."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from itertools import pairwise

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from kdbench.method import Feature, Pair, StageInfo
from kdbench_methods.parts.projectors import init_projector


class StageHead(nn.Module, ABC):
    """A stage feature becomes a vector, the vector logits.

    Attributes:
        width: of the vector.
        classifier: from the vector to the logits.
    """

    width: int
    classifier: nn.Module

    @abstractmethod
    def vector(self, feature: Feature) -> Tensor:
        """(B, `width`)."""

    def forward(self, feature: Feature) -> Tensor:
        return self.classifier(self.vector(feature))


class StageHeads(nn.ModuleDict):
    """The heads of those of the wanted stages that the student has, by stage."""

    def __init__(self, pair: Pair, stages: Iterable[int], classes: int, normalise: bool = False) -> None:
        """Create them.

        Args:
            classes: width of the logits; 0 for heads that end in their vector.
            normalise: a LayerNorm between vector and classifier of convolutional stages.
        """
        super().__init__()
        student = pair.student
        width = max(student.pooled_width, pair.teacher.pooled_width)
        for k in stages:
            if k in student.stages:
                info = student.stages[k]
                if info.layout == "map":
                    self[str(k)] = MapHead(info, width, classes, normalise)
                else:
                    self[str(k)] = TokenHead(info, student.pooled_width, classes)
        init_projector(self)

    @property
    def by_stage(self) -> dict[int, StageHead]:
        """The heads with their stages."""
        return {int(k): head for k, head in self.items() if isinstance(head, StageHead)}

    def forward(self, features: dict[int, Feature]) -> list[Tensor]:
        """What each head makes of its stage."""
        return [head(features[k]) for k, head in self.by_stage.items()]


class MapHead(StageHead):
    """Head of a convolutional stage: (4 - k) halving separable convolutions up to `width`, pooling, classifier."""

    def __init__(self, info: StageInfo, width: int, classes: int, normalise: bool) -> None:
        super().__init__()
        count, channels = 4 - info.stage, info.channels
        widths = [*(channels * 2 ** (i + 1) for i in range(count - 1)), width]
        if count:
            blocks = [separable(a, b) for a, b in zip([channels, *widths], widths, strict=False)]
        else:
            blocks = [nn.Conv2d(channels, width, 1)]
        self.blocks = nn.Sequential(*blocks)
        self.width = width
        self.classifier = _classifier(width, classes)
        if normalise:
            self.classifier = nn.Sequential(nn.LayerNorm(width), self.classifier)

    def vector(self, feature: Feature) -> Tensor:
        return F.adaptive_avg_pool2d(self.blocks(feature.map), 1).flatten(1)


def separable(channels: int, width: int) -> nn.Sequential:
    """Two depthwise-separable convolutions; the first halves the grid, the second sets the width."""

    def half(stride: int, out: int) -> list[nn.Module]:
        depthwise = nn.Conv2d(channels, channels, 3, stride, padding=1, groups=channels, bias=False)
        pointwise = nn.Conv2d(channels, out, 1, bias=False)
        return [depthwise, pointwise, nn.BatchNorm2d(out), nn.ReLU()]

    return nn.Sequential(*half(2, channels), *half(1, width))


class TokenHead(StageHead):
    """Head of a token stage: patch mergings down to about a 7x7 grid, (4 - k) transformer blocks, classifier."""

    def __init__(self, info: StageInfo, width: int, classes: int) -> None:
        super().__init__()
        mergings = max(0, math.floor(math.log2(min(info.grid) / 7)))
        widths = [info.channels, *[width] * mergings]
        self.merge = nn.ModuleList(
            Merge(before, after, activate=mergings == 1 or i < mergings - 1)
            for i, (before, after) in enumerate(pairwise(widths))
        )
        heads = math.gcd(4, widths[-1])
        self.blocks = nn.Sequential(*(Block(widths[-1], heads, qkv_bias=False) for _ in range(max(4 - info.stage, 1))))
        self.width = widths[-1]
        self.classifier = _classifier(self.width, classes)

    def vector(self, feature: Feature) -> Tensor:
        x = feature.map
        for merge in self.merge:
            x = merge(x)
        tokens = x.flatten(2).transpose(1, 2)
        if feature.prefix is None:
            return self.blocks(tokens).mean(dim=1)
        return self.blocks(torch.cat([feature.prefix[:, :1], tokens], dim=1))[:, 0]


class Merge(nn.Module):
    """Patch merging: 2x2 neighbours joined, LayerNorm, linear map without bias, GELU (the last of several: none)."""

    def __init__(self, before: int, after: int, activate: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * before)
        self.reduce = nn.Linear(4 * before, after, bias=False)
        self.activate = nn.GELU() if activate else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = F.pixel_unshuffle(x[..., : x.shape[-2] // 2 * 2, : x.shape[-1] // 2 * 2], 2)
        return self.activate(self.reduce(self.norm(x.movedim(1, -1)))).movedim(-1, 1)


def _classifier(width: int, classes: int) -> nn.Module:
    return nn.Linear(width, classes) if classes else nn.Identity()
