"""What a forward pass returns: logits, pooled feature, stage features."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from torch import Tensor

from kdbench.errors import KdbenchError

Layout = Literal["map", "tokens"]
"""`map`: the network computes on (B, C, H, W); `tokens`: on a sequence of H * W tokens of width C."""

_NEEDS = "student_needs, teacher_needs or inference_needs"


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
        """Height and width of the map, (H, W)."""
        return self.map.shape[-2], self.map.shape[-1]


class StageFeatures(dict[int, Feature]):
    """Features by stage; reading one that is not there says how to ask for it."""

    def __missing__(self, stage: int) -> Feature:
        raise KdbenchError(f"stage {stage} was not asked for: add it to the stages of {_NEEDS}")


@dataclass(frozen=True)
class Outputs:
    """One forward pass: the logits, and what was asked for besides them.

    Made by `Outputs(logits, pooled, stages)`. Reading `pooled`, one of the `stages` or `second` raises a `KdbenchError`
    where that was not asked for.

    Attributes:
        logits: (B, classes).
    """

    logits: Tensor
    _pooled: Tensor | None = None
    _stages: Mapping[int, Feature] = field(default_factory=dict)
    _second: "Outputs | None" = None

    @property
    def pooled(self) -> Tensor:
        """(B, D), what the classifier consumes."""
        if self._pooled is None:
            raise KdbenchError(f"the pooled feature was not asked for: add pooled=True to {_NEEDS}")
        return self._pooled

    @property
    def stages(self) -> StageFeatures:
        """The features of the stages."""
        return StageFeatures(self._stages)

    @property
    def second(self) -> "Outputs":
        """The same of a second view of the same images, for a method that asks for one (`Method.second_view`)."""
        if self._second is None:
            raise KdbenchError("the second view was not asked for: set second_view = True")
        return self._second

    def with_second(self, second: "Outputs") -> "Outputs":
        """These outputs, and those of a second view of the images."""
        return replace(self, _second=second)

    def tensors(self) -> dict[str, Tensor]:
        """All tensors of the pass, by what they are called."""
        tensors = {"logits": self.logits}
        if self._pooled is not None:
            tensors["pooled feature"] = self._pooled
        for stage, feature in self._stages.items():
            tensors[f"stage {stage}"] = feature.map
            if feature.prefix is not None:
                tensors[f"prefix tokens of stage {stage}"] = feature.prefix
        if self._second is not None:
            tensors |= {f"{name} of the second view": tensor for name, tensor in self._second.tensors().items()}
        return tensors


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
