"""How to use two cores: two groups side by side with a thread each, or one after the other with two threads."""

import time
from collections.abc import Callable
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from statistics import median

import pytest
from rich.console import Console

from kdbench.compute.device import Compute, cores
from kdbench.engines.display import Display
from kdbench.engines.local import LocalEngine
from kdbench.registry import Registry
from kdbench.study.accuracy import AccuracyJob
from kdbench.study.plan import make_plan
from kdbench.suites.loading import load_suite
from tests.conftest import NO_DATA

pytestmark = pytest.mark.bench

ROUNDS = 5
METHODS = ["scratch", "kd", "fitnet", "ofa"]


@pytest.mark.skipif(cores() < 2, reason="there is one core")
@pytest.mark.parametrize("pair", ["vit-t:resnet-s", "resnet-t:mixer-s"])
def test_two_groups_of_a_thread_beat_one_of_two(
    pair: str, cpu: Compute, short_suite: Callable[..., Path], tmp_path: Path
) -> None:
    """Whole groups in worker processes, seeds 0 and 1 of a pair, wall time; who goes first alternates."""
    suite, installed = load_suite(str(short_suite(2))), Registry.installed().plugins
    plugins = [installed[name] for name in METHODS]
    plan = make_plan(suite, plugins, suite.select_pairs(pair), [0, 1], compute=cpu, data_root=NO_DATA)

    def seconds(number: int, threads: int) -> float:
        folder, compute = tmp_path / f"{number}-{threads}", replace(cpu, threads=threads)
        groups = [
            AccuracyJob(suite, plan.pairs[0], seed, tuple(cells), "test", compute, NO_DATA, folder)
            for seed, cells in groupby(plan.cells(), key=lambda cell: cell.seed)
        ]
        display = Display(Console(quiet=True), pair, 1)
        started = time.perf_counter()
        LocalEngine().run(groups, workers=2 // threads, display=display)
        took = time.perf_counter() - started
        assert not display.failures and len(list((folder / "cells").rglob("*.json"))) == len(list(plan.cells()))
        return took

    seconds(0, 1)  # the server that workers are forked off starts
    ratios = []
    for number in range(1, ROUNDS + 1):
        took = {threads: seconds(number, threads) for threads in ((1, 2) if number % 2 else (2, 1))}
        ratios.append(took[1] / took[2])
    print(
        f"\n{pair}: two groups of one thread side by side take {median(ratios):.2f} of the time of one after the other "
        f"with two threads (rounds {min(ratios):.2f} to {max(ratios):.2f})"
    )
    assert median(ratios) < 1
