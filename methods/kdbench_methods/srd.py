"""SRD: a linear projector, batch norm without affine parameters, and the logarithm of a sum."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from kdbench.method import Batch, LogUniform, Method, Needs, Outputs, Pair
from kdbench_methods.parts.losses import kl_divergence


class SRD(Method):
    """SRD: the simple recipe, pooled features through a linear projector (Miles & Mikolajczyk, arXiv 2303.11098).

    L = CE + weight * log sum_b,d |n(W f_s) - n(f_t)|_b,d^exponent + kd_weight * KL(T = 1), n the standardisation of
    each dimension over the batch (batch norm without affine parameters), the logarithm a soft maximum that spares the
    student the easy dimensions. It needs both pooled features and costs D_s * D_t parameters; each process normalises
    by its own images.

    Defaults are those of the released ImageNet code (ResNet34 -> ResNet18): weight 2, exponent 4, eps 1e-4. The layer's
    bias is left out, as batch norm cancels it. The code for DeiT has another loss, of the correlation of each dimension
    with the teacher's, and torchdistill's class another default (exponent 1, but 4 in its configuration).

    Attributes:
        weight: weight of the feature term.
        kd_weight: weight of the KL term.
        exponent: of the absolute differences.
    """

    kind = "feature"
    paper = "arXiv 2303.11098"
    venue = "AAAI 2024"
    published = ("SRD",)
    student_needs = teacher_needs = Needs(pooled=True)

    search_space = {"weight": LogUniform(0.1, 10), "kd_weight": LogUniform(0.1, 10)}

    weight: float = 2.0
    kd_weight: float = 1.0
    exponent: Annotated[float, Field(ge=1)] = 4.0

    def build(self, pair: Pair) -> None:
        self.project = nn.Linear(pair.student.pooled_width, pair.teacher.pooled_width, bias=False)
        if not self.weight:
            self.starved = {"project": "its weight is 0"}

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        error = log_sum_error(self.project(student.pooled), teacher.pooled, self.exponent)
        return {
            "ce": batch.cross_entropy(student.logits),
            "feature": self.weight * error,
            "kd": self.kd_weight * kl_divergence(student.logits, teacher.logits),
        }


def log_sum_error(student: Tensor, teacher: Tensor, exponent: float) -> Tensor:
    """log sum |s - t|^exponent of features (B, D), each dimension standardised over the batch."""
    s, t = (F.batch_norm(x, None, None, training=True, eps=1e-4) for x in (student, teacher))
    total = (s - t).abs().pow(exponent).sum()
    return total.clamp_min(torch.finfo(total.dtype).tiny).log()
