"""Compiled networks are the same networks: keys, weights, results within rounding."""

from dataclasses import replace

import pytest
import torch

from kdbench.compute.device import Compute, resolve
from kdbench.errors import KdbenchError
from kdbench.models.features import Needs
from tests.support.course import RECIPE, Course

# Nothing random inside the network: the compiler draws dropout masks in another order.
ONE_EPOCH = RECIPE.model_copy(update={"epochs": 1, "warmup_epochs": 0})


@pytest.mark.runs
def test_compiled_training_is_the_same_within_rounding(cpu: Compute) -> None:
    eager = Course("plain", cpu, ONE_EPOCH).train("kd")["kd"]
    compute = replace(cpu, compile="on")
    course = Course("plain", compute, ONE_EPOCH)
    compiled = course.train("kd")["kd"]
    assert compiled.student._compiled_call_impl is not None and course.teacher._compiled_call_impl is not None
    expected, found = eager.student.model.state_dict(), compiled.student.model.state_dict()
    assert list(expected) == list(found)
    for key, tensor in expected.items():
        torch.testing.assert_close(found[key], tensor, rtol=1e-2, atol=1e-3, msg=key)


def test_a_tail_is_built_of_a_compiled_network_inside_autocast(cpu: Compute) -> None:
    """As a plug-in does that resumes the teacher in its first step: the trace and the maps round alike."""
    teacher = Course("resnet", replace(cpu, compile="on")).teacher
    replace(cpu, compile="on").compile_models([teacher])
    with torch.autocast("cpu", torch.bfloat16):
        images = torch.randn(2, 3, 32, 32)
        feature = teacher.forward(images, Needs(frozenset([4]))).stages[4]
        assert teacher.finish(feature).logits.shape == (2, 4)
        assert teacher.segment(2).following == 3


def test_graphs_want_a_gpu() -> None:
    with pytest.raises(KdbenchError, match="--compile graphs needs a CUDA device; use --compile on"):
        resolve("cpu", "fp32", "graphs")
