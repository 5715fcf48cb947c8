"""Evaluation: the classifier does not round as bf16 does."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kdbench.compute.device import Compute
from kdbench.models.features import Outputs
from kdbench.models.staged import LOGITS
from kdbench.training.evaluate import evaluate
from tests.support.course import Course


@pytest.mark.runs
def test_logits_are_in_full_precision_also_under_autocast(cpu: Compute, monkeypatch: pytest.MonkeyPatch) -> None:
    course = Course("vit", cpu)
    contender, seen = course.contender("kd"), list[Tensor]()

    def predict(student: Outputs) -> Tensor:
        seen.append(student.logits)
        return student.logits

    monkeypatch.setattr(contender.method, "predict", predict)
    monkeypatch.setattr(contender.method, "inference_needs", LOGITS)

    class Few:
        def __len__(self) -> int:
            return 4

        def batches(self, size: int) -> list[tuple[Tensor, Tensor]]:
            return [(torch.rand(4, 3, 32, 32) * 255, torch.arange(4))]

    evaluate(contender.student, Few(), 4, replace(cpu, precision="bf16"), contender.method)  # type: ignore[arg-type]
    assert seen[0].dtype == torch.float32
    assert not torch.equal(seen[0], seen[0].bfloat16().float())
    assert "forward" not in vars(contender.student.model.get_classifier())  # type: ignore[operator]
