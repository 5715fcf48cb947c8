"""Throughput (timing protocol t/1): every contender alone, rounds interleaved over all of them.

Absolute times drift with the machine; what is compared is the ratio to the control and to the baseline in the same
round. The step that is timed is the one that trains: lockstep with a single contender. A round in which the machine was
not ours alone, or was throttled, is repeated, at most three times; where that does not help it is kept and marked.

A contender that fails is left out, and the others go on. They take their batches from one stream, so that none of them
has loaders and batches of its own waiting while others are measured. Where images are decoded as they are asked for, a
block takes several times as many as wait ready at its start.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from math import ceil
from statistics import median

import torch

from kdbench.compute.device import Compute
from kdbench.compute.machine import Finding, Watch, judge_findings
from kdbench.data.batch import Draw
from kdbench.results.schema import MachineState
from kdbench.training.arena import Arena
from kdbench.training.contender import Contender, Mark, isolated, no_mark
from kdbench.training.lockstep import compile_all, drawn, lockstep

PHASES = ("data", "teacher", "student", "method", "backward", "optimizer")
PHASE_PAIRS = 30
"""Steps that are taken apart, each beside one that is not, over all rounds."""
REFILLS = 4
"""A block takes at least so many times the images that wait ready at its start."""
REPEATS = 3
SETTLED = 0.9
"""Warm-up is over when the next probe takes no less than this share of the time of the last one..."""
PROBES = 5
"""...or after so many."""


@dataclass
class Measurement:
    """The cost of one contender.

    Attributes:
        blocks: training images/s of every block, in order of the rounds.
        phases: seconds a step by phase, medians over the steps of a pass of its own in every round.
        phases_to_step: sum of the phases of a step over the time of the next one, which is not taken apart, median: 1
            where the parts add up to the whole.
        peak_memory: bytes at most beside what all share: its own state, and what a step needs; None on a CPU.
    """

    blocks: list[float] = field(default_factory=list)
    phases: dict[str, float] = field(default_factory=dict)
    phases_to_step: float = 0.0
    peak_memory: int | None = None


@dataclass(frozen=True)
class Circumstances:
    """The machine during a measurement.

    Attributes:
        clean: whether it was ours and held its clock in every round that counts; None where that cannot be read.
        reasons: why not.
        repeated: rounds that were measured again.
    """

    before: MachineState
    after: MachineState
    clean: bool | None
    reasons: list[str]
    repeated: int


def measure(
    arena: Arena, contenders: Sequence[Contender], on_round: Callable[[float], None] = lambda share: None
) -> tuple[dict[str, Measurement], Circumstances]:
    """Measure all contenders of an arena against each other; they are used up.

    Args:
        on_round: called with the share done.

    Returns:
        The measurements of those that did not fail, and the circumstances of all.
    """
    timing = arena.suite.timing
    compile_all(contenders, arena.teacher, arena.compute)
    measurements = {contender.name: Measurement() for contender in contenders}
    steppers = _steppers(arena, contenders)
    watch = Watch(arena.compute)
    before = watch.state()
    for number, contender in enumerate(contenders):
        with _measured(steppers, contender.name) as stepper:
            stepper.warm_up(timing.warmup_steps, timing.warmup_seconds, timing.block_seconds)
            measurements[contender.name].peak_memory = stepper.peak_memory()
        on_round(0.3 * (number + 1) / len(contenders))
    findings: list[Finding] = []
    steps: dict[str, list[tuple[dict[str, float], float]]] = {name: [] for name in measurements}
    repeated, patient = 0, True
    pairs = -(-PHASE_PAIRS // timing.blocks)
    for number in range(timing.blocks):
        again = 0
        while True:
            watch.begin()
            figures = {}
            for name in list(steppers):
                with _measured(steppers, name) as stepper:
                    figures[name] = stepper.block(), stepper.phases(pairs)
            finding = watch.end()
            # Where repeating one round has not helped, the next ones are not repeated until one comes out clean.
            if not finding.problems or not patient or again == REPEATS:
                break
            again += 1
        repeated += again
        patient = not finding.problems
        findings.append(finding)
        for name, (images, apart) in figures.items():
            measurements[name].blocks.append(images)
            steps[name] += apart
        on_round(0.3 + 0.7 * (number + 1) / timing.blocks)
    measurements = {name: measurements[name] for name in steppers}
    for name, apart in ((name, steps[name]) for name in steppers):
        measurements[name].phases = {phase: median(parts[phase] for parts, _ in apart) for phase in PHASES}
        measurements[name].phases_to_step = median(sum(parts.values()) / whole for parts, whole in apart)
    clean, reasons = judge_findings(findings)
    return measurements, Circumstances(before, watch.state(), clean, reasons, repeated)


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


class _Failed(Exception):
    """The contender that is measured has ended; its status and error tell how."""


@contextmanager
def _measured(steppers: dict[str, "_Stepper"], name: str) -> Iterator["_Stepper"]:
    """One of the steppers; if its contender fails inside, it is none of them any more."""
    try:
        yield steppers[name]
    except _Failed:
        del steppers[name]


def _steppers(arena: Arena, contenders: Sequence[Contender]) -> dict[str, "_Stepper"]:
    """A stepper for each contender. Those that look at a second view share a stream, and those that do not."""
    draws: dict[bool, Iterator[Draw]] = {}
    for twice in {contender.method.second_view for contender in contenders}:
        draws[twice] = _endless(arena, [each for each in contenders if each.method.second_view == twice])
        # Begun before memory is looked at, as it is nobody's own.
        next(draws[twice])
    return {each.name: _Stepper(arena, each, draws[each.method.second_view]) for each in contenders}


class _Stepper:
    """Steps one contender through the training stream and reads the clock."""

    def __init__(self, arena: Arena, contender: Contender, draws: Iterator[Draw]) -> None:
        self._arena = arena
        self._contender = contender
        self._draws = draws
        self._steps = 1
        self._shared_bytes = 0

    def _step(self, mark: Mark = no_mark) -> None:
        lockstep([self._contender], self._arena.teacher, next(self._draws), self._arena.compute, mark)
        if self._contender.status is not None:
            raise _Failed

    def _wait(self) -> None:
        """Wait for the device; what fails there is the contender's own."""
        with isolated(self._contender):
            self._arena.compute.synchronise()
        if self._contender.status is not None:
            raise _Failed

    def warm_up(self, steps: int, seconds: float, block_seconds: float) -> None:
        """Step until both bounds are reached and steps get no faster, then settle how many steps make a block."""
        device, stream = self._arena.compute.device, self._arena.stream
        if device.type == "cuda":
            self._shared_bytes = torch.cuda.memory_allocated(device) - self._contender.built_bytes
        started, done = time.perf_counter(), 0
        while done < steps or time.perf_counter() - started < seconds:
            self._step()
            done += 1
        self._wait()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        number, last = max(3, steps // 2), float("inf")
        for _ in range(PROBES):
            started = time.perf_counter()
            for _ in range(number):
                self._step()
            self._wait()
            seconds = time.perf_counter() - started
            if seconds >= SETTLED * last:
                break
            last = seconds
        enough = ceil(REFILLS * stream.ahead / stream.recipe.batch_size)
        self._steps = max(1, round(block_seconds * number / seconds), enough)

    def block(self) -> float:
        """Images/s of one block of steps."""
        self._wait()
        started = time.perf_counter()
        for _ in range(self._steps):
            self._step()
        self._wait()
        return self._steps * self._arena.stream.recipe.batch_size / (time.perf_counter() - started)

    def peak_memory(self) -> int | None:
        device = self._arena.compute.device
        return torch.cuda.max_memory_allocated(device) - self._shared_bytes if device.type == "cuda" else None

    def phases(self, pairs: int) -> list[tuple[dict[str, float], float]]:
        """Of `pairs` steps, seconds by phase, and beside each the seconds of a step that was not taken apart.

        Drawing the batch counts as data. The device is not waited for in between: its own events tell when it came to
        the end of each phase.
        """
        compute = self._arena.compute
        self._wait()
        taken = []
        for _ in range(pairs):
            stamps = [("", _stamp(compute))]
            self._step(lambda phase, stamps=stamps: stamps.append((phase, _stamp(compute))))
            self._step()
            taken.append((stamps, _stamp(compute)))
        self._wait()
        return [(_by_phase(stamps), _seconds(stamps[-1][1], end)) for stamps, end in taken]


def _stamp(compute: Compute) -> float | torch.cuda.Event:
    """Now: the clock, or an event in the stream of the device."""
    if compute.device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _by_phase(stamps: Sequence[tuple[str, float | torch.cuda.Event]]) -> dict[str, float]:
    """Seconds of each phase, of all parts of the batch together."""
    seconds: dict[str, float] = dict.fromkeys(PHASES, 0.0)
    for (_, before), (phase, after) in pairwise(stamps):
        seconds[phase] += _seconds(before, after)
    return seconds


def _seconds(before: float | torch.cuda.Event, after: float | torch.cuda.Event) -> float:
    if isinstance(before, float) and isinstance(after, float):
        return after - before
    assert isinstance(before, torch.cuda.Event)
    assert isinstance(after, torch.cuda.Event)
    return before.elapsed_time(after) / 1e3


def _endless(arena: Arena, contenders: Sequence[Contender]) -> Iterator[Draw]:
    epoch = 0
    while True:
        yield from drawn(contenders, arena.stream, epoch)
        epoch += 1
