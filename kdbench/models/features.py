"""What a forward pass returns: logits, pooled feature, stage features."""

from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

Layout = Literal["map", "tokens"]
"""`map`: the network computes on (B, C, H, W); `tokens`: on a sequence of H * W tokens of width C."""


Normalisation = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation by channel, in units of the [0, 1] pixel range."""


@dataclass(frozen=True)
class Needs:
    """What a method asks of a model besides its logits, so that the loop computes that and no more."""

    stages: frozenset[int] = frozenset()
    pooled: bool = False

    def __or__(self, other: "Needs") -> "Needs":
        return Needs(self.stages | other.stages, self.pooled or other.pooled)


@dataclass(frozen=True)
class Feature:
    """A stage output in one shape for every family.

    Attributes:
        map: (B, C, H, W), for token networks the tokens on their grid.
        prefix: (B, P, C) class and register tokens, None without any.
        layout: what the network itself computes on.
    """

    map: Tensor
    prefix: Tensor | None
    layout: Layout

    @property
    def tokens(self) -> Tensor:
        """(B, H * W, C), without prefix tokens."""
        return self.map.flatten(2).transpose(1, 2)

    @property
    def grid(self) -> tuple[int, int]:
        """(H, W)."""
        return self.map.shape[-2], self.map.shape[-1]


@dataclass(frozen=True)
class Outputs:
    """One forward pass.

    Attributes:
        logits: (B, classes).
        pooled: (B, D), what the classifier consumes; None unless asked for.
        stages: the stage features asked for.
        second: the same of a second view of the same images, for a method that asks for one (`Method.second_view`).
    """

    logits: Tensor
    pooled: Tensor | None = None
    stages: dict[int, Feature] = field(default_factory=dict)
    second: "Outputs | None" = None


@dataclass(frozen=True)
class StageInfo:
    """The shape of a stage output, from one probe.

    Attributes:
        stage: 1-4.
        tap: index into timm's `feature_info`; `None` where the stage is the network's final feature map.
        channels: C.
        grid: (H, W).
        prefix: number of prefix tokens.
        layout: what the network itself computes on.
    """

    stage: int
    tap: int | None
    channels: int
    grid: tuple[int, int]
    prefix: int
    layout: Layout
