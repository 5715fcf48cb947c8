"""Looking at the machine: what it tells, and what is made of it."""

import multiprocessing
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
import torch

from kdbench.compute.device import Compute
from kdbench.compute.machine import OTHERS, Finding, GpuState, Watch, gpu_state, parse_smi, verdict

linux = pytest.mark.skipif(not Path("/proc/stat").is_file(), reason="no /proc/stat")


def _spin(started: Event) -> None:
    started.set()
    while True:
        pass


def _work(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


@linux
def test_what_others_take_is_seen_and_what_we_take_is_not(cpu: Compute) -> None:
    watch = Watch(cpu)
    _work(0.5)
    alone = watch.end().others
    context = multiprocessing.get_context("spawn")
    started = context.Event()
    other = context.Process(target=_spin, args=(started,), daemon=True)
    other.start()
    try:
        started.wait(60)
        watch.begin()
        _work(0.5)
        beside = watch.end().others
    finally:
        other.terminate()
        other.join()
    assert alone is not None
    assert beside is not None
    assert 0 <= alone <= 1
    # On a loaded machine the other process takes from others, too, but never nothing.
    assert beside > min(alone, 0.4) / 2
    assert beside > 0.5 / (multiprocessing.cpu_count() + 4)


@linux
def test_a_state_tells_the_load(cpu: Compute) -> None:
    state = Watch(cpu).state()
    assert state["load"] is not None
    assert state["others"] is not None
    assert "gpu_mhz" not in state


def test_the_verdict_counts_rounds_and_says_why() -> None:
    quiet, busy = Finding(0.02, (), 0), Finding(OTHERS + 0.2, (), 0)
    assert verdict([quiet] * 3) == (True, [])
    assert verdict([Finding(None, (), 0)] * 3) == (None, [])
    clean, reasons = verdict([quiet, busy, busy, Finding(0.0, ("power cap",), 1)])
    assert clean is False
    assert reasons == [
        "other processes on the GPU in 1 of 4 rounds",
        "other processes on the processor in 2 of 4 rounds",
        "throttled (power cap) in 1 of 4 rounds",
        "others had 16% of all cores",
    ]


def test_answers_of_nvidia_smi() -> None:
    state = parse_smi("1755, 61, 688.31, 0x0000000000000004", "1234\n5678")
    assert state == GpuState(1755, 61, 688.31, 4, 2)
    assert state.throttled_by == ["power cap"]
    idle = parse_smi("345, 31, 70.02, 0x0000000000000001", "")
    assert idle is not None
    assert idle.throttled_by == []
    assert parse_smi("345, 31, [N/A], 0x1", "") is None


def test_without_a_gpu_nothing_is_told_of_one() -> None:
    assert gpu_state("GPU-no-such") is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_tells_its_clock() -> None:
    watch = Watch(Compute(torch.device("cuda", 0), "bf16", 1))
    state = watch.state()
    assert state.get("gpu_mhz", 0) > 0
    assert state.get("gpu_celsius", 0) > 0
    assert watch.end().gpu_others >= 0
