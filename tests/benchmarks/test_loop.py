"""What the loop costs and what lockstep saves, in interleaved ratios: `pytest tests/benchmarks -m bench -s`.

Run it on an idle machine. Every figure is a ratio of two timings of the same round, so that drift hits both alike.
"""

import time
from collections.abc import Callable
from functools import reduce
from operator import or_
from statistics import median

import pytest
import torch
from torch.nn import functional as F

from kdbench.compute.device import Compute
from kdbench.data.batch import Draw
from kdbench.data.normalise import normalise
from kdbench.registry import Registry
from kdbench.suites.schema import PairSpec, Suite
from kdbench.training.arena import Arena
from kdbench.training.contender import Contender
from kdbench.training.lockstep import lockstep
from tests.conftest import NO_DATA

pytestmark = pytest.mark.bench

ROUNDS = 80
STEPS = 5
METHODS = ["scratch", "kd", "fitnet", "ofa", "assistant"]


def _arena(suite: Suite, pair: str, compute: Compute) -> Arena:
    return Arena.enter(suite, suite.select_pairs(pair)[0], 0, "test", compute, NO_DATA)


def _contender(arena: Arena, name: str) -> Contender:
    plugin = Registry.installed().plugins[name]
    return arena.contender(name, plugin.method, plugin.hyperparameters().model_dump())


def _seconds(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _ratio(one: Callable[[], None], other: Callable[[], None], number: int) -> float:
    """Time of `one` over that of `other`; who goes first alternates."""
    if number % 2:
        second = _seconds(other)
        return _seconds(one) / second
    return _seconds(one) / _seconds(other)


def _steps(arena: Arena, contenders: list[Contender]) -> Callable[[], None]:
    """Some lockstep steps, batches drawn and augmented inside."""

    def batches():
        epoch = 0
        while True:
            yield from arena.stream.epoch(epoch)
            epoch += 1

    source = batches()

    def work() -> None:
        for _ in range(STEPS):
            raw, batch = next(source)
            lockstep(contenders, arena.teacher, Draw(raw, batch), arena.compute)

    return work


def _bare_loop(arena: Arena) -> Callable[[], None]:
    """Some steps as one writes them by hand: whole normalised images in memory, no augmentation, no bookkeeping."""
    student = _contender(arena, "kd").student.model.train()
    teacher = arena.teacher.model
    images = normalise(
        torch.stack([raw for raw, _ in arena.stream.epoch(0)]).flatten(0, 1), arena.teacher.normalisation
    )
    labels = torch.cat([batch.labels for _, batch in arena.stream.epoch(0)])
    recipe, size = arena.stream.recipe, arena.stream.recipe.batch_size
    if recipe.optimizer == "adamw":
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(student.parameters(), lr=recipe.lr, fused=True)
    else:
        optimizer = torch.optim.SGD(student.parameters(), lr=recipe.lr, momentum=0.9, nesterov=True, fused=True)

    def work() -> None:
        for _ in range(STEPS):
            index = torch.randint(len(images), (size,))
            x, y = images[index].contiguous(memory_format=torch.channels_last), labels[index]
            with torch.no_grad():
                target = teacher(x).log_softmax(dim=1)
            logits = student(x)
            loss = F.cross_entropy(logits, y)
            loss = loss + F.kl_div(logits.log_softmax(dim=1), target, reduction="batchmean", log_target=True)
            loss.backward()
            if recipe.clip_grad:
                torch.nn.utils.clip_grad_norm_(student.parameters(), recipe.clip_grad)
            optimizer.step()
            optimizer.zero_grad()

    return work


@pytest.mark.parametrize("pair", ["vit-t:resnet-s", "resnet-t:mixer-s"])
def test_the_loop_costs_nothing(proxy: Suite, cpu: Compute, pair: str) -> None:
    arena = _arena(proxy, pair, cpu)
    bare, ours = _bare_loop(arena), _steps(arena, [_contender(arena, "kd")])
    for work in (bare, ours):
        work()
    ratios = sorted(_ratio(bare, ours, number) for number in range(ROUNDS))
    spread = f"{ratios[ROUNDS // 4]:.3f} to {ratios[3 * ROUNDS // 4]:.3f}"
    print(f"\n{pair}: images/s of kdbench over a bare loop {median(ratios):.3f} (quartiles {spread})")
    assert median(ratios) >= 0.97


def _heaviest(suite: Suite, compute: Compute) -> PairSpec:
    """The pair whose teacher's forward pass takes longest."""
    times = {}
    for pair in suite.select_pairs("hetero"):
        arena = _arena(suite, pair.name, compute)
        raw, _ = next(arena.stream.epoch(0))
        images = normalise(raw, arena.teacher.normalisation)
        with torch.no_grad():
            times[pair.name] = min(_seconds(lambda a=arena, x=images: a.teacher(x)) for _ in range(10))
    return suite.select_pairs(max(times, key=times.__getitem__))[0]


def test_lockstep_pays(proxy: Suite, cpu: Compute) -> None:
    arena = _arena(proxy, _heaviest(proxy, cpu).name, cpu)
    together = _steps(arena, [_contender(arena, name) for name in METHODS])
    alone = [_steps(arena, [_contender(arena, name)]) for name in METHODS]
    for work in (together, *alone):
        work()
    rounds = [(_seconds(together), sum(_seconds(work) for work in alone)) for _ in range(ROUNDS)]
    ratio = median(ours / solo for ours, solo in rounds)
    print(f"\n{arena.pair.name}: five methods in lockstep over five solo runs {ratio:.3f}")
    assert ratio <= 0.75


def test_lockstep_is_data_plus_teacher_plus_students(proxy: Suite, cpu: Compute) -> None:
    arena = _arena(proxy, _heaviest(proxy, cpu).name, cpu)
    contenders = [_contender(arena, name) for name in METHODS]
    together = _steps(arena, [_contender(arena, name) for name in METHODS])
    raw, batch = next(arena.stream.epoch(0))
    images = normalise(raw, arena.teacher.normalisation)
    union = reduce(or_, (n for contender in contenders if (n := contender.method.teacher_needs) is not None))

    def data() -> None:
        for _, (drawn, _) in zip(range(STEPS), arena.stream.epoch(0), strict=False):
            normalise(drawn, arena.teacher.normalisation)

    def teach() -> None:
        with torch.no_grad():
            for _ in range(STEPS):
                arena.teacher(images, union)

    with torch.no_grad():
        answer = arena.teacher(images, union)

    def student(contender: Contender) -> Callable[[], None]:
        def work() -> None:
            for _ in range(STEPS):
                contender.learn([images], answer, batch)
                contender.update()

        return work

    parts = [data, teach, *map(student, contenders)]
    for work in (together, *parts):
        work()
    rounds = [(_seconds(together), sum(_seconds(work) for work in parts)) for _ in range(ROUNDS)]
    ratio = median(ours / sum_of_parts for ours, sum_of_parts in rounds)
    print(f"\n{arena.pair.name}: lockstep over data + teacher + sum of students {ratio:.3f}")
    assert 0.9 <= ratio <= 1.1
