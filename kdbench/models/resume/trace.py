"""Tracing the glue of a network: torch.fx with the values of an example beside its symbols.

Plain symbolic tracing gives up where the glue asks a tensor's size in a condition, unpacks a shape or loops over a list
of branches. Here every symbol knows its value for one example, so that such questions are answered, for this size of
image, by it. Blocks are leaves, so what goes on in them never matters.
"""

import builtins
import inspect
import operator
from collections.abc import Collection, Iterator
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

_CALL, _GETATTR = nn.Module.__call__, nn.Module.__getattr__
_len = len

Values = dict[fx.Node, Any]


def trace_trunk(model: nn.Module, taps: Collection[str], image: Tensor) -> tuple[fx.Graph, Values]:
    """The graph of `model.forward_features` and the value of each of its nodes for `image`.

    Args:
        taps: names of modules that are to be nodes of the graph, where they are called at all.

    Raises:
        Exception: whatever the glue does when it meets a symbol that it cannot handle.
    """
    signature = inspect.signature(model.forward_features)  # type: ignore[arg-type]
    defaults = {n: p.default for n, p in signature.parameters.items() if p.default is not inspect.Parameter.empty}
    tracer = _Tracer(taps, [image, *defaults.values()])
    with torch.no_grad(), patch.object(builtins, "len", _symbolic_len):
        graph = tracer.trace(model, concrete_args=defaults)
    # Options are fixed at their defaults; what is left of them only says so.
    _, *options = graph.find_nodes(op="placeholder")
    for option in options:
        _erase(graph, option)
    return graph, tracer.values


def values_of(model: nn.Module, graph: fx.Graph, image: Tensor) -> Values:
    """The value of each node for another image."""
    run = _Recorder(model, graph=graph, garbage_collect_values=False)
    with torch.no_grad():
        run.run(image)
    return run.values


def _own(value: Any) -> Any:
    """Arguments as Python would hand them over: lists that a module may write to."""
    if isinstance(value, dict):
        return {key: _own(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_own(part) for part in value]
    return tuple(map(_own, value)) if type(value) is tuple else value


def forget_constants(model: nn.Module) -> None:
    """Take off the model what torch.fx has hung on it: tensors that its glue made."""
    for name in [name for name in vars(model) if name.startswith("_tensor_constant")]:
        delattr(model, name)


def _erase(graph: fx.Graph, node: fx.Node) -> None:
    for user in list(node.users):
        _erase(graph, user)
    graph.erase_node(node)


class _Recorder(fx.Interpreter):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.values: Values = {}

    def fetch_args_kwargs_from_env(self, n: fx.Node) -> Any:
        return tuple(map(_own, super().fetch_args_kwargs_from_env(n)))

    def run_node(self, n: fx.Node) -> Any:
        self.values[n] = super().run_node(n)
        return self.values[n]


class _Tracer(fx.Tracer):
    """Leaves are all modules but the root, plain sequences and what contains a tap."""

    def __init__(self, taps: Collection[str], arguments: list[Any]) -> None:
        super().__init__()
        self.traced_func_name = "forward_features"
        self.values: Values = {}
        self._arguments = iter(arguments)
        self._taps = set(taps)
        self._containers = {name[:i] for name in taps for i, sign in enumerate(name) if sign == "."}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if module_qualified_name in self._containers:
            return False
        return module_qualified_name in self._taps or type(m) is not nn.Sequential

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Valued(node, self)

    def create_node(
        self,
        kind: str,
        target: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        name: str | None = None,
        type_expr: Any = None,
    ) -> fx.Node:
        node = super().create_node(kind, target, args, kwargs, name, type_expr)
        # Modules are called as they are, not traced.
        with patch.object(nn.Module, "__call__", _CALL), patch.object(nn.Module, "__getattr__", _GETATTR):
            self.values[node] = self._value(node)
        return node

    def _value(self, node: fx.Node) -> Any:
        if node.op == "placeholder":
            return next(self._arguments)
        args, kwargs = (_own(map_arg(part, self.values.__getitem__)) for part in (node.args, node.kwargs))
        if node.op == "get_attr":
            return operator.attrgetter(str(node.target))(self.root)
        if node.op == "call_module":
            return self.root.get_submodule(str(node.target))(*args, **kwargs)
        if node.op == "call_method":
            receiver, *rest = args
            return getattr(receiver, str(node.target))(*rest, **kwargs)
        if node.op == "call_function":
            return node.target(*args, **kwargs)  # type: ignore[operator]
        return args[0]


class _Valued(fx.Proxy):
    """A symbol with a value: what Python itself wants to know of it, it answers by that."""

    tracer: _Tracer

    @property
    def value(self) -> Any:
        return self.tracer.values[self.node]

    def __getattr__(self, k: str) -> Any:
        attribute = getattr(self.value, k)
        if callable(attribute):
            return super().__getattr__(k)
        return self.tracer.create_proxy("call_function", getattr, (self, k), {})

    def __bool__(self) -> bool:
        return bool(self.value)

    def __int__(self) -> int:
        return int(self.value)

    def __float__(self) -> float:
        return float(self.value)

    def __index__(self) -> int:
        return operator.index(self.value)

    def __len__(self) -> int:
        return _len(self.value)

    def __iter__(self) -> Iterator[Any]:
        proxy: Any = self
        return (proxy[i] for i in range(_len(self.value)))


def _symbolic_len(value: Any) -> Any:
    """`len`, which Python wants to be a number: of a tensor it is a symbol, as its size is; it may be the batch's."""
    if isinstance(value, _Valued) and isinstance(value.value, Tensor):
        return value.size(0)
    return _len(value)
