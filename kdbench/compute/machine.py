"""Is the machine to ourselves? What else it does while throughput is measured, and whether it holds its clock.

On a CPU: what other processes take of all cores (/proc/stat less our own time), and counters of throttling, by heat or
by the quota of a container. On an NVIDIA GPU, too: its other processes and the reasons why its clock is held down, from
NVML where `pynvml` is installed, else from nvidia-smi. What cannot be read is None and is not judged.
"""

import importlib
import os
import subprocess
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch

from kdbench.compute.device import Compute
from kdbench.results.schema import MachineState

OTHERS = 0.1
"""Share of all cores that other processes may take while the machine counts as ours."""
GLANCE = 0.2
"""Seconds over which a state looks at other processes."""

_HELD_DOWN = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x20: "heat (software)",
    0x40: "heat (hardware)",
    0x80: "power brake",
}
"""NVML's reasons for a lower clock that slow a measurement; being idle and chosen clocks do not."""


class GpuState(NamedTuple):
    """What NVML tells of a GPU: clock in MHz, degrees Celsius, watts, reasons as bits, processes that compute on it."""

    clock: int
    temperature: int
    power: float
    reasons: int
    processes: int

    @property
    def throttled_by(self) -> list[str]:
        return [name for bit, name in _HELD_DOWN.items() if self.reasons & bit]


@dataclass(frozen=True)
class Finding:
    """What happened during a round; `others` is a share of all cores, None where it cannot be read."""

    others: float | None
    throttled: tuple[str, ...]
    gpu_others: int

    @property
    def problems(self) -> list[str]:
        """Why the round is not clean; empty where nothing speaks against it."""
        found = [f"throttled ({reason})" for reason in self.throttled]
        if self.others is not None and self.others > OTHERS:
            found.append("other processes on the processor")
        if self.gpu_others:
            found.append("other processes on the GPU")
        return found


class Watch:
    """Looks at the machine around and between rounds."""

    def __init__(self, compute: Compute) -> None:
        self._uuid = None
        if compute.device.type == "cuda":
            self._uuid = f"GPU-{torch.cuda.get_device_properties(compute.device).uuid}"
        self.begin()

    def begin(self) -> None:
        """A round begins."""
        self._cpu, self._counts = _cpu_seconds(), _throttle_counts()

    def end(self) -> Finding:
        """What happened since `begin`."""
        throttled = [name for name, count in _throttle_counts().items() if count > self._counts.get(name, count)]
        gpu = gpu_state(self._uuid) if self._uuid else None
        if gpu is not None:
            throttled += gpu.throttled_by
        return Finding(self._others(), tuple(throttled), max(0, gpu.processes - 1) if gpu else 0)

    def state(self) -> MachineState:
        """The machine as it is now; takes `GLANCE` seconds in which we do nothing."""
        self.begin()
        time.sleep(GLANCE)
        gpu = gpu_state(self._uuid) if self._uuid else None
        state = MachineState(
            load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
            others=self._others(),
            mhz=_mhz(),
            governor=_read(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
        )
        if gpu is not None:
            state["gpu_mhz"], state["gpu_celsius"], state["gpu_watts"] = gpu.clock, gpu.temperature, gpu.power
            state["gpu_throttled"], state["gpu_others"] = gpu.throttled_by, max(0, gpu.processes - 1)
        return state

    def _others(self) -> float | None:
        now = _cpu_seconds()
        if now is None or self._cpu is None:
            return None
        busy, own, wall = (after - before for after, before in zip(now, self._cpu, strict=True))
        return min(1.0, max(0.0, (busy - own) / (wall * (os.cpu_count() or 1))))


def verdict(findings: Iterable[Finding]) -> tuple[bool | None, list[str]]:
    """Whether all rounds were clean (None: the load cannot be read here), and what spoke against it in how many."""
    rounds = list(findings)
    counts = Counter(problem for finding in rounds for problem in finding.problems)
    reasons = [f"{problem} in {count} of {len(rounds)} rounds" for problem, count in sorted(counts.items())]
    known = [finding.others for finding in rounds if finding.others is not None]
    if any(others > OTHERS for others in known):
        reasons.append(f"others had {median(known):.0%} of all cores")
    return (False if counts else None if not known else True), reasons


def gpu_state(uuid: str) -> GpuState | None:
    """What NVML tells of a GPU, by whatever way there is; None without any."""
    try:
        return _from_nvml(uuid)
    except ImportError:
        return _from_smi(uuid)


def _from_nvml(uuid: str) -> GpuState | None:
    nvml = importlib.import_module("pynvml")
    try:
        nvml.nvmlInit()
        handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
        return GpuState(
            clock=nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM),
            temperature=nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
            power=nvml.nvmlDeviceGetPowerUsage(handle) / 1e3,
            reasons=nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle),
            processes=len(nvml.nvmlDeviceGetComputeRunningProcesses(handle)),
        )
    except nvml.NVMLError:
        return None


def _from_smi(uuid: str) -> GpuState | None:
    fields = "clocks.sm,temperature.gpu,power.draw,clocks_throttle_reasons.active"
    state = _smi(uuid, f"--query-gpu={fields}")
    processes = _smi(uuid, "--query-compute-apps=pid")
    return None if state is None or processes is None else parse_smi(state, processes)


def parse_smi(state: str, processes: str) -> GpuState | None:
    """The two answers of nvidia-smi; None where a field is not told (`[N/A]`)."""
    try:
        clock, temperature, power, reasons = state.split(", ")
        return GpuState(int(clock), int(temperature), float(power), int(reasons, 16), len(processes.split()))
    except ValueError:
        return None


def _smi(uuid: str, query: str) -> str | None:
    command = ["nvidia-smi", "-i", uuid, query, "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _cpu_seconds() -> tuple[float, float, float] | None:
    """Busy seconds of all cores, our own (with children that ended), and the clock's."""
    line = _read(Path("/proc/stat"))
    if line is None:
        return None
    user, nice, system, _, _, irq, softirq, steal = map(int, line.split(maxsplit=9)[1:9])
    busy = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    return busy, sum(os.times()[:4]), time.monotonic()


def _throttle_counts() -> dict[str, int]:
    """How often the processor was slowed down so far, by cause, where that is counted."""
    counts = {}
    heat = [_read(path) for path in Path("/sys/devices/system/cpu").glob("cpu*/thermal_throttle/core_throttle_count")]
    if heat:
        counts["heat"] = sum(int(count) for count in heat if count)
    quota = dict(line.split() for line in (_read(Path("/sys/fs/cgroup/cpu.stat")) or "").splitlines())
    if "nr_throttled" in quota:
        counts["quota of processor time"] = int(quota["nr_throttled"])
    return counts


def _mhz() -> float | None:
    """Mean clock of the cores."""
    lines = (_read(Path("/proc/cpuinfo")) or "").splitlines()
    clocks = [float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")]
    return sum(clocks) / len(clocks) if clocks else None


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
