"""Where and how precisely a run computes, and the description of the machine that goes with its records."""

import os
import platform
import subprocess
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pynvml
import timm
import torch
from timm.layers.config import set_fused_attn
from torch import nn

import kdbench
from kdbench.compute.distributed import ALONE, Replica, join
from kdbench.errors import KdbenchError
from kdbench.files import content_key

Precision = Literal["fp32", "bf16"]
Compile = Literal["off", "on", "graphs"]
"""`graphs`: compiled, and launched as CUDA graphs."""

MOST_LOADERS = 32

_DETERMINING = ("OMP_", "MKL_", "CUDA", "CUBLAS", "CUDNN", "NVIDIA", "PYTORCH", "TORCH", "TIMM", "LD_PRELOAD")
"""How the environment variables begin that may change results or speed."""
_PLACING = {"CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CUDA_LAUNCH_BLOCKING", "PYTORCH_NVML_BASED_CUDA_CHECK"}
"""Those that only say which GPU it is, or when errors come up: GPUs of one machine are one environment."""


@dataclass(frozen=True)
class Compute:
    """A device, and how it is used.

    Attributes:
        threads: of each process, on the CPU.
        compile: students and teacher go through `torch.compile`.
        micro_batch: largest number of images in one pass; a larger batch is accumulated. None is the whole batch.
        loaders: processes that read and augment images where a data set streams.
        replica: which of several processes that train a cell together this one is.
    """

    device: torch.device
    precision: Precision
    threads: int
    compile: Compile = "off"
    micro_batch: int | None = None
    loaders: int = 0
    replica: Replica = ALONE

    def autocast(self) -> AbstractContextManager[Any]:
        """bf16 autocast where the precision asks for it; a context that is switched off would cost a small step 3 %."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext()

    def apply(self) -> None:
        """Make this process compute so, before networks are made: the thread count, and on a GPU two things more.

        What stays in float32 is float32, not TF32. Attention is one kernel also where timm leaves that off (in a Swin),
        unless the environment variable TIMM_FUSED_ATTN says otherwise.
        """
        torch.set_num_threads(self.threads)
        if self.device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = False
            torch.backends.cudnn.allow_tf32 = False
            if "TIMM_FUSED_ATTN" not in os.environ:
                set_fused_attn(True, experimental=True)

    def compile_models(self, models: Iterable[nn.Module]) -> None:
        """Compile models in place where that is asked for; their state dicts keep their keys.

        Shapes are fixed: a training has one size of batch. What calls `forward` itself goes past the compiled code, as
        evaluation and self-check do, whose batches have other sizes.
        """
        if self.compile == "off":
            return
        # All staged models share the code of one forward pass, and each method asks it for other features.
        torch._dynamo.config.recompile_limit = 64
        for model in models:
            model.compile(mode="reduce-overhead" if self.compile == "graphs" else "default", dynamic=False)

    @property
    def identity(self) -> dict[str, Any]:
        """What of this description determines results, by name."""
        identity: dict[str, Any] = {"precision": self.precision}
        if self.micro_batch is not None:
            identity["micro_batch"] = self.micro_batch
        if self.replica.world > 1:
            identity["processes"] = self.replica.world
        return identity

    def synchronise(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def resolve(
    device: str,
    precision: str,
    compile: Compile = "off",
    micro_batch: int | None = None,
    loaders: int | None = None,
) -> Compute:
    """The compute of `--device auto|cpu|cuda`, `--precision auto|fp32|bf16` and so on; meets the other processes.

    On a CPU every run uses one thread: results are bit-identical for a fixed thread count only, and cores are better
    used by running several groups side by side. bf16 is refused on processors that emulate it: it is hundreds of
    times slower there.

    Raises:
        KdbenchError: the device or the precision is not there.
    """
    # Asked through the driver's management library, the question does not open the device.
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise KdbenchError("no CUDA device is visible to torch; use --device cpu, or install a CUDA build of torch")
    if precision == "auto":
        precision = "bf16" if device == "cuda" and _gpu_has_bf16() else "fp32"
    if precision == "bf16" and device == "cpu" and not _cpu_has_bf16():
        raise KdbenchError("this processor has no bf16 units (avx512_bf16 or amx); use --precision fp32")
    if compile == "graphs" and device == "cpu":
        raise KdbenchError("--compile graphs needs a CUDA device; use --compile on")
    torch_device = (
        torch.device(device, int(os.environ.get("LOCAL_RANK", "0"))) if device == "cuda" else torch.device(device)
    )
    replica = join(torch_device)
    if loaders is None:
        # Of the processes that torchrun started, those on this machine share its cores.
        loaders = max(1, cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) - 1) if device == "cuda" else 0
    return Compute(
        torch_device,
        "bf16" if precision == "bf16" else "fp32",
        1,
        compile,
        micro_batch,
        min(loaders, MOST_LOADERS),
        replica,
    )


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_workers(compute: Compute) -> int:
    """Worker processes side by side: one on each GPU, else one for each core."""
    return max(1, len(gpus())) if compute.device.type == "cuda" else cores()


def gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; none of them is opened."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return [str(number) for number in range(torch.cuda.device_count())]
    return [name for name in visible.split(",") if name]


def _cpu_has_bf16() -> bool:
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16"))


def _gpu_has_bf16() -> bool:
    """Whether the first GPU has units for bf16, which are there since Ampere; older ones emulate it. Nothing is opened.

    Where NVML does not tell, it is taken to have them, as all GPUs since 2020 do.
    """
    try:
        pynvml.nvmlInit()
        major, _ = pynvml.nvmlDeviceGetCudaComputeCapability(pynvml.nvmlDeviceGetHandleByIndex(0))
    except pynvml.NVMLError:
        return True
    return major >= 8


def environment(compute: Compute) -> tuple[str, dict[str, Any]]:
    """Id and description of what a record was measured on; no host or user name."""
    on_gpu = compute.device.type == "cuda"
    device = torch.cuda.get_device_name(compute.device) if on_gpu else f"cpu: {_cpu_name()}"
    description = {
        "kdbench": kdbench.__version__,
        "git": _git_state(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "cuda": torch.version.cuda if on_gpu else None,
        "device": device,
        "cores": os.cpu_count(),
        "threads": compute.threads,
        "compile": compute.compile,
        **compute.identity,
        "variables": {
            name: value
            for name, value in sorted(os.environ.items())
            if name.startswith(_DETERMINING) and name not in _PLACING
        },
    }
    return content_key(description)[:12], description


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _git_state() -> dict[str, Any]:
    """Revision of the tree the package runs from, None for an installed wheel."""
    root = Path(kdbench.__file__).parent.parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # A wheel in a virtual environment inside somebody's repository must not report that repository.
    if not (root / ".git").exists():
        return {"revision": None, "dirty": None}
    status = git("status", "--porcelain", "--untracked-files=no", "--", "kdbench", "methods")
    return {"revision": git("rev-parse", "HEAD"), "dirty": None if status is None else bool(status)}
