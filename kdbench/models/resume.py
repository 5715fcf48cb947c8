"""Resuming a network from a stage: the graph of its trunk, cut behind that stage.

The trunk's own glue is traced with torch.fx, every block a leaf, so block internals never matter. What is built is
compared with the plain forward once; a network for which that fails is refused with a reason, never run wrongly.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn

from kdbench.errors import UnsupportedPair
from kdbench.models.features import Outputs, StageInfo

Entry = Literal["stage", "downsampled"]
"""Where a state enters: right behind the stage, or behind the down-sampling that opens the next one (if it has one)."""

RawLayout = Literal["NCHW", "NHWC", "NLC"]


class Tail:
    """A network from a stage on. It shares the network's modules and is itself no module: it owns no parameter.

    Attributes:
        channels, grid, prefix: what `__call__` takes: a map (B, channels, *grid) and `prefix` prefix tokens.
        layout: the network's own layout at the entry.
    """

    def __init__(
        self, model: nn.Module, head: Callable[[Tensor], Outputs], trunk: fx.GraphModule, state: Tensor, info: StageInfo
    ) -> None:
        """Use `build`.

        Args:
            head: pooled feature and logits of the trunk's final features.
            trunk: what lies between the entry and the final features.
            state: an example of what enters.
        """
        self._model = model
        self._head = head
        self._trunk = trunk
        self.prefix = info.prefix
        self.layout: RawLayout
        if state.ndim == 3:
            self.layout = "NLC"
            self.channels = state.shape[2]
            self.grid = info.grid
        elif info.layout == "tokens":
            self.layout = "NHWC"
            self.channels = state.shape[3]
            self.grid = (state.shape[1], state.shape[2])
        else:
            self.layout = "NCHW"
            self.channels = state.shape[1]
            self.grid = (state.shape[2], state.shape[3])
        # Those of the head, too, which is no part of the trunk.
        self._norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
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
            return self._trunk(self.pack(feature, prefix))

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

    def pack(self, feature: Tensor, prefix: Tensor | None = None) -> Tensor:
        """Bring a map (and prefix tokens) into the network's own layout at the entry."""
        if self.layout == "NCHW":
            return feature
        if self.layout == "NHWC":
            return feature.permute(0, 2, 3, 1)
        tokens = feature.flatten(2).transpose(1, 2)
        return tokens if prefix is None else torch.cat([prefix, tokens], dim=1)

    @property
    def prefix_tokens(self) -> Tensor | None:
        """(1, prefix, channels): the network's own class and register tokens, None where it has none."""
        if not self.prefix:
            return None
        names = ("cls_token", "dist_token", "reg_token")
        own = [t.detach() for name in names if isinstance(t := getattr(self._model, name, None), Tensor)]
        if sum(t.shape[1] for t in own) != self.prefix:
            return torch.zeros(1, self.prefix, self.channels)
        return torch.cat(own, dim=1)

    @classmethod
    def build(
        cls,
        model: nn.Module,
        head: Callable[[Tensor], Outputs],
        image_shape: tuple[int, int, int],
        info: StageInfo,
        taps: dict[int, int],
        entry: Entry,
    ) -> "Tail":
        """Trace `model`, cut it behind the stage that `info` describes, and check what comes out.

        Args:
            taps: the model's stages as indices into its `feature_info`.

        Raises:
            UnsupportedPair: the network cannot be cut there, or the cut network is not the network.
        """
        what = f"{type(model).__name__} cannot resume from stage {info.stage}"
        boundary = _boundary(model, info, taps, entry)
        training = model.training
        model.eval()
        try:
            trunk = _cut(model, boundary)
            reference = next(model.parameters())
            image = torch.randn(
                (3, *image_shape), generator=torch.Generator().manual_seed(0), dtype=reference.dtype
            ).to(reference.device)
            with torch.no_grad():
                state, final = _state_at(model, boundary, image)
                if not isinstance(state, Tensor):
                    raise UnsupportedPair(f"{what}: its state there is a {type(state).__name__}, not one tensor")
                if not torch.equal(trunk(state), final):
                    raise UnsupportedPair(f"{what}: the part behind it does not reproduce its output")
        except UnsupportedPair:
            raise
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UnsupportedPair(f"{what}: {reason}") from error
        finally:
            model.train(training)
        return cls(model, head, trunk, state, info)


def _boundary(model: nn.Module, info: StageInfo, taps: dict[int, int], entry: Entry) -> str:
    """Name of the module whose output is the state."""
    if info.tap is None:
        raise UnsupportedPair(f"{type(model).__name__} has nothing behind stage {info.stage}")
    features: Any = model.feature_info
    if entry == "downsampled" and info.stage + 1 in taps:
        opening = f"{features[taps[info.stage + 1]]['module']}.downsample"
        module = dict(model.named_modules()).get(opening)
        if module is not None and not isinstance(module, nn.Identity):
            return opening
    return features[info.tap]["module"]


class _GlueTracer(fx.Tracer):
    """Traces a model's `forward_features`; every module is a leaf except the containers above the boundary."""

    def __init__(self, boundary: str) -> None:
        super().__init__()
        self.traced_func_name = "forward_features"
        parts = boundary.split(".")
        self._containers = {".".join(parts[:i]) for i in range(1, len(parts))}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name not in self._containers


def _cut(model: nn.Module, boundary: str) -> fx.GraphModule:
    """The part of `forward_features` behind the module `boundary`, as a function of that module's output."""
    signature = inspect.signature(model.forward_features)  # type: ignore[arg-type]
    defaults = {n: p.default for n, p in signature.parameters.items() if p.default is not inspect.Parameter.empty}
    graph = _GlueTracer(boundary).trace(model, concrete_args=defaults)
    cuts = [node for node in graph.nodes if node.op == "call_module" and node.target == boundary]
    if len(cuts) != 1:
        raise UnsupportedPair(f"its module {boundary} is called {len(cuts)} times")
    (output,) = (node for node in graph.nodes if node.op == "output")
    needed: set[fx.Node] = set()
    pending = [output]
    while pending:
        node = pending.pop()
        if node in needed:
            continue
        needed.add(node)
        if node is not cuts[0]:
            pending.extend(node.all_input_nodes)
    tail = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {cuts[0]: tail.placeholder("state")}
    for node in graph.nodes:
        if node not in needed or node is cuts[0]:
            continue
        if node.op == "placeholder":
            raise UnsupportedPair(f"{node.name} is needed on both sides of {boundary}")
        copies[node] = tail.node_copy(node, copies.__getitem__)
    return fx.GraphModule(model, tail)


def _state_at(model: nn.Module, boundary: str, image: Tensor) -> tuple[Any, Tensor]:
    """Output of the module `boundary` and of the whole trunk."""
    states: list[Any] = []
    handle = model.get_submodule(boundary).register_forward_hook(lambda *call: states.append(call[2]))
    try:
        final = model.forward_features(image)  # type: ignore[operator]
    finally:
        handle.remove()
    return states[0], final


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
