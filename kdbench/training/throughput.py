"""Throughput (timing protocol t/1): every contender alone, rounds interleaved over all of them.

Absolute times drift with the machine; what is compared is the ratio to the control and to the baseline in the same
round. The step that is timed is the one that trains: lockstep with a single contender.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kdbench.data.batch import Batch
from kdbench.training.arena import Arena
from kdbench.training.contender import Contender
from kdbench.training.device import Compute
from kdbench.training.lockstep import compile_all, lockstep

PHASES = ("data", "teacher", "student", "method", "backward", "optimizer")
PHASE_STEPS = 10


@dataclass
class Measurement:
    """The cost of one contender.

    Attributes:
        blocks: training images/s of every block, in order of the rounds.
        phases: seconds a step by phase, from a separate pass in which the device is waited for after every phase.
        peak_memory: bytes; None on a CPU.
    """

    blocks: list[float] = field(default_factory=list)
    phases: dict[str, float] = field(default_factory=dict)
    peak_memory: int | None = None


def measure(
    arena: Arena, contenders: Sequence[Contender], on_round: Callable[[float], None] = lambda share: None
) -> dict[str, Measurement]:
    """Measure all contenders of an arena against each other; they are used up.

    Args:
        on_round: called with the share done.
    """
    timing = arena.suite.timing
    compile_all(contenders, arena.teacher, arena.compute)
    found = {contender.name: Measurement() for contender in contenders}
    steppers = {contender.name: _Stepper(arena, contender) for contender in contenders}
    for number, (name, stepper) in enumerate(steppers.items()):
        stepper.warm_up(timing.warmup_steps, timing.warmup_seconds, timing.block_seconds)
        found[name].peak_memory = stepper.peak_memory()
        on_round(0.3 * (number + 1) / len(steppers))
    for number in range(timing.blocks):
        for name, stepper in steppers.items():
            found[name].blocks.append(stepper.block())
        on_round(0.3 + 0.6 * (number + 1) / timing.blocks)
    for name, stepper in steppers.items():
        found[name].phases = stepper.phases()
    return found


def matmul_rate(compute: Compute) -> float:
    """FLOP/s of a product of square matrices in the precision of the training: what this device reaches at best.

    The best of a few, as a bound wants; the utilisation of a method is its own rate over this one.
    """
    side, repeats = (8192, 10) if compute.device.type == "cuda" else (1024, 3)
    matrix = torch.randn(side, side, device=compute.device)
    if compute.precision == "bf16":
        matrix = matrix.bfloat16()
    best = 0.0
    for _ in range(3):
        compute.synchronise()
        started = time.perf_counter()
        for _ in range(repeats):
            torch.mm(matrix, matrix)
        compute.synchronise()
        best = max(best, repeats * 2 * side**3 / (time.perf_counter() - started))
    return best


class _Stepper:
    """Steps one contender through the training stream and reads the clock."""

    def __init__(self, arena: Arena, contender: Contender) -> None:
        self._arena = arena
        self._contender = contender
        self._batches = _endless(arena)
        self._steps = 1

    def _step(self, mark: Callable[[str], None] | None = None) -> None:
        raw, batch = next(self._batches)
        marks = {} if mark is None else {"mark": mark}
        lockstep([self._contender], self._arena.teacher, raw, batch, self._arena.compute, **marks)
        if self._contender.status is not None:
            raise RuntimeError(self._contender.error)

    def warm_up(self, steps: int, seconds: float, block_seconds: float) -> None:
        """Step until both bounds are reached, then settle how many steps make a block."""
        compute, device = self._arena.compute, self._arena.compute.device
        started, done = time.perf_counter(), 0
        while done < steps or time.perf_counter() - started < seconds:
            self._step()
            done += 1
        compute.synchronise()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        started, probe = time.perf_counter(), max(3, steps // 2)
        for _ in range(probe):
            self._step()
        compute.synchronise()
        self._steps = max(1, round(block_seconds * probe / (time.perf_counter() - started)))

    def block(self) -> float:
        """Images/s of one block of steps."""
        compute = self._arena.compute
        compute.synchronise()
        started = time.perf_counter()
        for _ in range(self._steps):
            self._step()
        compute.synchronise()
        return self._steps * self._arena.stream.recipe.batch_size / (time.perf_counter() - started)

    def peak_memory(self) -> int | None:
        device = self._arena.compute.device
        return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None

    def phases(self) -> dict[str, float]:
        """Seconds a step by phase; drawing the batch counts as data."""
        spent: dict[str, float] = dict.fromkeys(PHASES, 0.0)
        last = time.perf_counter()

        def mark(phase: str) -> None:
            nonlocal last
            self._arena.compute.synchronise()
            now = time.perf_counter()
            spent[phase] += now - last
            last = now

        for _ in range(PHASE_STEPS):
            self._step(mark)
        return {phase: seconds / PHASE_STEPS for phase, seconds in spent.items()}


def _endless(arena: Arena) -> Iterator[tuple[Tensor, Batch]]:
    epoch = 0
    while True:
        yield from arena.stream.epoch(epoch)
        epoch += 1
