"""How networks hold a feature map themselves, found by comparing values, and bringing a map into that form."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from kdbench.models.features import Layout

RawLayout = Literal["NCHW", "NHWC", "NLC"]


@dataclass(frozen=True)
class Packing:
    """The form in which a network holds a map (B, C, H, W) at some place.

    Attributes:
        layout: order of the axes; NLC is (B, prefix + H * W, C).
        prefix: class and register tokens that are held beside the map.
        order: indices of the map's tokens, row by row, in the order in which the network holds them; None for the same.
        others: where the network holds a tuple, its elements: the map's place is `...`, the prefix tokens' is "prefix"
            where they are not in one tensor with the map's, everything else is a constant. None for a plain tensor.
    """

    layout: RawLayout
    prefix: int = 0
    order: Tensor | None = None
    others: tuple[Any, ...] | None = None

    @property
    def kind(self) -> Layout:
        """The layout that the network computes on."""
        return "map" if self.layout == "NCHW" else "tokens"

    @property
    def place(self) -> int | None:
        """Of the map's tensor in a tuple; None where the network holds no tuple."""
        return None if self.others is None else next(i for i, part in enumerate(self.others) if part is ...)

    def pack(self, feature: Tensor, prefix: Tensor | None = None) -> Any:
        """What the network would hold.

        Args:
            feature: (B, C, H, W).
            prefix: (B, `prefix`, C), None only where there are none.
        """
        packed = feature
        if self.layout == "NHWC":
            packed = feature.permute(0, 2, 3, 1)
        elif self.layout == "NLC":
            packed = feature.flatten(2).transpose(1, 2)
            if self.order is not None:
                packed = packed[:, self.order]
        if prefix is not None and not any(isinstance(part, str) for part in self.others or ()):
            packed = torch.cat([prefix, packed], dim=1)
        if self.others is None:
            return packed
        return tuple(packed if o is ... else prefix if isinstance(o, str) else o for o in self.others)

    def unpack(self, state: Any, grid: tuple[int, int]) -> Tensor:
        """The map (B, C, H, W) that the network holds as `state`; `prefix_of` gives the tokens beside it."""
        packed = state if self.place is None else state[self.place]
        if self.layout == "NCHW":
            return packed
        if self.layout == "NHWC":
            return packed.permute(0, 3, 1, 2)
        tokens = packed[:, packed.shape[1] - grid[0] * grid[1] :]
        if self.order is not None:
            tokens = tokens[:, self.order.argsort()]
        return tokens.transpose(1, 2).unflatten(2, grid)


def find_packing(state: Any, feature: Tensor) -> Packing | None:
    """In what form `state` holds the map `feature` (B, C, H, W); None where it does not, or holds more than that."""
    if isinstance(state, Tensor):
        return _of_tensor(state, feature)
    if not isinstance(state, Sequence) or isinstance(state, str):
        return None
    packings = [_of_tensor(part, feature) if isinstance(part, Tensor) else None for part in state]
    holders = [index for index, packing in enumerate(packings) if packing is not None]
    if len(holders) != 1:
        return None
    (index,) = holders
    packing, others = packings[index], list(state)
    assert packing is not None
    others[index] = ...
    for i, part in enumerate(others):
        if isinstance(part, Tensor):
            tokens = part.ndim == 3 and part.shape[0] == len(feature) and part.shape[2] == feature.shape[1]
            if not tokens or packing.prefix:
                return None
            packing, others[i] = replace(packing, prefix=part.shape[1]), "prefix"
    return replace(packing, others=tuple(others))


def prefix_of(state: Any, packing: Packing) -> Tensor | None:
    """(B, P, C): the prefix tokens that a state holds."""
    if not packing.prefix:
        return None
    for i, part in enumerate(packing.others or ()):
        if isinstance(part, str):
            return state[i]
    tensor = state if packing.place is None else state[packing.place]
    return tensor[:, : packing.prefix]


def _of_tensor(state: Tensor, feature: Tensor) -> Packing | None:
    if state.ndim == 4:
        for layout in ("NCHW", "NHWC"):
            packing = Packing(layout)
            if _equal(state, packing.pack(feature)):
                return packing
        return None
    batch, channels, height, width = feature.shape
    prefix = state.shape[1] - height * width if state.ndim == 3 else -1
    if prefix < 0 or state.shape != (batch, prefix + height * width, channels):
        return None
    tokens = feature.flatten(2).transpose(1, 2)
    if _equal(state[:, prefix:], tokens):
        return Packing("NLC", prefix)
    order = _permutation(tokens[0], state[0, prefix:])
    if order is not None and _equal(state[:, prefix:], tokens[:, order]):
        return Packing("NLC", prefix, order)
    return None


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other)


def _permutation(tokens: Tensor, permuted: Tensor) -> Tensor | None:
    """Indices that make `tokens` (L, C) the `permuted` ones; None where those are others, or some are alike."""
    if not _equal(tokens[:, 0].sort().values, permuted[:, 0].sort().values):
        return None
    same = (tokens[None] == permuted[:, None]).all(dim=2)
    once = bool((same.sum(dim=0) == 1).all() and (same.sum(dim=1) == 1).all())
    return same.to(torch.uint8).argmax(dim=1) if once else None
