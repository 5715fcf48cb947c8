"""Checkpoints that kdbench did not write: reading them as tensors only, and fitting them to a timm model.

Published weights come as safetensors or `torch.save` files, wrapped by training scripts, in the layouts of older timm
versions or under the parameter names of another code base. Nothing but tensors is ever unpickled.
"""

import hashlib
import json
import pickle
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from kdbench.errors import KdbenchError
from kdbench.values import inside
from kdbench.weights.files import file_sha256, read_safetensors, refuse_not_finite, unpickled

State = dict[str, Tensor]

Which = Literal["ema", "plain"]
"""The weights of a moving average, or those that were trained."""
INDEX = ".safetensors.index.json"
"""How the name ends of a file that says which tensor is in which of several safetensors files beside it."""
_AVERAGED = re.compile(r"(?<![a-z])(ema|swa|avg|averaged?)(?![a-z])")
_COMPILED = "_orig_mod."
_DEEPEST = 4
"""How many keys may lie on the way to a set of weights."""


@dataclass(frozen=True)
class WeightSet:
    """Tensors that a file holds under one key, such as `state_dict_ema`.

    Attributes:
        where: the keys on the way to them, with slashes between; empty where the file is these tensors.
        state: by name, as stored.
    """

    where: str
    state: State


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a file.

    Attributes:
        sets: all sets of weights by name that it holds; training scripts keep averaged weights beside the trained ones.
        ordered: in the order in which the model defines them; a safetensors file is sorted by name.
    """

    path: Path
    sets: tuple[WeightSet, ...]
    ordered: bool


@dataclass(frozen=True)
class Fitted:
    """A set of weights under a model's own names.

    Attributes:
        state: the model's names; shapes are the model's but for the classifier.
        matched: how tensors were matched with the model's.
        num_classes: of the checkpoint's classifier, None where it has none.
        classifier: names of the tensors whose first dimension is the classes.
        where: the keys on the way to it in the file, and what its names begin with; for people.
        which: whether it is a moving average, which the words of `where` tell.
    """

    state: State
    matched: Literal["by name", "by order"]
    num_classes: int | None
    classifier: frozenset[str]
    where: str = ""
    which: Which = "plain"

    @property
    def name(self) -> str:
        """What people are told of it."""
        return self.where or "weights at the top of the file"

    def reordered(self, rows: Sequence[int]) -> "Fitted":
        """The same with the rows of the classifier in another order: row i is the one that was `rows[i]`."""
        index = torch.tensor(rows)
        return replace(self, state={n: t[index] if n in self.classifier else t for n, t in self.state.items()})


def checkpoint_sha256(path: Path) -> str:
    """The hash of a checkpoint's bytes, those of all its files, in hexadecimal."""
    shards = _shards(path)
    if not shards:
        return file_sha256(path)
    return hashlib.sha256("".join(map(file_sha256, [path, *shards])).encode()).hexdigest()


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a safetensors file, the index of several, or a torch checkpoint, and unwrap it.

    Raises:
        KdbenchError: no such file, a damaged one, or one that holds more than tensors.
    """
    if path.exists() and not path.is_file():
        raise KdbenchError(f"cannot read weights {path}: it is no file")
    if path.name.endswith(INDEX):
        shards = [read_safetensors(shard) for shard in _shards(path)]
        content, ordered = {name: tensor for shard in shards for name, tensor in shard.items()}, False
    else:
        try:
            with path.open("rb") as file:
                start = file.read(9)
        except OSError as error:
            raise KdbenchError(f"cannot read weights {path}: {error.strerror or error}") from error
        # A safetensors file begins with the length of its JSON header; no zip archive and no pickle has `{` there.
        ordered = start[8:] != b"{"
        content = _read_torch(path) if ordered else read_safetensors(path)
    sets = tuple(_sets(content, "", set()))
    if not sets:
        raise KdbenchError(f"{path} holds no weights by name; save the `state_dict()` of a model")
    for found in sets:
        _refuse_odd(path, found.state)
    return Checkpoint(path, sets, ordered)


def fit(checkpoint: Checkpoint, model: nn.Module, headless: bool = False, which: Which | None = None) -> list[Fitted]:
    """Match the tensors of a checkpoint with those of a model, every one of them.

    Tried in this order: the model's own names, also behind a prefix; its names after timm's conversion of other
    layouts; the order of definition, which must agree in every shape. Only the number of classes may differ.

    Args:
        headless: a checkpoint without a classifier fits, too.
        which: whether to look at moving averages, or at other weights, alone; None for both.

    Returns:
        All sets of weights that fit, each once.

    Raises:
        KdbenchError: none fits, and the message names the first tensor that does not; there are none of those that
            `which` asks for; or values that are not finite.
    """
    matching = _Matching(model, headless, checkpoint.ordered)
    fitted = [found for weights in checkpoint.sets for found in matching.fitted(weights)]
    if not fitted:
        largest = max(checkpoint.sets, key=lambda weights: len(_weights(weights.state)))
        problem = matching.problem(largest.state)
        hint = _part_of_several(checkpoint.path)
        raise KdbenchError(f"{checkpoint.path} does not fit the model {type(model).__name__}: {problem}{hint}")
    chosen = [found for found in fitted if which in (None, found.which)]
    if not chosen:
        kind = "moving average of the weights" if which == "ema" else "weights that are no moving average"
        raise KdbenchError(f"{checkpoint.path} holds no {kind}; it holds {', '.join(found.name for found in fitted)}")
    for found in chosen:
        refuse_not_finite(checkpoint.path, found.state)
    return [found for number, found in enumerate(chosen) if not any(_equal(found, other) for other in chosen[:number])]


class _Matching:
    """A model's tensors, and how sets of weights match with them."""

    def __init__(self, model: nn.Module, headless: bool, ordered: bool) -> None:
        self._model = model
        self._everything: State = model.state_dict()
        self._own = _weights(self._everything)
        self._classifier = _classifier_names(model)
        self._headless = headless
        self._ordered = ordered

    def fitted(self, weights: WeightSet) -> list[Fitted]:
        """Every way to read a set of weights as the model's; one set of names may have several, behind prefixes."""
        state = self._without_compiled(weights.state)
        averaged = "n_averaged" in state
        found = [
            self._made(matched, "by name", f"{weights.where} {prefix}*" if prefix else weights.where, averaged)
            for prefix, part in self._behind_prefixes(state)
            if (matched := self._by_name(part)) is not None
        ]
        if found:
            return found
        for part in _without_common_prefixes(state):
            converted = _converted(part, self._model)
            if (matched := self._by_name(part) or self._by_name(converted)) is not None:
                return [self._made(matched, "by name", weights.where, averaged)]
        given = _weights(state)
        if self._ordered and len(given) == len(self._own) and self._order_problem(given) is None:
            ours = dict(zip(self._own, given.values(), strict=True))
            return [self._made(ours, "by order", weights.where, averaged)]
        return []

    def problem(self, state: State) -> str:
        """Why a set of weights does not fit."""
        state = list(_without_common_prefixes(self._without_compiled(state)))[-1]
        given, converted = _weights(state), _weights(_converted(state, self._model))
        for names in (given, converted):
            if self._same_names(names):
                return self._difference({name: name for name in names}, names) or "its shapes"
        nearer = max(given, converted, key=lambda names: len(names.keys() & self._own.keys()))
        problem = _first_stranger(self._own, nearer)
        if self._ordered and len(given) == len(self._own):
            return self._order_problem(given) or problem
        why = f"it has {len(given)} tensors, the model {len(self._own)}" if self._ordered else "it is sorted by name"
        return f"{problem}, and order does not help: {why}"

    def _without_compiled(self, state: State) -> State:
        """The state without the word that `torch.compile` puts into names, unless the model itself has it."""
        if any(_COMPILED in name for name in self._everything):
            return state
        return {name.replace(_COMPILED, ""): tensor for name, tensor in state.items()}

    def _behind_prefixes(self, state: State) -> Iterator[tuple[str, State]]:
        """The parts of a state that hold all of the model's names behind one prefix, with that."""
        needed = self._own.keys() - (self._classifier if self._headless else set())
        first = next((name for name in self._own if name in needed), None)
        if first is None:
            return
        starts = [name.removesuffix(first) for name in state if name == first or name.endswith(f".{first}")]
        prefixes = [start for start in starts if all(f"{start}{name}" in state for name in needed)]
        for prefix in prefixes:
            deeper = tuple(other for other in prefixes if other.startswith(prefix) and other != prefix)
            yield (
                prefix,
                {
                    name.removeprefix(prefix): tensor
                    for name, tensor in state.items()
                    if name.startswith(prefix) and not (deeper and name.startswith(deeper))
                },
            )

    def _by_name(self, state: State) -> State | None:
        """The state, if it has the model's names and shapes."""
        given = _weights(state)
        if not self._same_names(given) or self._difference({name: name for name in given}, given) is not None:
            return None
        counters = {name: t for name, t in state.items() if name in self._everything and name not in self._own}
        return given | counters

    def _same_names(self, given: State) -> bool:
        own = self._own.keys()
        return given.keys() == own or (self._headless and given.keys() == own - self._classifier)

    def _order_problem(self, given: State) -> str | None:
        return self._difference(dict(zip(self._own, given, strict=True)), given)

    def _difference(self, names: dict[str, str], given: State) -> str | None:
        return _first_difference(self._own, names, given, self._classifier)

    def _made(self, state: State, matched: Literal["by name", "by order"], where: str, averaged: bool) -> Fitted:
        classes = next((len(state[name]) for name in state if name in self._classifier), None)
        averaged = averaged or _AVERAGED.search(where.lower()) is not None
        which: Which = "ema" if averaged else "plain"
        return Fitted(state, matched, classes, frozenset(self._classifier), where.strip(), which)


def _sets(content: Any, where: str, seen: set[int]) -> Iterator[WeightSet]:
    """All mappings from names to tensors in what a file holds; a pickle may hold itself."""
    if not isinstance(content, Mapping) or id(content) in seen:
        return
    seen.add(id(content))
    state = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if state:
        yield WeightSet(where, state)
    for key, value in content.items():
        # An optimizer's moments have the names of the weights, too.
        if isinstance(key, str) and "optim" not in key.lower() and where.count("/") < _DEEPEST:
            yield from _sets(value, f"{where}/{key}" if where else key, seen)


def _shards(path: Path) -> list[Path]:
    """The files that the index `path` names, none where it is no index.

    Raises:
        KdbenchError: it cannot be read, or names a file elsewhere.
    """
    if not path.name.endswith(INDEX):
        return []
    try:
        names = sorted({inside(name) for name in json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()})
    except OSError as error:
        raise KdbenchError(f"cannot read weights {path}: {error.strerror or error}") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise KdbenchError(f"{path} is no index of safetensors files: {error}") from error
    return [path.parent / name for name in names]


def _part_of_several(path: Path) -> str:
    part = re.fullmatch(r"(.+)-\d+-of-\d+\.safetensors", path.name)
    return f"; it is a part of several, name {part[1]}{INDEX}" if part else ""


def _equal(one: Fitted, other: Fitted) -> bool:
    return one.state.keys() == other.state.keys() and all(
        torch.equal(tensor, other.state[name]) for name, tensor in one.state.items()
    )


def _read_torch(path: Path) -> Any:
    """What `torch.save` wrote, as long as that is tensors and plain values."""
    try:
        return unpickled(path)
    except KdbenchError:
        raise
    except pickle.UnpicklingError as error:
        blocked = re.search(r"GLOBAL ([\w.]+)", str(error))
        if blocked:
            raise KdbenchError(
                f"{path} holds more than tensors ({blocked[1]}), which kdbench does not unpickle; "
                "save the `state_dict()` alone, as safetensors"
            ) from None
        reason = "no pickle of torch"
    except Exception as error:  # A damaged file fails in any way its bytes lead to.
        reason = str(error).partition(". ")[0].partition("\n")[0] or type(error).__name__
    raise KdbenchError(f"{path} is neither a whole safetensors file nor a whole torch checkpoint: {reason}")


def _refuse_odd(path: Path, state: State) -> None:
    """Refuse tensors that are no plain arrays of values, each in the file; others may claim any size."""
    for name, tensor in state.items():
        plain = tensor.layout is torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
        if not plain or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise KdbenchError(f"{path} holds {name} not as a plain array of values; save it with `.contiguous()`")


def _without_common_prefixes(state: State) -> Iterator[State]:
    """The state, then that without a first word that the names of all weights share, and so on."""
    while True:
        yield state
        names = _weights(state)
        if not names or not all("." in name for name in names) or len({name.partition(".")[0] for name in names}) > 1:
            return
        first = next(iter(names)).partition(".")[0] + "."
        state = {name.removeprefix(first): tensor for name, tensor in state.items() if name.startswith(first)}


def _weights(state: State) -> State:
    """What is learned or averaged: neither index tables nor the counters of batch norm, which many files leave out."""
    return {
        name: tensor
        for name, tensor in state.items()
        if tensor.is_floating_point() and not name.endswith("num_batches_tracked")
    }


def _converted(state: State, model: nn.Module) -> State:
    """The state after timm's conversion of older and original layouts, where its module has one that applies."""
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return state
    try:
        return convert(dict(state), model)
    except Exception:  # It takes the layouts it knows for granted; on any other it fails in any way.
        return state


def _classifier_names(model: nn.Module) -> set[str]:
    """Names of the tensors whose first dimension is the classes; a distilled model has two classifiers."""
    found = model.get_classifier()  # type: ignore[operator]
    heads = [head for head in (found if isinstance(found, tuple) else (found,)) if isinstance(head, nn.Module)]
    theirs = {id(parameter) for head in heads for parameter in head.parameters()}
    return {name for name, tensor in model.state_dict(keep_vars=True).items() if id(tensor) in theirs}


def _first_difference(own: State, names: dict[str, str], given: State, classifier: set[str]) -> str | None:
    """The first tensor whose shape is not that of the one it is matched with (`names`: ours to theirs)."""
    for name, theirs in names.items():
        skip = 1 if name in classifier else 0
        if own[name].ndim != given[theirs].ndim or own[name].shape[skip:] != given[theirs].shape[skip:]:
            place = name if name == theirs else f"{theirs} in place of {name}"
            return f"{place} is {tuple(given[theirs].shape)}, not {tuple(own[name].shape)}"
    return None


def _first_stranger(own: State, given: State) -> str:
    """The first name that only one side has."""
    unknown = next((name for name in given if name not in own), None)
    missing = next((name for name in own if name not in given), None)
    return f"it has {unknown}" if unknown is not None else f"it lacks {missing}"
