"""Looking at the machine: what it tells, and what is made of it."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import psutil
import pynvml
import pytest
import torch

from kdbench.compute import machine
from kdbench.compute.device import Compute
from kdbench.compute.machine import OTHERS, Finding, GpuState, Watch, gpu_state, judge_findings

SPIN = "while True: pass"
START = f"""
import subprocess, sys
print(subprocess.Popen([sys.executable, "-c", "{SPIN}"], stdout=subprocess.DEVNULL).pid, flush=True)
"""
"""Start a busy process, tell which, and end; the busy process has no parent of ours any more."""


@contextmanager
def _busy(which: str) -> Iterator[psutil.Process]:
    if which == "ourselves":
        yield psutil.Process()
        return
    code = {"a child": SPIN, "a grandchild": f"{START}sys.stdin.read()", "another process": START}[which]
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        process = psutil.Process(child.pid if which == "a child" else int(child.stdout.readline()))
        if which == "another process":
            child.wait()
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.runs
@pytest.mark.parametrize(
    ("which", "ours"), [("ourselves", True), ("a child", True), ("a grandchild", True), ("another process", False)]
)
def test_what_others_take_is_seen_and_what_we_take_is_not(cpu: Compute, which: str, ours: bool) -> None:
    """Whatever else runs here: of what all processes take, others have all, or all but what the busy one took."""
    with _busy(which) as process:
        watch = Watch(cpu)
        psutil.cpu_percent()
        watch.begin()
        before, started = sum(process.cpu_times()[:2]), time.monotonic()
        while (taken := sum(process.cpu_times()[:2]) - before) < 0.5:
            time.sleep(0 if which == "ourselves" else 0.05)
        others, busy = watch.end().others, psutil.cpu_percent() / 100
    share = taken / (time.monotonic() - started) / psutil.cpu_count()
    assert others is not None
    assert others == pytest.approx(busy - share if ours else busy, abs=share / 2)


def test_a_child_that_ends_is_still_ours(cpu: Compute) -> None:
    watch = Watch(cpu)
    psutil.cpu_percent()
    watch.begin()
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", "import time\nwhile time.process_time() < 0.5: pass"], check=True)
    others, busy = watch.end().others, psutil.cpu_percent() / 100
    share = 0.5 / (time.monotonic() - started) / psutil.cpu_count()
    assert others is not None
    assert others == pytest.approx(busy - share, abs=share / 2)


def test_a_state_tells_the_load(cpu: Compute) -> None:
    state = Watch(cpu).state()
    assert state["load"] is not None
    assert state["others"] is not None
    assert "gpu_mhz" not in state


def test_the_verdict_counts_rounds_and_says_why() -> None:
    quiet, busy = Finding(0.02, (), 0), Finding(OTHERS + 0.2, (), 0)
    assert judge_findings([quiet] * 3) == (True, [])
    assert judge_findings([Finding(None, (), 0)] * 3) == (None, [])
    clean, reasons = judge_findings([quiet, busy, busy, Finding(0.0, ("power cap",), 1)])
    assert clean is False
    assert reasons == [
        "other processes on the GPU in 1 of 4 rounds",
        "other processes on the processor in 2 of 4 rounds",
        "throttled (power cap) in 1 of 4 rounds",
        "others had 16% of all cores",
    ]


def test_why_a_gpu_is_slow() -> None:
    assert GpuState(1755, 61, 688.31, 0x4, 2).throttled_by == ["power cap"]
    assert GpuState(1755, 61, 688.31, 0x60, 2).throttled_by == ["heat (software)", "heat (hardware)"]
    assert GpuState(345, 31, 70.02, 0x1, 0).throttled_by == []
    assert [GpuState(345, 31, 70.02, 0x1, processes).others for processes in (0, 1, 3)] == [0, 0, 2]


def test_a_gpu_is_judged_by_counters(monkeypatch: pytest.MonkeyPatch) -> None:
    """As NVML would tell it: heat speaks against the round in which it was, the power limit against none."""
    spent = {pynvml.NVML_PERF_POLICY_THERMAL: 5, pynvml.NVML_PERF_POLICY_POWER: 5}

    def violation(gpu: object, policy: int) -> SimpleNamespace:
        if policy not in spent:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return SimpleNamespace(violationTime=spent[policy])

    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", lambda uuid: uuid)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetViolationStatus", violation)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="1"))
    monkeypatch.setattr(machine, "gpu_state", lambda uuid: GpuState(1980, 35, 90.0, 0x1, 1))
    watch = Watch(Compute(torch.device("cuda", 0), "bf16", 1))
    spent[pynvml.NVML_PERF_POLICY_POWER] += 10
    assert watch.end().throttled == ()
    watch.begin()
    spent[pynvml.NVML_PERF_POLICY_THERMAL] += 10
    assert watch.end().throttled == ("heat of the GPU",)


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
