"""What only a GPU can show; skipped where there is none."""

import pytest
import torch

from kdbench.compute.device import resolve
from kdbench.data.batch import Draw
from kdbench.training.lockstep import lockstep
from tests.support.course import METHODS, Course

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("student", ["vit", "resnet"])
def test_no_step_waits_for_the_device(student: str) -> None:
    """Data, teacher, all methods, optimizer and schedule: nothing in a step reads a value back."""
    course = Course(student, resolve("cuda", "bf16"))
    contenders = [course.contender(name) for name in METHODS]
    batches = course.stream.epoch(0)
    lockstep(contenders, course.teacher, Draw(*next(batches)), course.compute)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for raw, batch in batches:
            lockstep(contenders, course.teacher, Draw(raw, batch), course.compute)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for contender in contenders:
        assert contender.status is None, contender.error


@pytest.mark.parametrize("compile", ["off", "on", "graphs"])
def test_training_on_a_gpu(compile: str) -> None:
    compute = resolve("cuda", "bf16", compile)  # type: ignore[arg-type]
    course = Course("resnet", compute)
    for contender in course.train(*METHODS).values():
        assert all(torch.isfinite(torch.tensor(values)).all() for values in contender.losses.values())


def test_cpu_and_gpu_see_the_same_images() -> None:
    on_gpu, on_cpu = (Course("vit", resolve(device, "fp32")).stream.epoch(1) for device in ("cuda", "cpu"))
    for (raw, batch), (expected, other) in zip(on_gpu, on_cpu, strict=True):
        assert torch.equal(batch.index.cpu(), other.index)
        torch.testing.assert_close(raw.cpu(), expected, rtol=0, atol=0.01)
