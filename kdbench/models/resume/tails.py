"""Resuming a network from a stage, to its end or to the next stage: the graph of its trunk, cut behind that stage.

The trunk's own glue is traced (`trace`), every block a leaf, so block internals never matter. What is built is compared
with the plain forward once, on other images and another number of them; a network for which that fails is refused with
a reason, never run wrongly.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from kdbench.errors import UnsupportedPair
from kdbench.models.features import Feature, Outputs, StageInfo
from kdbench.models.resume.cut import Traced, Unclean, cut
from kdbench.models.resume.packing import Packing, RawLayout, find_packing, prefix_of
from kdbench.models.resume.trace import forget_constants, trace_trunk, values_of

Entry = Literal["stage", "downsampled"]
"""Where a state enters: right behind the stage, or behind the down-sampling that opens the next one (if it has one)."""

ROUNDING = 1e-4
"""Largest difference that counts as rounding, over the largest value; a wrong cut is off by far more."""


class Tail:
    """A network from a stage on. It shares the network's modules and is itself no module: it owns no parameter.

    Attributes:
        channels, grid, prefix: what `__call__` takes: a map (B, channels, *grid) and `prefix` prefix tokens.
        layout: the network's own layout at the entry.
    """

    def __init__(
        self,
        model: nn.Module,
        head: Callable[[Any], Outputs],
        trunk: fx.GraphModule,
        packing: Packing,
        feature: Tensor,
    ) -> None:
        """Keep the parts; `build` makes them.

        Args:
            head: pooled feature and logits of the trunk's final features.
            trunk: what lies between the entry and the final features.
            packing: the form in which the network holds what enters.
            feature: an example of it as a map.
        """
        self._model = model
        self._head = head
        self._trunk = trunk
        self._packing = packing
        self.prefix = packing.prefix
        self.layout: RawLayout = packing.layout
        self.channels = feature.shape[1]
        self.grid = (feature.shape[2], feature.shape[3])
        # Those of the head, too, which is no part of the trunk.
        self._norms = _batch_norms(model)
        heads = [n for m in trunk.modules() if isinstance(n := getattr(m, "num_heads", None), int)]
        self.num_heads: int | None = heads[-1] if heads else None
        """Attention heads of the tail's last block, None for a network without attention."""

    def __call__(self, feature: Tensor, prefix: Tensor | None = None) -> Outputs:
        """Pooled feature and logits of a state; arguments as for `final`."""
        return self.head(self.final(feature, prefix))

    def final(self, feature: Tensor, prefix: Tensor | None = None) -> Tensor:
        """The trunk's final features of a state, in the network's own layout.

        Batch-norm layers in the tail do not update their running statistics here: those belong to the network's own
        features, and a state of another origin would poison them.

        Args:
            feature: (B, channels, *grid).
            prefix: (B, prefix, channels), needed when the network has prefix tokens.
        """
        with _frozen_statistics(self._norms):
            return self._trunk(self._packing.pack(feature, prefix))

    def head(self, final: Tensor) -> Outputs:
        """Pooled feature and logits of the trunk's final features; batch-norm layers as in `final`."""
        with _frozen_statistics(self._norms):
            return self._head(final)

    def parameters(self) -> list[nn.Parameter]:
        """The network's parameters that work on a state entering here."""
        state = torch.zeros(2, self.channels, *self.grid, device=next(self._model.parameters()).device)
        prefix = self.prefix_tokens
        everything = list(self._model.parameters())
        with torch.enable_grad():
            logits = self(state, None if prefix is None else prefix.expand(2, -1, -1)).logits
            reached = torch.autograd.grad(logits.sum(), everything, allow_unused=True)
        return [parameter for parameter, gradient in zip(everything, reached, strict=True) if gradient is not None]

    @property
    def prefix_tokens(self) -> Tensor | None:
        """(1, prefix, channels): the network's own class and register tokens, None where it has none."""
        if not self.prefix:
            return None
        names = ("cls_token", "dist_token", "reg_token")
        tokens = [t.detach() for name in names if isinstance(t := getattr(self._model, name, None), Tensor)]
        tokens = [t for t in tokens if t.ndim == 3 and t.shape[2] == self.channels]
        if sum(t.shape[1] for t in tokens) != self.prefix:
            return torch.zeros(1, self.prefix, self.channels, device=next(self._model.parameters()).device)
        return torch.cat(tokens, dim=1)

    @classmethod
    def build(
        cls,
        model: nn.Module,
        head: Callable[[Any], Outputs],
        image_shape: tuple[int, int, int],
        info: StageInfo,
        *,
        taps: dict[int, int],
        features: Callable[[Tensor], dict[int, Tensor]],
        entry: Entry,
    ) -> "Tail":
        """Trace `model`, cut it behind the stage that `info` describes, and check what comes out.

        Where that cannot be right there (inside a residual block, say), it is at the next place that allows it.

        Args:
            taps: the model's stages as indices into its `feature_info`.
            features: the maps of all stages for some images.

        Raises:
            UnsupportedPair: the network cannot be cut there, or the cut network is not the network.
        """
        what = f"{type(model).__name__} cannot resume from stage {info.stage}"
        if info.tap is None:
            raise UnsupportedPair(f"{type(model).__name__} has nothing behind stage {info.stage}")
        with _looked_into(model, what):
            return cls._resumed(model, head, image_shape, info, taps=taps, features=features, entry=entry)

    @classmethod
    def _resumed(
        cls,
        model: nn.Module,
        head: Callable[[Any], Outputs],
        image_shape: tuple[int, int, int],
        info: StageInfo,
        *,
        taps: dict[int, int],
        features: Callable[[Tensor], dict[int, Tensor]],
        entry: Entry,
    ) -> "Tail":
        names = {stage: _tap_name(model, tap) for stage, tap in taps.items()}
        opening = _opening(model, names.get(info.stage + 1)) if entry == "downsampled" else None
        traced, images = _traced(model, image_shape, [*names.values(), *filter(None, [opening])])
        with torch.no_grad():
            maps = [features(batch) for batch in images]
            final = model.forward_features(images[1])  # type: ignore[operator]
        reason = "no state there holds its features"
        for place in _places(traced, maps, names, info.stage, opening):
            try:
                trunk = cut(traced, place.node, place.packing.place)
            except Unclean as error:
                reason = str(error)
                continue
            is_the_stages = place.maps[0].shape == maps[0][info.stage].shape
            if not is_the_stages and not any(True for _ in trunk.parameters()):
                break
            prefix = prefix_of(traced.values[1][place.node], place.packing)
            with torch.no_grad():
                if not _same(trunk(place.packing.pack(place.maps[1], prefix)), final):
                    raise UnsupportedPair("the part behind it does not reproduce its output")
            return cls(model, head, trunk, place.packing, place.maps[0])
        raise UnsupportedPair(reason)


class Segment:
    """A network from a stage to the next one. As a tail, it shares the network's modules and owns no parameter.

    Attributes:
        stage: whose feature it takes.
        following: the stage whose feature it gives.
    """

    def __init__(
        self,
        model: nn.Module,
        trunk: fx.GraphModule,
        packings: tuple[Packing, Packing],
        infos: tuple[StageInfo, StageInfo],
    ) -> None:
        """Keep the parts; `build` makes them.

        Args:
            trunk: what lies between the two stages.
            packings: the forms in which the network holds the features of the two.
        """
        self._trunk = trunk
        self._enters, self._leaves = packings
        self._into = infos[1]
        self.stage, self.following = (info.stage for info in infos)
        self._norms = _batch_norms(model)

    def __call__(self, feature: Tensor, prefix: Tensor | None = None) -> Feature:
        """The next stage's feature.

        Batch-norm layers do not update their running statistics here, for the reason that they do not in a tail.

        Args:
            feature: (B, channels, *grid), the map of the stage.
            prefix: (B, prefix, channels), needed when the network has prefix tokens.
        """
        with _frozen_statistics(self._norms):
            state = self._trunk(self._enters.pack(feature, prefix))
        return Feature(self._leaves.unpack(state, self._into.grid), prefix_of(state, self._leaves), self._into.layout)

    @classmethod
    def build(
        cls,
        model: nn.Module,
        image_shape: tuple[int, int, int],
        infos: tuple[StageInfo, StageInfo],
        taps: dict[int, int],
        features: Callable[[Tensor], dict[int, Tensor]],
    ) -> "Segment":
        """Trace `model`, cut it behind the stages that `infos` describes, and check what comes out.

        Args:
            taps: the model's stages as indices into its `feature_info`.
            features: the maps of all stages for some images.

        Raises:
            UnsupportedPair: the network cannot be cut there, or the cut network is not the network.
        """
        first, last = (info.stage for info in infos)
        with _looked_into(model, f"{type(model).__name__} cannot be run from stage {first} to stage {last}"):
            names = {stage: _tap_name(model, tap) for stage, tap in taps.items()}
            traced, images = _traced(model, image_shape, list(names.values()))
            with torch.no_grad():
                maps = [features(batch) for batch in images]
            start, enters = _held(traced, maps[0][first], names[first])
            end, leaves = traced.output, find_packing(traced.values[0][traced.output], maps[0][last])
            if infos[1].tap is not None:
                end, leaves = _held(traced, maps[0][last], names[last])
            if start is None or end is None or enters is None or leaves is None:
                raise UnsupportedPair("no state there holds its features")
            if enters.prefix != infos[0].prefix or leaves.prefix != infos[1].prefix:
                raise UnsupportedPair("its features come without the class tokens that go with them")
            try:
                trunk = cut(traced, start, enters.place, end)
            except Unclean as error:
                raise UnsupportedPair(str(error)) from error
            segment = cls(model, trunk, (enters, leaves), infos)
            with torch.no_grad():
                ours = segment(maps[1][first], prefix_of(traced.values[1][start], enters))
            if not _same((ours.map, ours.prefix), (maps[1][last], prefix_of(traced.values[1][end], leaves))):
                raise UnsupportedPair("what lies between does not reproduce its output")
            return segment


@contextmanager
def _looked_into(model: nn.Module, what: str) -> Iterator[None]:
    """In eval mode, without autocast, and left as it was; whatever goes wrong inside is the reason why `what`."""
    training = model.training
    model.eval()
    try:
        with torch.autocast(next(model.parameters()).device.type, enabled=False):
            yield
    except UnsupportedPair as reason:
        raise UnsupportedPair(f"{what}: {reason}") from reason
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnsupportedPair(f"{what}: {reason}") from error
    finally:
        forget_constants(model)
        model.train(training)


def _traced(model: nn.Module, image_shape: tuple[int, int, int], taps: list[str]) -> tuple[Traced, list[Tensor]]:
    """The trunk's graph and the two batches of images that it was traced with."""
    images = [_images(model, image_shape, number) for number in (2, 3)]
    graph, values = trace_trunk(model, taps, images[0])
    return Traced(model, graph, (values, values_of(model, graph, images[1])), (2, 3)), images


@dataclass(frozen=True)
class _Place:
    """Where a network may be cut: the node, the form of its value, and that as maps, for both batches."""

    node: fx.Node
    packing: Packing
    maps: list[Tensor]


def _places(
    traced: Traced, features: list[dict[int, Tensor]], names: dict[int, str], stage: int, opening: str | None
) -> Iterator[_Place]:
    """Behind the down-sampling where that is asked for and there is one, behind the stage, or somewhere after it."""
    values, maps = traced.values, [by_stage[stage] for by_stage in features]
    tap, packing = _held(traced, maps[0], names[stage])
    if tap is None:
        return
    down = traced.named(opening) if opening else None
    following = features[0].get(stage + 1)
    grids = [feature.shape[2:] for feature in (maps[0], following) if feature is not None]
    if down is not None:
        yield from _as_map(traced, down, grids)
    if packing is not None:
        yield _Place(tap, packing, maps)
    for node in traced.behind(tap):
        if following is not None and find_packing(values[0][node], following) is not None:
            return
        yield from _as_map(traced, node, grids)


def _held(traced: Traced, feature: Tensor, name: str) -> tuple[fx.Node | None, Packing | None]:
    """Where the network holds a stage's map of the first batch, and in what form; `name` is where it should."""
    values, tap = traced.values[0], traced.named(name)
    packing = find_packing(values[tap], feature) if tap is not None else None
    if packing is not None:
        return tap, packing
    # Names in `feature_info` may be wrong, or of a module that adds to what the stage puts out.
    held = ((node, find_packing(values[node], feature)) for node in traced.graph.nodes if node.op != "output")
    return next((found for found in held if found[1] is not None), (tap, None))


def _as_map(traced: Traced, node: fx.Node, grids: list[torch.Size]) -> Iterator[_Place]:
    """A place whose value is a map itself; channels come last only where that alone leaves one of the `grids`."""
    states = [values[node] for values in traced.values]
    sizes = [len(value) if isinstance(value, Tensor) and value.ndim == 4 else 0 for value in states]
    if sizes == list(traced.batches):
        nhwc = states[0].shape[1:3] in grids and states[0].shape[2:] not in grids
        maps = [value.permute(0, 3, 1, 2) if nhwc else value for value in states]
        yield _Place(node, Packing("NHWC" if nhwc else "NCHW"), maps)


def _tap_name(model: nn.Module, tap: int) -> str:
    return model.feature_info[tap]["module"]  # type: ignore[index]


def _opening(model: nn.Module, following: str | None) -> str | None:
    """Name of the down-sampling that opens the following stage, None where it does not begin with one."""
    module = dict(model.named_modules()).get(f"{following}.downsample")
    return None if module is None or isinstance(module, nn.Identity) else f"{following}.downsample"


def _images(model: nn.Module, image_shape: tuple[int, int, int], number: int) -> Tensor:
    reference = next(model.parameters())
    random = torch.Generator().manual_seed(number)
    return torch.randn((number, *image_shape), generator=random, dtype=reference.dtype).to(reference.device)


def _same(one: Any, other: Any) -> bool:
    """Whether two outputs of a trunk agree, tensor by tensor, but for rounding (memory laid out otherwise)."""
    pairs = [pair for pair in zip(tree_leaves(one), tree_leaves(other), strict=True) if isinstance(pair[0], Tensor)]
    return all(a.shape == b.shape and (a - b).abs().max() <= ROUNDING * b.abs().max() for a, b in pairs)


def _batch_norms(model: nn.Module) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


@contextmanager
def _frozen_statistics(norms: list[Any]) -> Iterator[None]:
    """Batch-norm layers normalise by the batch as their mode says, but leave their running statistics alone."""
    saved = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms if norm.training]
    for norm, _, counter in saved:
        norm.momentum = 0.0
        if counter is not None:
            norm.num_batches_tracked = counter.clone()
    try:
        yield
    finally:
        for norm, momentum, counter in saved:
            norm.momentum = momentum
            norm.num_batches_tracked = counter
