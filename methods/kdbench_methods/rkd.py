"""Relational KD: distances and angles between the images of a batch."""

import torch
from torch import Tensor
from torch.nn import functional as F

from kdbench.method import Batch, LogUniform, Method, Needs, Outputs, gather
from kdbench_methods.parts.precision import full_precision
from kdbench_methods.parts.relations import displacements


class RKD(Method):
    """RKD: distances and angles between images in pooled-feature space (Park et al., arXiv 1904.05068, section 3).

    L = ce_weight * CE + distance_weight * mean_ij h(d_ij^s / mu^s, d_ij^t / mu^t)
    + angle_weight * mean_ijk h(cos_ijk^s, cos_ijk^t), with h the Huber loss (smooth L1), d_ij = |f_i - f_j|, mu its
    mean over different images, cos_ijk = <e_ij, e_ik>, e_ij = (f_j - f_i) / d_ij.

    The weights are those of the paper's classification experiments, of RepDistiller, mdistiller and OFA-KD. The paper
    sums over tuples of different images; these code bases, which are followed, take means over all tuples, of which
    those that repeat an image add nothing. No extra parameters; memory for B^3 angles. In a distributed run the images
    of all processes are compared.

    Attributes:
        ce_weight, distance_weight, angle_weight: weights of the terms.
    """

    kind = "relation"
    paper = "arXiv 1904.05068"
    venue = "CVPR 2019"
    published = ("RKD",)

    search_space = {
        "distance_weight": LogUniform(2.5, 250),
        "angle_weight": LogUniform(5, 500),
    }

    ce_weight: float = 1.0
    distance_weight: float = 25.0
    angle_weight: float = 50.0

    student_needs = teacher_needs = Needs(pooled=True)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        distance, angle = rkd_losses(student.pooled, teacher.pooled)
        return {
            "ce": self.ce_weight * batch.cross_entropy(student.logits),
            "distance": self.distance_weight * distance,
            "angle": self.angle_weight * angle,
        }


@full_precision
def rkd_losses(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """The distance and the angle loss of features (B, D_s) and (B, D_t)."""
    distance_s, angle_s = _relations(student)
    distance_t, angle_t = _relations(teacher)
    return F.smooth_l1_loss(distance_s, distance_t), F.smooth_l1_loss(angle_s, angle_t)


def _relations(x: Tensor) -> tuple[Tensor, Tensor]:
    """Distances (B, N) in units of their mean, and cosines (B, N, N) of the angles at each of the B images."""
    distance, direction = displacements(x, gather(x))
    # The mean over all processes; an image has no distance from itself.
    total, count = gather(torch.stack([distance.sum(), (distance > 0).sum()])[None]).sum(dim=0)
    mean = (total / count.clamp(min=1)).clamp(min=1e-12)
    return distance / mean, direction @ direction.transpose(1, 2)
