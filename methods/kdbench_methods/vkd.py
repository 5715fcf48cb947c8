"""VkD: an orthogonal projector, so that the student cannot learn the teacher's features in the projector alone."""

from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import orthogonal

from kdbench.method import Batch, Kind, LogUniform, Method, Needs, Outputs, Pair, SearchSpace
from kdbench_methods.losses import kl_divergence


class VkD(Method):
    """VkD: pooled features through an orthogonal projector (Miles, Elezi & Deng, arXiv 2403.06213).

    L = CE + weight * smooth_l1(P f_s, layer_norm(f_t)) + kd_weight * KL(T = 1). P (D_t x D_s) has orthonormal columns
    throughout the training (rows where the student is wider): it preserves the student's distances. It needs both
    pooled features and costs D_s * D_t parameters and a product of Householder reflections a step.

    Distance, normalisation and defaults are those of the released code for DeiT. There the student's feature is the
    mean of its tokens and the KL that of a distillation head; here they are what the classifier is given and its
    logits, as the student has no second head.

    Attributes:
        weight: weight of the feature term (alpha in the code).
        kd_weight: weight of the KL term (gamma in the code).
    """

    kind: ClassVar[Kind] = "feature"
    paper: ClassVar[str] = "arXiv 2403.06213"
    venue: ClassVar[str] = "CVPR 2024"
    published: ClassVar[tuple[str, ...]] = ("VkD",)
    student_needs = teacher_needs = Needs(pooled=True)

    search_space: ClassVar[SearchSpace] = {"weight": LogUniform(0.1, 10), "kd_weight": LogUniform(0.1, 10)}

    weight: float = 1.0
    kd_weight: float = 1.0

    def build(self, pair: Pair) -> None:
        self.project = orthogonal(nn.Linear(pair.student.pooled_width, pair.teacher.pooled_width, bias=False))
        if not self.weight:
            self.starved = {"project": "its weight is 0"}

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        assert student.pooled is not None and teacher.pooled is not None
        target = F.layer_norm(teacher.pooled, teacher.pooled.shape[1:])
        return {
            "ce": batch.cross_entropy(student.logits),
            "feature": self.weight * F.smooth_l1_loss(self.project(student.pooled), target),
            "kd": self.kd_weight * kl_divergence(student.logits, teacher.logits),
        }
