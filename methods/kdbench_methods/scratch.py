"""Training without a teacher."""

from typing import ClassVar

from torch import Tensor

from kdbench.method import Batch, Method, Outputs
from kdbench.results.schema import Role


class Scratch(Method):
    """No teacher: the hard-label loss alone; gains are counted from here."""

    published: ClassVar[tuple[str, ...]] = ("scratch",)
    role: ClassVar[Role] = "control"
    teacher_needs = None

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        return {"ce": batch.cross_entropy(student.logits)}
