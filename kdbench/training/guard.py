"""The closed division, seen to: what a method can reach and has to leave alone is compared before and after.

A method is handed the networks, labels and teacher outputs themselves, which the contenders beside it share; copies
or wrappers of them would cost every step. So it is watched where that costs nothing: while it is built and in the
self-check, before any training. The watch is for mistakes and for habits of other code bases. It is no sandbox: code
that hides from it is found by reading the plug-in, which is one file.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kdbench.data.batch import Batch
from kdbench.errors import KdbenchError
from kdbench.method import Method
from kdbench.models.features import Outputs
from kdbench.models.staged import StagedModel

TEACHER = "teacher is frozen"
STUDENT = "student is left to the optimizer"
SHARED = "what contenders share is left alone"
RANDOM = "randomness is the contender's own"
SETTINGS = "settings of torch are left alone"

RULES = {
    TEACHER: "weights, mode and modules as before",
    STUDENT: "weights, mode and modules as before",
    SHARED: "labels, targets and teacher outputs as before",
    RANDOM: "nothing re-seeded, nothing drawn from elsewhere",
    SETTINGS: "as before",
}
"""What is watched, with what there is to say of a method that keeps to it."""

_ATOMS = (bool, int, float, str, tuple, type(None))


def _attribute(owner: Any, name: str) -> tuple[Callable[[], Any], Callable[[Any], None]]:
    return lambda: getattr(owner, name), lambda value: setattr(owner, name, value)


_GLOBALS: dict[str, tuple[Callable[[], Any], Callable[[Any], object]]] = {
    "gradient mode": (torch.is_grad_enabled, torch.set_grad_enabled),
    "default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "default device": (torch.get_default_device, lambda _: torch.set_default_device(None)),
    "number of threads": (torch.get_num_threads, torch.set_num_threads),
    "precision of matrix products": (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    "deterministic algorithms": (torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms),
    "anomaly detection": (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    **{f"cudnn.{name}": _attribute(torch.backends.cudnn, name) for name in ("enabled", "benchmark", "deterministic")},
}
"""Settings of the process with how to read and set them."""


@contextmanager
def watched(
    teacher: StagedModel, student: StagedModel, batch: Batch | None = None, answer: Outputs | None = None
) -> Iterator[dict[str, str]]:
    """What the code inside changes that it has to leave alone: by rule, the first thing; filled in at the end.

    Settings and the random numbers of Python and numpy are put back.

    Args:
        answer: of the teacher to the batch.
    """
    networks = {TEACHER: (teacher, _Photograph(teacher)), STUDENT: (student, _Photograph(student))}
    shared = {name: (tensor, tensor.clone()) for name, tensor in _shared(batch, answer).items()}
    settings = {name: read() for name, (read, _) in _GLOBALS.items()}
    seeds, python, numpy = _seeds(), random.getstate(), np.random.get_state()  # noqa: NPY002
    changes: dict[str, str] = {}
    try:
        yield changes
    finally:
        for rule, (network, before) in networks.items():
            if change := before.difference(network):
                changes[rule] = change
        after = _shared(batch, answer)
        changed = [n for n, (tensor, copy) in shared.items() if after.get(n) is not tensor or not _equal(tensor, copy)]
        if changed:
            changes[SHARED] = f"{changed[0]} changed"
        if _seeds() != seeds:
            changes[RANDOM] = "torch was seeded anew: draw from the stream as it is"
        if not _same(random.getstate(), python):
            changes[RANDOM] = "drawn from Python's random, which no seed of the run sets: use torch's"
            random.setstate(python)
        if not _same(np.random.get_state(), numpy):  # noqa: NPY002
            changes[RANDOM] = "drawn from numpy.random, which no seed of the run sets: use torch's"
            np.random.set_state(numpy)  # noqa: NPY002
        for name, (read, write) in _GLOBALS.items():
            if read() != settings[name]:
                changes[SETTINGS] = f"{name} changed from {settings[name]} to {read()}"
                write(settings[name])


def broken_rules(changes: Mapping[str, str], method: type[Method]) -> dict[str, str]:
    """Those of the `changes` that are against the rules of the method's division.

    In the open division the student is the method's; what others share never is.
    """
    return {rule: change for rule, change in changes.items() if rule != STUDENT or not method.differs}


def build_watched(
    make: Callable[[], Method], method: type[Method], teacher: StagedModel, student: StagedModel
) -> Method:
    """The method that `make` builds of the two networks.

    Raises:
        KdbenchError: it changes what it has to leave alone, or makes parameters of the networks its own.
    """
    with watched(teacher, student) as changes:
        built = make()
    for rule, change in broken_rules(changes, method).items():
        raise KdbenchError(f"{method.__name__} breaks a rule in build, '{rule}': {change}")
    theirs = {id(parameter) for network in (teacher, student) for parameter in network.parameters()}
    if owned := [name for name, parameter in built.named_parameters() if id(parameter) in theirs]:
        raise KdbenchError(f"{method.__name__} owns a parameter of a network ({owned[0]}); reach it through self.pair")
    return built


class _Photograph:
    """A network as it was: tensors, modes, hooks and whatever else its modules hold that is simple or can be called."""

    def __init__(self, network: nn.Module) -> None:
        self._tensors = {name: tensor.detach().clone() for name, tensor in _tensors(network)}
        self._looks = _looks(network)

    def difference(self, network: nn.Module) -> str:
        """The first thing that is different now, empty where nothing is."""
        looks = _looks(network)
        for path in dict.fromkeys([*self._looks, *looks]):
            if path not in looks or path not in self._looks:
                return f"{path} {'was added' if path in looks else 'is gone'}"
            if not _unchanged(self._looks[path], looks[path]):
                return f"{path} changed"
        for name, tensor in _tensors(network):
            if not _equal(tensor, self._tensors[name]):
                return f"the values of {name} changed"
        return ""


def _tensors(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from network.named_parameters()
    yield from network.named_buffers()


def _looks(network: nn.Module) -> dict[str, Any]:
    looks: dict[str, Any] = {}
    for name, module in network.named_modules():
        for key, value in vars(module).items():
            if key.endswith("_hooks"):
                looks[f"{name}.{key}".lstrip(".")] = tuple(value)
            elif isinstance(value, _ATOMS) or callable(value):
                looks[f"{name}.{key}".lstrip(".")] = value
    for name, parameter in network.named_parameters():
        hooks = (parameter._backward_hooks or (), parameter._post_accumulate_grad_hooks or ())
        looks[f"{name}.requires_grad"] = parameter.requires_grad
        looks[f"{name}.hooks"] = tuple(map(tuple, hooks))
    for name, buffer in network.named_buffers():
        looks[name] = (tuple(buffer.shape), str(buffer.dtype))
    return looks


def _unchanged(before: Any, after: Any) -> bool:
    return before is after or (isinstance(before, _ATOMS) and before == after)


def _equal(tensor: Tensor, before: Tensor) -> bool:
    # A NaN that stays one has not changed.
    return tensor.shape == before.shape and bool(((tensor == before) | ((tensor != tensor) & (before != before))).all())


def _shared(batch: Batch | None, answer: Outputs | None) -> dict[str, Tensor]:
    """What the contenders of a batch all see, by what it is called."""
    shared: dict[str, Tensor] = {}
    if batch is not None:
        given = {"labels": batch.labels, "targets": batch.targets, "index": batch.index}
        shared |= {name: tensor for name, tensor in given.items() if tensor is not None}
    if answer is not None:
        shared |= {f"the teacher's {name}": tensor for name, tensor in answer.tensors().items()}
    return shared


def _seeds() -> tuple[int, ...]:
    """What torch's streams were seeded with; drawing from them does not change it."""
    cuda = [torch.cuda.initial_seed()] if torch.cuda.is_initialized() else []
    return torch.initial_seed(), *cuda


def _same(state: Any, other: Any) -> bool:
    if isinstance(state, np.ndarray):
        return bool(np.array_equal(state, other))
    if isinstance(state, tuple):
        return all(map(_same, state, other))
    return state == other
