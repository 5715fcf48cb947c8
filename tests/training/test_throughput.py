"""The throughput protocol on the real proxy: its figures, phases that add up, rounds that are repeated or marked."""

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from kdbench.compute.device import Compute
from kdbench.compute.machine import OTHERS, Finding, Watch
from kdbench.data.batch import Batch
from kdbench.data.stream import TrainingStream
from kdbench.registry import Registry
from kdbench.suites.loading import load_suite
from kdbench.suites.schema import Suite, Timing
from kdbench.training import throughput
from kdbench.training.arena import Arena
from kdbench.training.contender import Contender
from kdbench.training.throughput import PHASES, REFILLS, REPEATS, measure
from tests.conftest import NO_DATA
from tests.support.simulated_gpu import CUDA

BUSY, QUIET = Finding(OTHERS + 0.3, (), 0), Finding(OTHERS / 2, (), 0)


def arena(suite: Suite, compute: Compute, **timing: float) -> Arena:
    small = Timing(warmup_steps=3, warmup_seconds=0, **timing)  # type: ignore[arg-type]
    suite = suite.model_copy(update={"timing": small})
    return Arena.enter(suite, suite.select_pairs("vit-t:resnet-s")[0], 0, "test", compute, NO_DATA)


def contenders(place: Arena, *names: str) -> list[Contender]:
    plugins = Registry.installed().plugins
    return [place.contender(name, plugins[name].method, plugins[name].hyperparameters().model_dump()) for name in names]


@pytest.mark.runs
@pytest.mark.parametrize(("method", "parts"), [("scratch", 1), ("kd", 1), ("fitnet", 1), ("kd", 2)])
def test_the_phases_add_up_to_the_step(
    proxy: Suite, cpu: Compute, monkeypatch: pytest.MonkeyPatch, method: str, parts: int
) -> None:
    """By the clock of this process, which stands still while others have the core."""
    monkeypatch.setattr(throughput, "time", SimpleNamespace(perf_counter=time.process_time))
    place = arena(proxy, cpu, blocks=10)
    place = replace(place, compute=replace(cpu, micro_batch=place.stream.recipe.batch_size // parts))
    found, _ = measure(place, contenders(place, method))
    measured = found[method]
    assert list(measured.phases) == list(PHASES)
    # 5 % on a machine of our own; other processes cost us cache, if not time.
    assert measured.phases_to_step == pytest.approx(1, abs=0.1)
    assert (measured.phases["teacher"] > 0.1 * sum(measured.phases.values())) == (method != "scratch")


def watched(monkeypatch: pytest.MonkeyPatch, findings: list[Finding]) -> None:
    """Rounds come out as `findings` say, then quiet."""
    rest = iter(findings)
    monkeypatch.setattr(Watch, "end", lambda self: next(rest, QUIET))


@pytest.mark.runs
@pytest.mark.parametrize(
    ("findings", "repeated", "marked"),
    [
        ([], 0, 0),
        ([BUSY] * REPEATS, REPEATS, 0),
        ([BUSY] * (REPEATS + 1), REPEATS, 1),
        ([BUSY] * (REPEATS + 3), REPEATS, 3),
        ([BUSY] * (REPEATS + 1) + [QUIET, BUSY], REPEATS + 1, 1),
    ],
    ids=["quiet", "a while", "a round long", "does not end", "again"],
)
def test_a_round_that_is_not_clean_is_repeated_or_marked(
    proxy: Suite, cpu: Compute, monkeypatch: pytest.MonkeyPatch, findings: list[Finding], repeated: int, marked: int
) -> None:
    watched(monkeypatch, findings)
    place = arena(proxy, cpu, blocks=5, block_seconds=0.001)
    found, around = measure(place, contenders(place, "scratch", "kd"))
    assert [len(measurement.blocks) for measurement in found.values()] == [5, 5]
    assert around.repeated == repeated
    assert around.clean == (marked == 0)
    assert (f"other processes on the processor in {marked} of 5 rounds" in around.reasons) == (marked > 0)


@pytest.mark.runs
def test_one_that_fails_is_left_out(proxy: Suite, cpu: Compute, monkeypatch: pytest.MonkeyPatch) -> None:
    place = arena(proxy, cpu, blocks=5, block_seconds=0.001)
    entered = contenders(place, "scratch", "kd", "at")
    steps = itertools.count()

    def forward(*given: object) -> dict[str, torch.Tensor]:
        if next(steps) == 20:
            raise ValueError("boom")
        return {"ce": entered[1].student.model.get_classifier().weight.sum()}  # type: ignore[operator]

    monkeypatch.setattr(entered[1].method, "forward", forward)
    found, _ = measure(place, entered)
    assert {name: len(measured.blocks) for name, measured in found.items()} == {"scratch": 5, "at": 5}
    assert [contender.status for contender in entered] == [None, "failed", None]
    assert "ValueError: boom" in (entered[1].error or "")


@pytest.mark.runs
def test_contenders_share_one_stream(proxy: Suite, cpu: Compute, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a block outlasts what loaders have ready at its start."""
    place = arena(proxy, cpu, blocks=5, block_seconds=0.001)
    begun, ended, whole = [], [], type(place.stream).epoch

    def epoch(stream: TrainingStream, number: int) -> Iterator[tuple[torch.Tensor, Batch]]:
        begun.append(number)
        yield from whole(stream, number)
        ended.append(number)

    monkeypatch.setattr(type(place.stream), "epoch", epoch)
    monkeypatch.setattr(place.stream, "ahead", 5 * place.stream.recipe.batch_size)
    found, _ = measure(place, contenders(place, "scratch", "kd"))
    assert begun == list(range(len(begun))) and len(begun) - len(ended) <= 1
    assert len(begun) * place.stream.steps_per_epoch > 2 * 5 * REFILLS * 5
    assert list(found) == ["scratch", "kd"]


def peak_memory(*names: str) -> int | None:
    """Of the last one, after the others were warmed up; times mean nothing here, one probe of them will do."""
    throughput.PROBES = 1
    place = arena(load_suite("proxy"), Compute(CUDA, "bf16", 1))
    steppers = throughput._steppers(place, contenders(place, *names))
    for stepper in steppers.values():
        stepper.warm_up(1, 0, 0.001)
    return steppers[names[-1]].peak_memory()


@pytest.mark.runs
def test_peak_memory_is_a_contenders_own(on_gpu: Callable[..., int]) -> None:
    alone, in_company = on_gpu(peak_memory, "scratch"), on_gpu(peak_memory, "kd", "scratch")
    assert alone > 1e6
    assert in_company == pytest.approx(alone, rel=0.01)
