"""Lockstep: all contenders of a (pair, seed) train together on the same batches, the teacher runs once a batch.

It is an optimisation, not a semantics: each contender has its own student, optimizer and random stream, and the
teacher is frozen, so a contender ends with the same weights whether it trained alone or beside others.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import islice, repeat
from operator import or_

import torch
from torch import Tensor

from kdbench.compute.device import Compute
from kdbench.data.batch import Batch
from kdbench.data.normalise import Normalisation, normalise
from kdbench.data.stream import TrainingStream
from kdbench.method import Method
from kdbench.models.features import Outputs
from kdbench.models.staged import StagedModel
from kdbench.training.contender import Contender, Mark, isolated, no_mark


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
    start: tuple[int, int] = (0, 0),
) -> None:
    """Train every contender that is still open, to the end of the recipe.

    Args:
        teacher: frozen, in eval mode; None when no contender needs one.
        start: finished epochs and finished steps of the next one, where the contenders come from a checkpoint.
        on_step: called after every step, must return fast.
        on_epoch: called after every epoch, with the epochs finished.
    """
    compile_all(contenders, teacher, compute)
    epochs, steps = stream.recipe.epochs, stream.steps_per_epoch
    for epoch in range(start[0], epochs):
        # The first batches of an epoch that was begun are drawn once more, as the random streams of data want.
        done = start[1] if epoch == start[0] else 0
        batches = enumerate(drawn(contenders, stream, epoch), start=1)
        for step, (raw, batch, second) in islice(batches, done, None):
            lockstep(contenders, teacher, raw, batch, compute, second=second)
            on_step(Position(epoch, step, epochs, steps))
        for contender in contenders:
            if contender.status is None:
                with isolated(contender):
                    contender.end_epoch(epoch + 1, steps)
        on_epoch(Position(epoch + 1, 0, epochs, steps))
        if all(contender.status is not None for contender in contenders):
            return


def drawn(
    contenders: Sequence[Contender], stream: TrainingStream, epoch: int
) -> Iterator[tuple[Tensor, Batch, Tensor | None]]:
    """The batches of an epoch, each with a second view of its images if a contender asks for one."""
    twice = any(contender.method.second_view for contender in contenders if contender.status is None)
    second = stream.second_view(epoch) if twice else repeat(None)
    return ((raw, batch, again) for (raw, batch), again in zip(stream.epoch(epoch), second, strict=False))


class Views:
    """A batch's images, and a second view of them, normalised once for each distinct mean and std."""

    def __init__(self, raw: Tensor, second: Tensor | None = None) -> None:
        self._raw = raw, second
        self._done: dict[tuple[int, Normalisation], Tensor] = {}

    def of(self, model: StagedModel, which: int = 0) -> Tensor:
        """What `model` is shown; `which` is 1 for the second view."""
        key = which, model.normalisation
        if key not in self._done:
            raw = self._raw[which]
            assert raw is not None
            self._done[key] = normalise(raw, model.normalisation)
        return self._done[key]


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
    second: Tensor | None = None,
) -> None:
    """One batch: seen by the teacher once, then by every contender; in parts where the whole does not fit.

    Args:
        second: another view of the images, for the contenders whose methods ask for one.
    """
    if compute.compile == "graphs":
        torch.compiler.cudagraph_mark_step_begin()
    size = len(raw)
    most = compute.micro_batch or size
    for start in range(0, size, most):
        stop = min(start + most, size)
        which, whole = slice(start, stop), stop - start == size
        views = Views(raw[which], None if second is None else second[which])
        share, last = (stop - start) / size, stop == size
        _learn(contenders, teacher, views, batch if whole else batch.part(which), share, last, compute, mark)


def _learn(
    contenders: Sequence[Contender],
    teacher: StagedModel | None,
    views: Views,
    batch: Batch,
    share: float,
    last: bool,
    compute: Compute,
    mark: Mark,
) -> None:
    """Each contender is updated after the last part."""
    running = [contender for contender in contenders if contender.status is None]
    for contender in running:
        shown(contender, views)
    mark("data")
    answer = teacher_outputs(teacher, running, views, compute)
    mark("teacher")
    for contender in running:
        with isolated(contender):
            contender.learn(shown(contender, views), answer, batch, share, mark)
            if last:
                contender.update(mark)


def shown(contender: Contender, views: Views) -> list[Tensor]:
    """The views of a batch that a contender learns from."""
    return [views.of(contender.student, which) for which in range(2 if contender.method.second_view else 1)]


@torch.no_grad()
def teacher_outputs(
    teacher: StagedModel | None, contenders: Sequence[Contender], views: Views, compute: Compute
) -> Outputs | None:
    """The teacher's answer with the union of what the contenders need; None when none needs it."""
    asking = [contender.method for contender in contenders if contender.method.teacher_needs is not None]
    if teacher is None or not asking:
        return None

    def answer(methods: Sequence[Method], which: int) -> Outputs:
        return teacher(views.of(teacher, which), reduce(or_, [m.teacher_needs for m in methods if m.teacher_needs]))

    twice = [method for method in asking if method.second_view]
    with compute.autocast():
        first = answer(asking, 0)
        return first.with_second(answer(twice, 1)) if twice else first
