"""ITRD: features correlate with the teacher's, and images are alike where the teacher finds them alike."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from kdbench.method import Batch, LogUniform, Method, Needs, Outputs, Pair, gather
from kdbench_methods.parts.precision import full_precision
from kdbench_methods.parts.relations import gram


class ITRD(Method):
    """ITRD: information-theoretic distillation of pooled features (Miles et al., arXiv 2112.00459, section 3).

    L = ce_weight * CE + correlation_weight * log2 sum_d |c_d - 1|^(2 alpha) + mutual_weight * sum_ij (S_ij^2 - J_ij^2).
    c_d is the correlation over the batch of dimension d of P f_s and f_t, P a linear layer; S is the Gram matrix of the
    images' student features of length 1, J its product, entry by entry, with the teacher's, both of trace 1: the last
    term is a Renyi entropy of order 2, of the student less that of both. Where the widths agree, S is of f_s itself.
    Costs (D_s + 1) * D_t parameters.

    As in the released code (roymiles/ITRD) c is a sum over sample deviations divided by the B images. Its defaults are
    the defaults here; the `crd` preset is its README's example (alpha 1.01 and mutual weight 1, for networks of one
    kind). A dimension that does not vary in the batch counts as uncorrelated, where the code divides by 0.

    Attributes:
        alpha: order of the correlation term.
        correlation_weight, mutual_weight: weights of the two terms.
        ce_weight: weight of the hard-label loss.
    """

    kind = "relation"
    paper = "arXiv 2112.00459"
    venue = "BMVC 2022"
    published = ("ITRD",)
    student_needs = teacher_needs = Needs(pooled=True)
    presets = {"crd": {"alpha": 1.01, "mutual_weight": 1.0}}

    search_space = {"correlation_weight": LogUniform(0.1, 10), "mutual_weight": LogUniform(0.01, 10)}

    alpha: Annotated[float, Field(gt=0)] = 1.5
    correlation_weight: float = 2.0
    mutual_weight: float = 0.05
    ce_weight: float = 1.0

    def build(self, pair: Pair) -> None:
        student, teacher = pair.student.pooled_width, pair.teacher.pooled_width
        self.project = nn.Linear(student, teacher)
        self._same = student == teacher
        # It shifts each dimension by a constant, which the correlation does not see.
        self.starved = {"project.bias": "the correlation does not depend on it"} if self._same else {}
        if not (self.correlation_weight or (self.mutual_weight and not self._same)):
            self.starved = {"project": "its weights are 0"}

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        f_t, projected = gather(teacher.pooled), gather(self.project(student.pooled))
        f_s = gather(student.pooled) if self._same else projected
        return {
            "ce": self.ce_weight * batch.cross_entropy(student.logits),
            "correlation": self.correlation_weight * correlation_loss(projected, f_t, self.alpha),
            "mutual": self.mutual_weight * mutual_loss(f_s, f_t),
        }


@full_precision
def correlation_loss(student: Tensor, teacher: Tensor, alpha: float) -> Tensor:
    """log2 sum_d |c_d - 1|^(2 alpha) of the correlations of the dimensions of features (B, D)."""
    s, t = ((x - x.mean(dim=0)) / x.var(dim=0).clamp_min(1e-12).sqrt() for x in (student, teacher))
    total = ((s * t).mean(dim=0) - 1).square().pow(alpha).sum()
    return total.clamp_min(torch.finfo(total.dtype).tiny).log2()


@full_precision
def mutual_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """sum_ij (S_ij^2 - J_ij^2) of features (B, D) and (B, D')."""
    own, theirs = (gram(x, x) for x in (F.normalize(student, dim=1), F.normalize(teacher, dim=1)))
    both = own * theirs
    return (own / own.trace()).square().sum() - (both / both.trace()).square().sum()
