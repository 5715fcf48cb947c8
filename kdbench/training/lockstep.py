"""Lockstep: all contenders of a (pair, seed) train together on the same batches, the teacher runs once a batch.

It is an optimisation, not a semantics: each contender has its own student, optimizer and random stream, and the
teacher is frozen, so a contender ends with the same weights whether it trained alone or beside others.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_

import torch
from torch import Tensor

from kdbench.data.batch import Batch
from kdbench.data.normalise import Normalisation, normalise
from kdbench.data.stream import TrainingStream
from kdbench.models.features import Outputs
from kdbench.models.staged import StagedModel
from kdbench.training.contender import Contender, Mark, isolated, no_mark
from kdbench.training.device import Compute


@dataclass(frozen=True)
class Position:
    """Where a lockstep training is: finished epochs, finished steps of the running one, and the totals."""

    epoch: int
    step: int
    epochs: int
    steps: int

    @property
    def share(self) -> float:
        return (self.epoch + self.step / self.steps) / self.epochs


def train(
    contenders: Sequence[Contender],
    teacher: StagedModel | None,
    stream: TrainingStream,
    compute: Compute,
    on_step: Callable[[Position], None] = lambda position: None,
    on_epoch: Callable[[Position], None] = lambda position: None,
) -> None:
    """Train every contender that is still open, to the end of the recipe.

    Args:
        teacher: frozen, in eval mode; None when no contender needs one.
        on_step: called after every step, must return fast.
        on_epoch: called after every epoch, with the epochs finished.
    """
    compile_all(contenders, teacher, compute)
    epochs, steps = stream.recipe.epochs, stream.steps_per_epoch
    for epoch in range(epochs):
        for step, (raw, batch) in enumerate(stream.epoch(epoch), start=1):
            lockstep(contenders, teacher, raw, batch, compute)
            on_step(Position(epoch, step, epochs, steps))
        for contender in contenders:
            if contender.status is None:
                with isolated(contender):
                    contender.end_epoch(epoch + 1, steps)
        on_epoch(Position(epoch + 1, 0, epochs, steps))
        if all(contender.status is not None for contender in contenders):
            return


def compile_all(contenders: Sequence[Contender], teacher: StagedModel | None, compute: Compute) -> None:
    """Compile the networks of a training where that is asked for."""
    students = [contender.student for contender in contenders]
    compute.compile_models([*students, teacher] if teacher is not None else students)


def lockstep(
    contenders: Sequence[Contender],
    teacher: StagedModel | None,
    raw: Tensor,
    batch: Batch,
    compute: Compute,
    mark: Mark = no_mark,
) -> None:
    """One batch: seen by the teacher once, then by every contender; in parts where the whole does not fit."""
    if compute.compile == "graphs":
        torch.compiler.cudagraph_mark_step_begin()
    size = len(raw)
    most = compute.micro_batch or size
    for start in range(0, size, most):
        stop = min(start + most, size)
        whole = stop - start == size
        part = batch if whole else batch.part(slice(start, stop))
        share, last = (stop - start) / size, stop == size
        _learn(contenders, teacher, raw if whole else raw[start:stop], part, share, last, compute, mark)


def _learn(
    contenders: Sequence[Contender],
    teacher: StagedModel | None,
    raw: Tensor,
    batch: Batch,
    share: float,
    last: bool,
    compute: Compute,
    mark: Mark,
) -> None:
    """Images are normalised once for each distinct mean and std; each contender is updated after the last part."""
    running = [contender for contender in contenders if contender.status is None]
    views: dict[Normalisation, Tensor] = {}

    def view(normalisation: Normalisation) -> Tensor:
        if normalisation not in views:
            views[normalisation] = normalise(raw, normalisation)
        return views[normalisation]

    for contender in running:
        view(contender.student.normalisation)
    mark("data")
    answer = teacher_outputs(teacher, running, view, compute)
    mark("teacher")
    for contender in running:
        with isolated(contender):
            contender.learn(view(contender.student.normalisation), answer, batch, share, mark)
            if last:
                contender.update(mark)


@torch.no_grad()
def teacher_outputs(
    teacher: StagedModel | None,
    contenders: Sequence[Contender],
    view: Callable[[Normalisation], Tensor],
    compute: Compute,
) -> Outputs | None:
    """The teacher's answer with the union of what the contenders need; None when none needs it."""
    needs = [n for contender in contenders if (n := contender.method.teacher_needs) is not None]
    if teacher is None or not needs:
        return None
    with compute.autocast():
        return teacher(view(teacher.normalisation), reduce(or_, needs))
