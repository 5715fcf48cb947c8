"""Cutting the traced graph of a trunk: the part behind a node, or between two, as a function of the node's value."""

import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from kdbench.models.resume.trace import Values


class Unclean(Exception):
    """More of the image than the node's value is needed behind it."""


@dataclass(frozen=True)
class Traced:
    """A trunk's graph with the values of its nodes for two batches of images, of different data and size.

    The second batch tells what depends on the data, what on the number of images and what on neither.
    """

    model: nn.Module
    graph: fx.Graph
    values: tuple[Values, Values]
    batches: tuple[int, int]

    @property
    def output(self) -> fx.Node:
        (node,) = self.graph.find_nodes(op="output")
        return node

    def named(self, module: str) -> fx.Node | None:
        """The one call of a module; None where it is not called, or more than once."""
        calls = self.graph.find_nodes(op="call_module", target=module)
        return calls[0] if len(calls) == 1 else None

    def behind(self, node: fx.Node) -> Iterator[fx.Node]:
        """What depends on a node, in order."""
        dependent = {node}
        for other in self.graph.nodes:
            if dependent.intersection(other.all_input_nodes):
                dependent.add(other)
                if other.op != "output":
                    yield other


def cut(traced: Traced, node: fx.Node, part: int | None, end: fx.Node | None = None) -> fx.GraphModule:
    """The trunk behind `node`, as a module of the model's own submodules that takes the value of `node`.

    What is known before any image is there (positional embeddings, say) is computed behind the cut again; sizes and
    other constants are those of the traced image size, the number of images is that of what enters.

    Args:
        part: where the value of `node` is a tuple, its element that has the images' first axis.
        end: the node whose value is put out; None for the trunk's final features.

    Raises:
        Unclean: the graph cannot be cut there.
    """
    return _Cut(traced, node, part).module(end or traced.output)


class _Cut:
    def __init__(self, traced: Traced, node: fx.Node, part: int | None) -> None:
        self._traced = traced
        self._root: dict[str, Any] = {}
        self._tail = fx.Graph()
        state = self._tail.placeholder("state")
        self._copies: dict[fx.Node, fx.Node] = {node: state}
        self._images = state if part is None else self._tail.call_function(operator.getitem, (state, part))
        self._behind = {node, *traced.behind(node), traced.output}
        self._batch: fx.Node | None = None

    def module(self, end: fx.Node) -> fx.GraphModule:
        needed = _ancestors(end, self._copies) & self._behind
        if end not in needed:
            raise Unclean("what is wanted is not computed behind it")
        for node in self._traced.graph.nodes:
            if node in needed and node not in self._copies:
                for source in node.all_input_nodes:
                    self._bring(source)
                self._copy(node)
        if end.op != "output":
            self._tail.output(self._copies[end])
        return fx.GraphModule(self._root, self._tail)

    def _bring(self, node: fx.Node) -> None:
        """Make the value of a node from before the cut known behind it."""
        if node in self._copies:
            return
        first, second = (values[node] for values in self._traced.values)
        if _is_plain(first) and first == second:
            self._copies[node] = self._constant(node.name, first)
        elif type(first) is int and (first, second) == self._traced.batches:
            if self._batch is None:
                self._batch = self._tail.call_method("size", (self._images, 0))
            self._copies[node] = self._batch
        elif node.op == "placeholder":
            raise Unclean("the image is needed behind it")
        else:
            try:
                for source in node.all_input_nodes:
                    self._bring(source)
                self._copy(node)
            except Unclean:
                if not (isinstance(first, Tensor) and first.shape == second.shape and torch.equal(first, second)):
                    raise Unclean(f"more than its features is needed behind it ({node.name})") from None
                self._copies[node] = self._constant(node.name, first)

    def _copy(self, node: fx.Node) -> None:
        if node.op in ("call_module", "get_attr"):
            self._root[str(node.target)] = operator.attrgetter(str(node.target))(self._traced.model)
        self._copies[node] = self._tail.node_copy(node, self._copies.__getitem__)

    def _constant(self, name: str, value: Any) -> fx.Node:
        self._root[f"constant_{name}"] = value
        return self._tail.get_attr(f"constant_{name}")


def _ancestors(node: fx.Node, stop: dict[fx.Node, fx.Node]) -> set[fx.Node]:
    ancestors: set[fx.Node] = set()
    pending = [node]
    while pending:
        current = pending.pop()
        if current not in ancestors:
            ancestors.add(current)
            if current not in stop:
                pending += current.all_input_nodes
    return ancestors


def _is_plain(value: Any) -> bool:
    """Whether a value has no tensor in it."""
    return not any(isinstance(leaf, Tensor) for leaf in tree_leaves(value))
