"""RSD: each dimension of the teacher's feature is predicted, and only once."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from kdbench.method import Batch, LogUniform, Method, Needs, Outputs, Pair, gather
from kdbench_methods.parts.precision import full_precision
from kdbench_methods.parts.projectors import init_projector


class RSD(Method):
    """RSD: the cross-correlation of projected student and teacher features is made the identity (arXiv 2507.21844).

    L = ce_weight * CE + weight * [sum_i (R_ii - 1)^2 + kappa * sum_i!=j R_ij^2], with R = T^T S / B (D_t, D_t), S and T
    the projected pooled feature of the student and the teacher's, each dimension standardised over the batch:
    (x - mean) / (std + 1e-5), std of the population. Projector: linear to expansion * D_s, batch norm, GELU, linear to
    D_t, both without bias.

    All defaults are those of the released code; there is no logit term. The loss is a sum and grows with D_t. Extra
    parameters: expansion * D_s * (D_s + D_t + 2); one (D_t, D_t) matrix a batch. In a distributed run statistics are
    taken, and features projected, over the images of all processes; the released code sees those of each process.

    Attributes:
        ce_weight, weight: weights of the terms (weight: lambda).
        kappa: weight of the redundancy between different dimensions.
        expansion: hidden width of the projector, in widths of the student's feature.
    """

    kind = "feature"
    paper = "arXiv 2507.21844"
    venue = "ICCV 2025"
    published = ("RSD",)

    search_space = {"weight": LogUniform(0.01, 1), "kappa": LogUniform(0.001, 0.1)}

    ce_weight: float = 1.0
    weight: float = 0.1
    kappa: Annotated[float, Field(ge=0)] = 0.01
    expansion: Annotated[int, Field(ge=1)] = 2

    student_needs = teacher_needs = Needs(pooled=True)

    def build(self, pair: Pair) -> None:
        width, hidden = pair.student.pooled_width, self.expansion * pair.student.pooled_width
        self.project = nn.Sequential(
            nn.Linear(width, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.GELU(),
            nn.Linear(hidden, pair.teacher.pooled_width, bias=False),
        )
        init_projector(self)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        loss = rsd_loss(self.project(gather(student.pooled)), gather(teacher.pooled), self.kappa)
        return {"ce": self.ce_weight * batch.cross_entropy(student.logits), "rsd": self.weight * loss}


@full_precision
def rsd_loss(student: Tensor, teacher: Tensor, kappa: float) -> Tensor:
    """The loss of features (B, D)."""
    student, teacher = ((x - x.mean(dim=0)) / (x.std(dim=0, correction=0) + 1e-5) for x in (student, teacher))
    correlation = teacher.T @ student / len(student)
    diagonal = correlation.diagonal()
    invariance = (diagonal - 1).square().sum()
    redundancy = (correlation - torch.diag(diagonal)).square().sum()
    return invariance + kappa * redundancy
