"""Training without a teacher."""

from torch import Tensor

from kdbench.method import Batch, Method, Outputs


class Scratch(Method):
    """No teacher: the hard-label loss alone; gains are counted from here."""

    published = ("scratch",)
    role = "control"
    teacher_needs = None

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        return {"ce": batch.cross_entropy(student.logits)}
