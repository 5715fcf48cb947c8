"""The throughput protocol on the real proxy: its figures, phases that add up, rounds that are repeated or marked."""

import time
from types import SimpleNamespace

import pytest

from kdbench.compute.device import Compute
from kdbench.compute.machine import OTHERS, Finding, Watch
from kdbench.registry import Registry
from kdbench.suites.schema import Suite, Timing
from kdbench.training import throughput
from kdbench.training.arena import Arena
from kdbench.training.contender import Contender
from kdbench.training.throughput import PHASES, REPEATS, measure
from tests.conftest import NO_DATA

BUSY, QUIET = Finding(OTHERS + 0.3, (), 0), Finding(OTHERS / 2, (), 0)


def arena(suite: Suite, compute: Compute, **timing: float) -> Arena:
    small = Timing(warmup_steps=3, warmup_seconds=0, **timing)  # type: ignore[arg-type]
    suite = suite.model_copy(update={"timing": small})
    return Arena.enter(suite, suite.select_pairs("vit-t:resnet-s")[0], 0, "test", compute, NO_DATA)


def contenders(place: Arena, *names: str) -> list[Contender]:
    plugins = Registry.installed().plugins
    return [place.contender(name, plugins[name].method, plugins[name].hyperparameters().model_dump()) for name in names]


@pytest.mark.parametrize("method", ["scratch", "kd", "fitnet"])
def test_the_phases_add_up_to_the_step(
    proxy: Suite, cpu: Compute, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """By the clock of this process, which stands still while others have the core."""
    monkeypatch.setattr(throughput, "time", SimpleNamespace(perf_counter=time.process_time))
    place = arena(proxy, cpu, blocks=10)
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
