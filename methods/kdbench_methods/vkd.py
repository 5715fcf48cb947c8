"""VkD: an orthogonal projector, so that the student cannot learn the teacher's features in the projector alone."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdbench.method import Batch, LogUniform, Method, Needs, Outputs, Pair
from kdbench_methods.parts.losses import kl_divergence


class VkD(Method):
    """VkD: pooled features through an orthogonal projector (Miles, Elezi & Deng, arXiv 2403.06213).

    L = CE + weight * smooth_l1(P f_s, layer_norm(f_t)) + kd_weight * KL(T = 1). P (D_t x D_s) has orthonormal columns
    throughout the training (rows where the student is wider): it preserves the student's distances. It needs both
    pooled features and costs D_s * D_t parameters and a QR decomposition of them a step.

    Distance, normalisation and defaults are those of the released code for DeiT. There the student's feature is the
    mean of its tokens and the KL that of a distillation head; here they are what the classifier is given and its
    logits, as the student has no second head. P is torch's `orthogonal` parametrisation there, a product of Householder
    reflections whose signs weight decay sets to 0, and P with them; here it is the Q of a free matrix, which runs over
    the same matrices at a small part of the time.

    Attributes:
        weight: weight of the feature term (alpha in the code).
        kd_weight: weight of the KL term (gamma in the code).
    """

    kind = "feature"
    paper = "arXiv 2403.06213"
    venue = "CVPR 2024"
    published = ("VkD",)
    student_needs = teacher_needs = Needs(pooled=True)

    search_space = {"weight": LogUniform(0.1, 10), "kd_weight": LogUniform(0.1, 10)}

    weight: float = 1.0
    kd_weight: float = 1.0

    def build(self, pair: Pair) -> None:
        self.project = Orthogonal(pair.student.pooled_width, pair.teacher.pooled_width)
        if not self.weight:
            self.starved = {"project": "its weight is 0"}

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        target = F.layer_norm(teacher.pooled, teacher.pooled.shape[1:])
        return {
            "ce": batch.cross_entropy(student.logits),
            "feature": self.weight * F.smooth_l1_loss(self.project(student.pooled), target),
            "kd": self.kd_weight * kl_divergence(student.logits, teacher.logits),
        }


class Orthogonal(nn.Module):
    """A linear map whose matrix has orthonormal columns, or rows where it narrows."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.free = nn.Parameter(nn.init.orthogonal_(torch.empty(max(before, after), min(before, after))))
        self.widens = after >= before

    @property
    def weight(self) -> Tensor:
        """The matrix (after, before): Q of the QR decomposition with a positive diagonal of R, which is unique."""
        q, r = torch.linalg.qr(self.free)
        q = q * r.diagonal().sign()
        return q if self.widens else q.T

    def forward(self, features: Tensor) -> Tensor:
        return F.linear(features, self.weight)
