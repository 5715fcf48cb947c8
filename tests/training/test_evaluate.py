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


def test_hits_are_counted_by_class(cpu: Compute) -> None:
    """Of three classes in a split of two, one without images."""
    course = Course("vit", cpu)
    student = course.contender("scratch").student
    labels = torch.tensor([0, 2, 2, 2, 0, 0, 0])

    class Few:
        def __len__(self) -> int:
            return len(labels)

        def batches(self, size: int) -> list[tuple[Tensor, Tensor]]:
            images = torch.rand(7, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 255
            return list(zip(images.split(size), labels.split(size), strict=True))

    found = evaluate(student, Few(), 4, cpu)  # type: ignore[arg-type]
    assert found.class_images[:3] == [4, 0, 3] and sum(found.class_images) == 7
    right = torch.from_numpy(found.correct)
    assert found.class_hits[:3] == [int((right & (labels == number)).sum()) for number in range(3)]
    assert found.top1 == pytest.approx(100 * sum(found.class_hits) / 7)
    assert found.majority == pytest.approx(400 / 7)
