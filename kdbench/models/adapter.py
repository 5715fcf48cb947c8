"""Plain networks, torchvision's or your own, with the methods by which kdbench asks timm's; nothing has to be named.

What is needed of a network: it takes images, ends in a linear classifier, and its stages are modules. They are found by
looking at what its modules put out for an example.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from kdbench.errors import KdbenchError, unknown_name
from kdbench.models.stages import STAGES
from kdbench.targets import short

_PROBES = 2
_NETWORK, _CLASSIFIER = "network", "classifier"
"""The modules of an adapted network."""


@dataclass(frozen=True)
class _Output:
    """What a module put out: axes, channels, grid and prefix tokens.

    Attributes:
        learned: a layer with parameters inside of the module put out this grid, or the output follows from such a
            layer's element by element.
    """

    module: str
    kind: type[nn.Module]
    axes: Literal["NCHW", "NHWC", "NLC"]
    channels: int
    grid: tuple[int, int]
    prefix: int = 0
    learned: bool = True


class Adapted(nn.Module):
    """A network that answers as timm's do. Its state dict is that of the network, under the network's own names.

    Stages: at each resolution that a layer with parameters puts out, the last module; for a network of one resolution
    its blocks, modules of one class side by side that put out tokens of one shape. Modules that only pad, pool or
    resize make no resolution and end no stage.

    Attributes:
        network: the network, with nothing in place of its classifier, so that it puts out the pooled feature.
        classifier: its last linear layer.
        feature_info: as timm has it: module, reduction and num_chs of everything that may be a stage, and the module's
            name in the network itself.
        stage_taps: stage to index into `feature_info`, where the stages were named; None where they are to be found.
        num_prefix_tokens: class and register tokens before those of the map.
    """

    def __init__(self, network: nn.Module, image_shape: tuple[int, int, int], stages: Sequence[str] = ()) -> None:
        """Look at `network` with two images.

        Args:
            stages: names of up to four modules whose outputs are the stages, the last of them stage 4.

        Raises:
            KdbenchError: it does not run at this size or end in a linear classifier, or has no features that could be
                stages; a named module is not there, or puts out no features.
        """
        super().__init__()
        own_names = list(network.state_dict())
        name, outputs = _probe(network, image_shape)
        taps = _named(network, outputs, stages) if stages else _stages(outputs)
        if not taps:
            raise KdbenchError(f"{type(network).__name__}: none of its modules puts out maps or tokens in a square")
        classifier = network.get_submodule(name)
        # One module may have several names.
        self._heads = [path for path, module in network.named_modules(remove_duplicate=False) if module is classifier]
        self._own_names = own_names
        self.network = network
        self.classifier = classifier
        for path in self._heads:
            network.set_submodule(path, nn.Identity())
        self.register_state_dict_post_hook(_to_own_names)
        self.register_load_state_dict_pre_hook(_from_own_names)
        self._outputs = taps
        self.stage_taps = dict(zip(STAGES[-len(taps) :], range(len(taps)), strict=True)) if stages else None
        self.num_prefix_tokens = max(tap.prefix for tap in taps)
        self.feature_info = [
            {
                "module": f"{_NETWORK}.{tap.module}",
                "own_name": tap.module,
                "reduction": image_shape[1] // tap.grid[0],
                "num_chs": tap.channels,
            }
            for tap in taps
        ]
        self._held: dict[int, Tensor] = {}
        for index, tap in enumerate(taps):
            # A bound method: a copy of this module gets hooks of its own.
            network.get_submodule(tap.module).register_forward_hook(partial(self._hold, index))

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


def _to_own_names(adapted: Adapted, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    """Give the tensors of a state dict the names and the order that they have in the network itself."""
    inside, head = f"{prefix}{_NETWORK}.", f"{prefix}{_CLASSIFIER}."
    own: dict[str, Any] = {}
    for name in [name for name in state if name.startswith((inside, head))]:
        tensor = state.pop(name)
        if name.startswith(inside):
            own[name.removeprefix(inside)] = tensor
        else:
            own |= {f"{path}.{name.removeprefix(head)}": tensor for path in adapted._heads}
    order = {name: number for number, name in enumerate(adapted._own_names)}
    state.update((prefix + name, own[name]) for name in sorted(own, key=lambda name: order.get(name, len(order))))


def _from_own_names(adapted: Adapted, state: dict[str, Any], prefix: str, *_others: Any) -> None:
    """Give the tensors of a network's state dict the names of the modules that hold them here."""
    for name in [name.removeprefix(prefix) for name in state if name.startswith(prefix)]:
        tensor: Tensor = state.pop(prefix + name)
        path, _, last = name.rpartition(".")
        state[f"{prefix}{_CLASSIFIER}.{last}" if path in adapted._heads else f"{prefix}{_NETWORK}.{name}"] = tensor


@torch.no_grad()
def _probe(network: nn.Module, image_shape: tuple[int, int, int]) -> tuple[str, list[_Output]]:
    """Name of the classifier, and the outputs of all other modules that may be stages, in order."""
    reference = next(network.parameters())
    images = torch.linspace(-1, 1, _PROBES * math.prod(image_shape), device=reference.device, dtype=reference.dtype)
    watch = _Watch()
    handles = [m.register_forward_hook(partial(watch.look, name)) for name, m in network.named_modules() if name]
    training = network.training
    network.eval()
    try:
        logits = network(images.view(_PROBES, *image_shape))
    except (RuntimeError, AssertionError, ValueError) as error:
        size = f"{image_shape[1]} px, {image_shape[0]} channels"
        raise KdbenchError(f"{type(network).__name__} does not run at {size}: {short(error)}") from error
    finally:
        network.train(training)
        for handle in handles:
            handle.remove()
    if watch.last_linear is None or watch.last_linear[1] is not logits:
        raise KdbenchError(
            f"{type(network).__name__} does not end in a linear layer, so that its classifier is not known; "
            "wrap it so that it returns the logits of one nn.Linear"
        )
    return watch.last_linear[0], watch.before_pooling()


class _Watch:
    """What the modules of a network put out in one pass, in order.

    Attributes:
        last_linear: name and output of the last linear layer.
    """

    def __init__(self) -> None:
        self.last_linear: tuple[str, Any] | None = None
        self._outputs: list[_Output] = []
        self._pools: list[tuple[int, int]] = []
        # By identity; the tensors are kept, so that no other gets their place in memory.
        self._tensors: dict[int, tuple[Tensor, bool]] = {}

    def look(self, name: str, module: nn.Module, args: Any, output: Any) -> None:
        """A forward hook."""
        if isinstance(module, nn.Linear):
            self.last_linear = name, output
        if not isinstance(output, Tensor):
            return
        if isinstance(module, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d) or (
            isinstance(module, nn.AvgPool2d) and output.shape[-1] == 1
        ):
            self._pools.append((len(self._outputs), output.shape[-1]))
        found = _described(name, type(module), output)
        learned = found is not None and self._is_learned(found, module, args, output)
        self._tensors[id(output)] = output, learned
        if found is not None:
            self._outputs.append(replace(found, learned=learned))

    def _is_learned(self, found: _Output, module: nn.Module, args: Any, output: Tensor) -> bool:
        inside = [other for other in self._outputs if other.module.startswith(f"{found.module}.")]
        if any(True for _ in module.parameters()):
            # A block may end in padding or pooling, which none of its layers has put out.
            return not inside or any(other.learned and other.grid == found.grid for other in inside)
        if not args or not isinstance(args[0], Tensor) or args[0].shape != output.shape:
            return False
        # An activation, say, of what a layer put out, or of a sum of that and a shortcut.
        source = self._tensors.get(id(args[0]))
        last = next((other for other in reversed(self._outputs) if other.learned), None)
        return source[1] if source is not None else last is not None and last.grid == found.grid

    def before_pooling(self) -> list[_Output]:
        """The outputs before the global pooling: one to a size that no later output exceeds."""
        for start, size in self._pools:
            if all(found.grid[0] <= size for found in self._outputs[start:]):
                return self._outputs[:start]
        return self._outputs


def _described(name: str, kind: type[nn.Module], output: Tensor) -> _Output | None:
    if len(output) != _PROBES:
        return None  # Windows, or a table of positions.
    if output.ndim == 4:
        _, first, second, third = output.shape
        if second == third:
            return _Output(name, kind, "NCHW", first, (second, third))
        if first == second:
            return _Output(name, kind, "NHWC", third, (first, second))
    if output.ndim == 3:
        _, length, channels = output.shape
        side = math.isqrt(length)
        if side > 1 and length - side**2 <= 8:
            return _Output(name, kind, "NLC", channels, (side, side), length - side**2)
    return None


def _named(network: nn.Module, outputs: list[_Output], names: Sequence[str]) -> list[_Output]:
    """The outputs of the modules that the user names as stages."""
    if len(names) > len(STAGES):
        raise KdbenchError(f"there are {len(STAGES)} stages, and {len(names)} modules are named: {', '.join(names)}")
    by_name = {output.module: output for output in outputs}
    for name in names:
        if name not in (known := [path for path, _ in network.named_modules() if path]):
            raise unknown_name(f"module of {type(network).__name__}", name, known)
        if name not in by_name:
            raise KdbenchError(f"{name} of {type(network).__name__} puts out no maps, and no tokens in a square")
    return [by_name[name] for name in names]


def _stages(outputs: list[_Output]) -> list[_Output]:
    """Those of a network's outputs that may be stages, in order."""
    grids = {output.grid for output in outputs if output.learned and output.axes != "NLC"}
    maps = [output for output in outputs if output.axes != "NLC" and output.grid in grids]
    # What is smaller than the last map is an excursion, a squeeze-and-excitation say.
    maps = [output for output in maps if output.grid >= maps[-1].grid]
    # The best that there is of a grid ends its stage, the last one of the best.
    by_grid = {
        output.grid: output for rank in range(_RANKS) for output in maps if _RANKS - 1 - _rank(output, maps) == rank
    }
    siblings: dict[tuple[Any, ...], list[_Output]] = {}
    for output in (output for output in outputs if output.learned):
        place = (output.module.rpartition(".")[0], output.kind, output.axes, output.channels, output.grid)
        siblings.setdefault(place, []).append(output)
    blocks = max(siblings.values(), key=len, default=[])
    if len(by_grid) > 1 and not _has_stem(outputs, blocks):
        return [by_grid[grid] for grid in sorted(by_grid, reverse=True)]
    return blocks


def _has_stem(outputs: list[_Output], blocks: list[_Output]) -> bool:
    """Whether the network is blocks on tokens of one resolution, and all other resolutions are before them."""
    if len(blocks) < len(STAGES) or blocks[0].axes != "NLC":
        return False
    later = outputs[outputs.index(blocks[0]) :]
    return all(output.grid == blocks[0].grid for output in later if output.axes != "NLC" and output.learned)


_RANKS = 4


def _rank(output: _Output, maps: list[_Output]) -> int:
    """How well an output ends the stage of its grid, 0 best.

    The first layers of a block that goes to another grid, and to no further one, belong to it, not to the stage before.
    Those of a block that only pools at its end, as the transitions of DenseNet, end the stage where nothing else does.
    Where nothing but the first layers of a block has this grid, the pooling before them ends the stage.
    """
    opened = [
        around.learned
        for around in maps
        if output.module.startswith(f"{around.module}.")
        and around.grid != output.grid
        and {other.grid for other in maps if other.module.startswith(f"{around.module}.")} <= {output.grid, around.grid}
    ]
    if any(opened):
        return 3
    if not output.learned:
        return 2
    return 1 if opened else 0
