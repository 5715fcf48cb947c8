"""Lockstep: all contenders of a (pair, seed) train together on the same batches, the teacher runs once a batch.

It is an optimisation, not a semantics: each contender has its own student, optimizer and random stream, and the
teacher is frozen, so a contender ends with the same weights whether it trained alone or beside others.
"""

from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import islice, repeat
from operator import or_
from typing import Protocol

import torch

from kdbench.compute.device import Compute
from kdbench.data.batch import Draw
from kdbench.data.stream import TrainingStream
from kdbench.method import Method
from kdbench.models.features import Outputs
from kdbench.models.staged import StagedModel
from kdbench.results.folder import START, Position
from kdbench.training.contender import Contender, Mark, isolated, no_mark


class OnStep(Protocol):
    """Is called at a position of the training, with the share of it that is done, in [0, 1]."""

    def __call__(self, position: Position, share: float) -> None: ...


def ignore(position: Position, share: float) -> None:
    """Nothing is done at this position."""


def train(
    contenders: Sequence[Contender],
    teacher: StagedModel | None,
    stream: TrainingStream,
    compute: Compute,
    *,
    on_step: OnStep = ignore,
    on_epoch: OnStep = ignore,
    start: Position = START,
) -> None:
    """Train every contender that is still open, to the end of the recipe.

    Args:
        teacher: frozen, in eval mode; None when no contender needs one.
        start: where the contenders come from a checkpoint, the position at which it was taken.
        on_step: called after every step, must return fast.
        on_epoch: called after every epoch.
    """
    compile_all(contenders, teacher, compute)
    epochs, steps = stream.recipe.epochs, stream.steps_per_epoch
    for epoch in range(start.epoch, epochs):
        # The first batches of an epoch that was begun are drawn once more, as the random streams of the data require.
        done = start.step if epoch == start.epoch else 0
        draws = enumerate(drawn(contenders, stream, epoch), start=1)
        for step, draw in islice(draws, done, None):
            lockstep(contenders, teacher, draw, compute)
            on_step(Position(epoch, step), (epoch + step / steps) / epochs)
        for contender in contenders:
            if contender.status is None:
                with isolated(contender):
                    contender.end_epoch(epoch + 1, steps)
        on_epoch(Position(epoch + 1, 0), (epoch + 1) / epochs)
        if all(contender.status is not None for contender in contenders):
            return


def drawn(contenders: Sequence[Contender], stream: TrainingStream, epoch: int) -> Iterator[Draw]:
    """The batches of an epoch, each with a second view of its images if a contender asks for one."""
    twice = any(contender.method.second_view for contender in contenders if contender.status is None)
    seconds = stream.second_view(epoch) if twice else repeat(None)
    for (images, batch), second in zip(stream.epoch(epoch), seconds, strict=False):
        yield Draw(images, batch, second)


def compile_all(contenders: Sequence[Contender], teacher: StagedModel | None, compute: Compute) -> None:
    """Compile the networks of a training where that is asked for."""
    students = [contender.student for contender in contenders]
    compute.compile_models([*students, teacher] if teacher is not None else students)


def lockstep(
    contenders: Sequence[Contender],
    teacher: StagedModel | None,
    draw: Draw,
    compute: Compute,
    mark: Mark = no_mark,
) -> None:
    """One batch: seen by the teacher once, then by every contender; in parts where the whole does not fit.

    Each contender is updated after the last part.
    """
    if compute.compile == "graphs":
        torch.compiler.cudagraph_mark_step_begin()
    seen = 0
    for part in draw.parts(compute.micro_batch):
        seen += len(part)
        running = [contender for contender in contenders if contender.status is None]
        views = [contender.views(part) for contender in running]
        mark("data")
        answer = teacher_outputs(teacher, running, part, compute)
        mark("teacher")
        for contender, own_views in zip(running, views, strict=True):
            with isolated(contender):
                contender.learn(own_views, answer, part.batch, len(part) / len(draw), mark)
                if seen == len(draw):
                    contender.update(mark)


@torch.no_grad()
def teacher_outputs(
    teacher: StagedModel | None, contenders: Sequence[Contender], draw: Draw, compute: Compute
) -> Outputs | None:
    """The teacher's answer with the union of what the contenders need; None when none needs it."""
    asking = [contender.method for contender in contenders if contender.method.teacher_needs is not None]
    if teacher is None or not asking:
        return None

    def answer(methods: Sequence[Method], second: bool) -> Outputs:
        needs = reduce(or_, [m.teacher_needs for m in methods if m.teacher_needs])
        return teacher(draw.view(teacher, second), needs)

    twice = [method for method in asking if method.second_view]
    with compute.autocast():
        first = answer(asking, False)
        return first.with_second(answer(twice, True)) if twice else first
