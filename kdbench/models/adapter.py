"""Plain networks, torchvision's or your own, with the methods by which kdbench asks timm's; nothing has to be named.

What is needed of a network: it takes images, ends in a linear classifier, and its stages are modules. They are found by
looking at what its modules put out for an example.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from kdbench.errors import KdbenchError

_PROBES = 2


@dataclass(frozen=True)
class _Output:
    """What a module put out: axes, channels, grid and prefix tokens."""

    module: str
    kind: type[nn.Module]
    axes: Literal["NCHW", "NHWC", "NLC"]
    channels: int
    grid: tuple[int, int]
    prefix: int = 0


class Adapted(nn.Module):
    """A network that answers as timm's do.

    Stages: the last module at each resolution; for a network of one resolution its blocks, modules of one class side by
    side that put out tokens of one shape.

    Attributes:
        network: the network, with nothing in place of its classifier, so that it puts out the pooled feature.
        classifier: its last linear layer.
        feature_info: as timm has it: module, reduction and num_chs of everything that may be a stage.
        num_prefix_tokens: class and register tokens before those of the map.
    """

    def __init__(self, network: nn.Module, image_shape: tuple[int, int, int]) -> None:
        """Look at `network` with two images.

        Raises:
            KdbenchError: it does not end in a linear classifier, or has no features that could be stages.
        """
        super().__init__()
        name, outputs = _probe(network, image_shape)
        taps = _stages(outputs)
        if not taps:
            raise KdbenchError(f"{type(network).__name__}: none of its modules puts out maps or tokens in a square")
        classifier = network.get_submodule(name)
        self.network = network if name else nn.Identity()
        self.classifier = classifier
        if name:
            network.set_submodule(name, nn.Identity())
        self._taps = [f"network.{tap.module}" for tap in taps]
        self._outputs = taps
        self.num_prefix_tokens = max(tap.prefix for tap in taps)
        self.feature_info = [
            {"module": name, "reduction": image_shape[1] // tap.grid[0], "num_chs": tap.channels}
            for name, tap in zip(self._taps, taps, strict=True)
        ]
        self._held: dict[int, Tensor] = {}
        for index, tap in enumerate(self._taps):
            # A bound method: a copy of this module gets hooks of its own.
            self.get_submodule(tap).register_forward_hook(partial(self._hold, index))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes) of images (B, C, H, W)."""
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: Tensor) -> Tensor:
        """The pooled feature (B, D)."""
        return self.network(images)

    def forward_head(self, pooled: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits of the pooled feature, or that itself."""
        return pooled if pre_logits else self.classifier(pooled)

    def forward_intermediates(
        self,
        images: Tensor,
        indices: Iterable[int],
        return_prefix_tokens: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
    ) -> tuple[Tensor, list[Any]]:
        """The pooled feature, and as maps (B, C, H, W) what the modules of `feature_info` at `indices` put out."""
        if stop_early or output_fmt != "NCHW":
            raise ValueError("an adapted network runs to its end and gives NCHW")
        self._held.clear()
        pooled = self.forward_features(images)
        found: list[Any] = []
        for index in indices:
            state, tap = self._held[index], self._outputs[index]
            if tap.axes == "NHWC":
                state = state.permute(0, 3, 1, 2)
            prefix = state[:, : tap.prefix] if tap.prefix else None
            if tap.axes == "NLC":
                state = state[:, tap.prefix :].transpose(1, 2).unflatten(2, tap.grid)
            found.append((state, prefix) if return_prefix_tokens and tap.prefix else state)
        self._held.clear()
        return pooled, found

    def get_classifier(self) -> nn.Module:
        return self.classifier

    def _hold(self, index: int, module: nn.Module, args: Any, output: Tensor) -> None:
        self._held[index] = output


@torch.no_grad()
def _probe(network: nn.Module, image_shape: tuple[int, int, int]) -> tuple[str, list[_Output]]:
    """Name of the classifier, and the outputs of all other modules that may be stages, in order."""
    reference = next(network.parameters())
    images = torch.linspace(-1, 1, _PROBES * math.prod(image_shape), device=reference.device, dtype=reference.dtype)
    outputs: list[_Output] = []
    linear: list[tuple[str, Any]] = []

    before_pooling: list[int] = []

    def look(name: str, module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(module, nn.Linear):
            linear.append((name, output))
        if isinstance(module, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d):
            before_pooling.append(len(outputs))
        elif isinstance(output, Tensor):
            outputs.extend(_described(name, type(module), output))

    handles = [m.register_forward_hook(partial(look, name)) for name, m in network.named_modules() if name]
    training = network.training
    network.eval()
    try:
        logits = network(images.view(_PROBES, *image_shape))
    finally:
        network.train(training)
        for handle in handles:
            handle.remove()
    if not linear or linear[-1][1] is not logits:
        raise KdbenchError(
            f"{type(network).__name__} does not end in a linear layer, so that its classifier is not known; "
            "wrap it so that it returns the logits of one nn.Linear"
        )
    return linear[-1][0], outputs[: before_pooling[-1]] if before_pooling else outputs


def _described(name: str, kind: type[nn.Module], output: Tensor) -> list[_Output]:
    if len(output) != _PROBES:
        return []  # Windows, or a table of positions.
    if output.ndim == 4:
        _, first, second, third = output.shape
        if second == third:
            return [_Output(name, kind, "NCHW", first, (second, third))]
        if first == second:
            return [_Output(name, kind, "NHWC", third, (first, second))]
    if output.ndim == 3:
        _, length, channels = output.shape
        side = math.isqrt(length)
        if side > 1 and length - side**2 <= 8:
            return [_Output(name, kind, "NLC", channels, (side, side), length - side**2)]
    return []


def _stages(outputs: list[_Output]) -> list[_Output]:
    """Those of a network's outputs that may be stages, in order."""
    maps = [output for output in outputs if output.axes != "NLC"]
    # What is smaller than the last map is an excursion, a squeeze-and-excitation say.
    maps = [output for output in maps if output.grid >= maps[-1].grid]
    by_grid = {output.grid: output for output in maps}
    # The first layers of a block that down-samples belong to it, not to the stage before.
    by_grid |= {output.grid: output for output in maps if not _opens_next(output, maps)}
    if len(by_grid) > 1:
        return [by_grid[grid] for grid in sorted(by_grid, reverse=True)]
    siblings: dict[tuple[Any, ...], list[_Output]] = {}
    for output in outputs:
        place = (output.module.rpartition(".")[0], output.kind, output.axes, output.channels, output.grid)
        siblings.setdefault(place, []).append(output)
    return max(siblings.values(), key=len, default=[])


def _opens_next(output: _Output, maps: list[_Output]) -> bool:
    """Whether it is made inside of a module that goes from its grid to another, and to no further one."""
    for around in maps:
        if output.module.startswith(f"{around.module}.") and around.grid != output.grid:
            inside = {other.grid for other in maps if other.module.startswith(f"{around.module}.")}
            if inside <= {output.grid, around.grid}:
                return True
    return False
