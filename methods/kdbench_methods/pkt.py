"""Probabilistic knowledge transfer: how likely each image is another's neighbour."""

from torch import Tensor

from kdbench.method import Batch, LogUniform, Method, Needs, Outputs, gather
from kdbench_methods.parts.precision import full_precision
from kdbench_methods.parts.relations import cosines

EPSILON = 1e-7
"""Of the released code; images in opposite directions have probability zero."""


class PKT(Method):
    """PKT: the probability of images being neighbours, in pooled-feature space (Passalis and Tefas, arXiv 1803.10837).

    L = ce_weight * CE + weight / B^2 * sum_ij p_ij^t log(p_ij^t / p_ij^s), with p_ij = k_ij / sum_j k_ij and the kernel
    k_ij = (cos(f_i, f_j) + 1) / 2 (section 3).

    Weight: RepDistiller's. The paper leaves each image out of its own neighbours and sums; the authors' code, which is
    followed, keeps it and takes the mean, whence the large weight. It also adds 1e-7 to the norms of the features,
    which is left out (a difference of about 6e-6 of the loss). No extra parameters. In a distributed run the images of
    all processes are compared.

    Attributes:
        ce_weight, weight: weights of the terms.
    """

    kind = "relation"
    paper = "arXiv 1803.10837"
    venue = "ECCV 2018"
    published = ("PKT",)

    search_space = {"weight": LogUniform(300, 300000)}

    ce_weight: float = 1.0
    weight: float = 30000.0

    student_needs = teacher_needs = Needs(pooled=True)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        return {
            "ce": self.ce_weight * batch.cross_entropy(student.logits),
            "pkt": self.weight * pkt_loss(student.pooled, teacher.pooled),
        }


@full_precision
def pkt_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """The loss of features (B, D_s) and (B, D_t)."""
    p_s, p_t = _neighbours(student), _neighbours(teacher)
    return (p_t * ((p_t + EPSILON) / (p_s + EPSILON)).log()).mean()


def _neighbours(x: Tensor) -> Tensor:
    """Probabilities (B, N), each row of an image and its neighbours among all."""
    kernel = (cosines(x, gather(x)) + 1) / 2
    return kernel / kernel.sum(dim=1, keepdim=True)
