"""Checkpoints that kdbench did not write: reading them as tensors only, and fitting them to a timm model.

Published weights come as safetensors or `torch.save` files, wrapped by training scripts, in the layouts of older timm
versions or under the parameter names of another code base. Nothing but tensors is ever unpickled.
"""

import pickle
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from timm.models import clean_state_dict
from torch import Tensor, nn

from kdbench.errors import KdbenchError
from kdbench.weights.files import read_safetensors, refuse_not_finite, unpickled

State = dict[str, Tensor]

WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model", "net")
"""Keys under which training scripts keep the weights, averaged ones (what timm evaluates) first."""


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a file.

    Attributes:
        state: by name, without the prefixes of wrappers.
        ordered: in the order in which the model defines them; a safetensors file is sorted by name.
    """

    path: Path
    state: State
    ordered: bool


@dataclass(frozen=True)
class Fitted:
    """A checkpoint under a model's own names.

    Attributes:
        state: the model's names; shapes are the model's but for the classifier.
        matched: how tensors were matched with the model's.
        num_classes: of the checkpoint's classifier, None where it has none.
    """

    state: State
    matched: Literal["by name", "by order"]
    num_classes: int | None


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a safetensors file or a torch checkpoint and unwrap it.

    Raises:
        KdbenchError: no such file, a damaged one, one that holds more than tensors, or values that are not finite.
    """
    if path.exists() and not path.is_file():
        raise KdbenchError(f"cannot read weights {path}: it is no file")
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise KdbenchError(f"cannot read weights {path}: {error.strerror or error}") from error
    # A safetensors file begins with the length of its JSON header; neither a zip archive nor a pickle has `{` there.
    ordered = start[8:] != b"{"
    content = _read_torch(path) if ordered else read_safetensors(path)
    # A pickle may hold itself, so that unwrapping would have no end.
    for _ in WRAPPERS:
        inner = (content.get(key) for key in WRAPPERS) if isinstance(content, Mapping) else ()
        content = next((value for value in inner if isinstance(value, Mapping)), content)
    items = content.items() if isinstance(content, Mapping) else ()
    state = clean_state_dict({str(name): value for name, value in items if isinstance(value, Tensor)})
    if not state:
        raise KdbenchError(f"{path} holds no weights by name; save the `state_dict()` of a model")
    _refuse_odd(path, state)
    refuse_not_finite(path, state)
    return Checkpoint(path, _without_common_prefix(state), ordered)


def fit(checkpoint: Checkpoint, model: nn.Module, headless: bool = False) -> Fitted:
    """Match the tensors of a checkpoint with those of a timm model, every one of them.

    Tried in this order: the model's own names; its names after timm's conversion of other layouts; the order of
    definition, which must agree in every shape. Only the number of classes may differ.

    Args:
        headless: a checkpoint without a classifier fits, too.

    Raises:
        KdbenchError: it does not fit; the message names the first tensor that does not.
    """
    classifier = _classifier_names(model)
    everything = model.state_dict()
    own = _weights(everything)
    counters = {name: t for name, t in checkpoint.state.items() if name in everything and name not in own}
    given, converted = _weights(checkpoint.state), _weights(_converted(checkpoint.state, model))
    problem = None
    for state in (given, converted):
        if state.keys() == own.keys() or (headless and state.keys() == own.keys() - classifier):
            problem = _first_difference(own, {name: name for name in state}, state, classifier)
            if problem is None:
                return Fitted(state | counters, "by name", _num_classes(state, classifier))
    problem = problem or _first_stranger(own, max(given, converted, key=lambda state: len(state.keys() & own.keys())))
    if checkpoint.ordered and len(given) == len(own):
        names = dict(zip(own, given, strict=True))
        problem = _first_difference(own, names, given, classifier)
        if problem is None:
            state = {name: given[theirs] for name, theirs in names.items()}
            return Fitted(state, "by order", _num_classes(state, classifier))
    elif given.keys() != own.keys():
        why = f"it has {len(given)} tensors, the model {len(own)}" if checkpoint.ordered else "it is sorted by name"
        problem = f"{problem}, and order does not help: {why}"
    raise KdbenchError(f"{checkpoint.path} does not fit the model {type(model).__name__}: {problem}")


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


def _without_common_prefix(state: State) -> State:
    """The state without a first word that every name shares: that of the module which wrapped the model."""
    first = {name.partition(".")[0] for name in state}
    if len(first) > 1 or not all("." in name for name in state):
        return state
    return _without_common_prefix({name.partition(".")[2]: tensor for name, tensor in state.items()})


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
    heads = found if isinstance(found, tuple) else (found,)
    return {
        f"{path}.{name}"
        for path, module in model.named_modules()
        if any(module is head for head in heads)
        for name, _ in module.named_parameters()
    }


def _num_classes(state: State, classifier: set[str]) -> int | None:
    return next((len(state[name]) for name in state if name in classifier), None)


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
