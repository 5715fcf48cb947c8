"""Correlation congruence: how far student and teacher are apart, from one image to the next."""

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from kdbench.method import Batch, LogUniform, Method, Needs, Outputs, Pair
from kdbench_methods.parts.precision import full_precision


class CC(Method):
    """CC: correlations between adjacent images of the batch, in a common space (Peng et al., arXiv 1904.01802).

    L = ce_weight * CE + weight * 1 / (B - 1) sum_b <|e_b^s - e_b^t|, |e_b+1^s - e_b+1^t|>, with e a linear map of the
    pooled feature to `width` dimensions, one for each network.

    The paper compares two (B, B) matrices of Gaussian kernels (section 3), approximated by Taylor series. RepDistiller
    has this simpler term from the authors, OFA-KD has it from there, both with these values; the published numbers are
    of it. It is followed, with its initialisation (torch's), which sets the scale of the loss. Shrinking the embeddings
    lowers the term, too. Extra parameters: width * (D_s + D_t + 2). In a distributed run each process looks at its own
    images: which are adjacent is chance anyway.

    Attributes:
        ce_weight, weight: weights of the terms.
        width: of the common space.
    """

    kind = "relation"
    paper = "arXiv 1904.01802"
    venue = "ICCV 2019"
    published = ("CC",)

    search_space = {"weight": LogUniform(0.002, 2)}

    ce_weight: float = 1.0
    weight: float = 0.02
    width: Annotated[int, Field(ge=1)] = 128

    student_needs = teacher_needs = Needs(pooled=True)

    def build(self, pair: Pair) -> None:
        self.embed_s = nn.Linear(pair.student.pooled_width, self.width)
        self.embed_t = nn.Linear(pair.teacher.pooled_width, self.width)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        return {
            "ce": self.ce_weight * batch.cross_entropy(student.logits),
            "cc": self.weight * cc_loss(self.embed_s(student.pooled), self.embed_t(teacher.pooled)),
        }


@full_precision
def cc_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """The loss of embeddings (B, width); 0 for a single image."""
    apart = (student - teacher).abs()
    return (apart[:-1] * apart[1:]).sum() / max(len(apart) - 1, 1)
