"""What an error says of the code that it ends."""

import pytest
import torch

from kdbench.compute.device import Compute
from kdbench.compute.failures import ending
from kdbench.data.batch import Batch
from kdbench.errors import UnsupportedPair
from kdbench.models.features import Outputs
from kdbench.training.contender import isolated
from kdbench.training.lockstep import drawn
from kdbench.training.selfcheck import self_check
from tests.support.course import Course

LOST = torch.AcceleratorError("CUDA error: device-side assert triggered")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (MemoryError(), "oom"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."), "oom"),
        (torch.AcceleratorError("CUDA error: out of memory"), "oom"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), "oom"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "oom"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "oom"),
        (RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`"), "oom"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED"), "failed"),
        (UnsupportedPair("no stages"), "unsupported"),
        (ArithmeticError("no such number"), "failed"),
    ],
)
def test_how_an_error_ends_a_contender(error: Exception, status: str) -> None:
    found, reason = ending(error)
    assert found == status
    assert str(error) in reason and "\n" not in reason


def test_a_lost_device_is_nobodys_failure() -> None:
    with pytest.raises(torch.AcceleratorError):
        ending(LOST)


@pytest.mark.parametrize("error", [LOST, torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_a_self_check_does_not_blame_the_method_for_the_device(
    cpu: Compute, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    course = Course("plain", cpu)
    contender = course.contender("kd")

    def forward(student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, torch.Tensor]:
        raise error

    monkeypatch.setattr(contender.method, "forward", forward)
    with pytest.raises(type(error)):
        self_check(contender, course.teacher, next(drawn([contender], course.stream, 0)), cpu)


def test_the_memory_of_a_failed_step_is_let_go(cpu: Compute, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the cache is emptied: what the traceback still holds cannot be given back."""
    held: list[bool] = []
    contender = Course("plain", cpu).contender("kd")
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: held.append(bool(alive)))
    alive: set[int] = set()

    class Large:
        def __init__(self) -> None:
            alive.add(id(self))

        def __del__(self) -> None:
            alive.discard(id(self))

    def step() -> None:
        large = Large()
        raise torch.OutOfMemoryError(f"no room beside {type(large).__name__}")

    with isolated(contender):
        step()
    assert contender.status == "oom"
    assert held == [False]
