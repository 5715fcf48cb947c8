"""Similarity-preserving KD: which images activate the last stage alike."""

from torch import Tensor
from torch.nn import functional as F

from kdbench.method import Batch, LogUniform, Method, Needs, Outputs, gather
from kdbench_methods.parts.precision import full_precision
from kdbench_methods.parts.relations import gram


class SP(Method):
    """SP: the batch's similarity matrix in the last stage's activations (Tung and Mori, arXiv 1907.09682, section 3).

    L = ce_weight * CE + weight / B^2 * |G^s - G^t|_F^2, with G = F F^T of the flattened stage-4 maps (B, C * H * W),
    each row divided by its Euclidean norm.

    Weight: gamma of the paper and of RepDistiller. Widths and grids need not agree; tokens are taken without class and
    register tokens. No extra parameters. In a distributed run the images of all processes are compared.

    Attributes:
        ce_weight, weight: weights of the terms.
    """

    kind = "relation"
    paper = "arXiv 1907.09682"
    venue = "ICCV 2019"
    published = ("SP",)

    search_space = {"weight": LogUniform(30, 30000)}

    ce_weight: float = 1.0
    weight: float = 3000.0

    student_needs = teacher_needs = Needs(stages=frozenset({4}))

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        return {
            "ce": self.ce_weight * batch.cross_entropy(student.logits),
            "sp": self.weight * sp_loss(student.stages[4].map, teacher.stages[4].map),
        }


@full_precision
def sp_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """The loss of activations (B, ...)."""
    student, teacher = (F.normalize(gram(x, gather(x)), dim=1) for x in (student, teacher))
    return F.mse_loss(student, teacher)
