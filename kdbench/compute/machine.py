"""Is the machine to ourselves? What else it does while throughput is measured, and whether it holds its clock.

Of the processor (psutil): what other processes take of all cores, that is the busy time less our own and that of our
child processes, such as those that load images; and counters of throttling, by heat or by the quota of a container. Of
an NVIDIA GPU (NVML): its other processes, and for how long heat or the limits of the board held its clock down, by
counters, as the reasons of a moment are those of an idle GPU once we have waited for it. Its power limit is no reason
against a round: at full load a GPU runs at that limit, and all methods do alike. What the machine does not tell is None
and is not judged.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import NamedTuple, TypeVar

import psutil
import pynvml
import torch

from kdbench.compute.device import Compute
from kdbench.results.schema import MachineState

OTHERS = 0.1
"""Share of all cores that other processes may take while the machine counts as ours."""
GLANCE = 0.2
"""Seconds over which a state looks at other processes."""

_HELD_DOWN = {
    pynvml.nvmlClocksThrottleReasonSwPowerCap: "power cap",
    pynvml.nvmlClocksThrottleReasonHwSlowdown: "hardware slowdown",
    pynvml.nvmlClocksThrottleReasonSwThermalSlowdown: "heat (software)",
    pynvml.nvmlClocksThrottleReasonHwThermalSlowdown: "heat (hardware)",
    pynvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown: "power brake",
}
"""Reasons for a lower clock that slow a measurement; being idle and chosen clocks do not."""
_VIOLATIONS = {
    "heat of the GPU": pynvml.NVML_PERF_POLICY_THERMAL,
    "limits of the GPU's board": pynvml.NVML_PERF_POLICY_BOARD_LIMIT,
}
"""What NVML counts the nanoseconds of in which it held the clock down, and what speaks against a round."""

Answer = TypeVar("Answer")


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

    @property
    def others(self) -> int:
        """Processes beside ours."""
        return max(0, self.processes - 1)


@dataclass(frozen=True)
class Finding:
    """What happened during a round; `others` is a share of all cores, None where it cannot be read."""

    others: float | None
    throttled: tuple[str, ...]
    gpu_others: int

    @property
    def problems(self) -> list[str]:
        """Why the round is not clean; empty where nothing speaks against it."""
        problems = [f"throttled ({reason})" for reason in self.throttled]
        if self.others is not None and self.others > OTHERS:
            problems.append("other processes on the processor")
        if self.gpu_others:
            problems.append("other processes on the GPU")
        return problems


class Watch:
    """Looks at the machine around and between rounds."""

    def __init__(self, compute: Compute) -> None:
        self._uuid = None
        if compute.device.type == "cuda":
            self._uuid = f"GPU-{torch.cuda.get_device_properties(compute.device).uuid}"
        self.begin()

    def begin(self) -> None:
        """Remember the state of the machine at the beginning of a round."""
        self._cpu, self._counts = _told(_cpu_seconds), self._throttle_counts()

    def end(self) -> Finding:
        """What happened on the machine since `begin`."""
        throttled = [name for name, count in self._throttle_counts().items() if count > self._counts.get(name, count)]
        gpu = gpu_state(self._uuid) if self._uuid else None
        return Finding(self._others(), tuple(throttled), gpu.others if gpu else 0)

    def state(self) -> MachineState:
        """The machine as it is now; takes `GLANCE` seconds in which we do nothing."""
        self.begin()
        time.sleep(GLANCE)
        state = MachineState(
            load=_told(lambda: psutil.getloadavg()[0]),
            others=self._others(),
            mhz=_told(_mhz),
            governor=_read(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
        )
        gpu = gpu_state(self._uuid) if self._uuid else None
        if gpu is not None:
            state["gpu_mhz"], state["gpu_celsius"], state["gpu_watts"] = gpu.clock, gpu.temperature, gpu.power
            state["gpu_throttled"], state["gpu_others"] = gpu.throttled_by, gpu.others
        return state

    def _throttle_counts(self) -> dict[str, int]:
        return _throttle_counts() | (gpu_violations(self._uuid) if self._uuid else {})

    def _others(self) -> float | None:
        now = _told(_cpu_seconds)
        if now is None or self._cpu is None:
            return None
        busy, ours, wall = (after - before for after, before in zip(now, self._cpu, strict=True))
        return min(1.0, max(0.0, (busy - ours) / (wall * (psutil.cpu_count() or 1))))


def judge_findings(findings: Iterable[Finding]) -> tuple[bool | None, list[str]]:
    """Whether all rounds were clean (None: the load cannot be read here), and what spoke against it in how many."""
    rounds = list(findings)
    counts = Counter(problem for finding in rounds for problem in finding.problems)
    reasons = [f"{problem} in {count} of {len(rounds)} rounds" for problem, count in sorted(counts.items())]
    loads = [finding.others for finding in rounds if finding.others is not None]
    if any(others > OTHERS for others in loads):
        reasons.append(f"others had {median(loads):.0%} of all cores")
    return (False if counts else None if not loads else True), reasons


def gpu_state(uuid: str) -> GpuState | None:
    """What NVML tells of a GPU; None where there is no driver, or where it leaves a question open."""
    try:
        pynvml.nvmlInit()
        gpu = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        return GpuState(
            clock=pynvml.nvmlDeviceGetClockInfo(gpu, pynvml.NVML_CLOCK_SM),
            temperature=pynvml.nvmlDeviceGetTemperature(gpu, pynvml.NVML_TEMPERATURE_GPU),
            power=pynvml.nvmlDeviceGetPowerUsage(gpu) / 1e3,
            reasons=pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu),
            processes=len(pynvml.nvmlDeviceGetComputeRunningProcesses(gpu)),
        )
    except pynvml.NVMLError:
        return None


def gpu_violations(uuid: str) -> dict[str, int]:
    """Nanoseconds in which the clock of a GPU was held down so far, by cause; only what NVML counts there."""
    found = {}
    for cause, policy in _VIOLATIONS.items():
        with suppress(pynvml.NVMLError):
            pynvml.nvmlInit()
            gpu = pynvml.nvmlDeviceGetHandleByUUID(uuid)
            found[cause] = int(pynvml.nvmlDeviceGetViolationStatus(gpu, policy).violationTime)
    return found


def _cpu_seconds() -> tuple[float, float, float]:
    """Busy seconds of all cores, those of our process and its children (also those that ended), and the clock's."""
    times, process = psutil.cpu_times(), psutil.Process()
    # What guests take is counted as time of a user, too.
    idle = sum(getattr(times, name, 0.0) for name in ("idle", "iowait", "guest", "guest_nice"))
    ours = 0.0
    for each in (process, *process.children(recursive=True)):
        with suppress(psutil.Error):
            ours += sum(each.cpu_times()[:4])
    return sum(times) - idle, ours, time.monotonic()


def _throttle_counts() -> dict[str, int]:
    """How often the processor was slowed down so far, by cause; 0 where that is not counted."""
    heat = Path("/sys/devices/system/cpu").glob("cpu*/thermal_throttle/core_throttle_count")
    quota = dict(line.split() for line in (_read(Path("/sys/fs/cgroup/cpu.stat")) or "").splitlines())
    return {
        "heat": sum(int(_read(count) or 0) for count in heat),
        "quota of processor time": int(quota.get("nr_throttled", 0)),
    }


def _mhz() -> float | None:
    """Mean clock of the cores."""
    clock = psutil.cpu_freq()
    return clock.current if clock else None


def _read(path: Path) -> str | None:
    return _told(lambda: path.read_text().strip())


def _told(ask: Callable[[], Answer]) -> Answer | None:
    """The answer of the machine, None where it does not tell."""
    try:
        return ask()
    except (OSError, NotImplementedError, psutil.Error):
        return None
