"""NST: what the channels of a stage are selective for, as a distribution."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from kdbench.method import Batch, LogUniform, Method, Needs, Outputs, Pair
from kdbench_methods.parts.precision import full_precision
from kdbench_methods.parts.projectors import common_grid, common_stages


class NST(Method):
    """NST: mean discrepancy of what channels respond to, over the grid (Huang and Wang, arXiv 1707.01219, section 4).

    L = ce_weight * CE + weight * sum_k MMD^2_k, MMD^2 = E k(t, t') + E k(s, s') - 2 E k(s, t), mean over images; s and
    t are the channels of an image, each scaled to length 1 over the grid, and k(a, b) = (a . b)^2, the polynomial
    kernel with d = 2, c = 0. Stages whose common grid is a single cell are left out. No parameters, no further passes;
    memory is B * n^2 for each pair of features, where n is the smaller of the number of cells and that of channels.
    The reference codes form B * C^2 * H * W products.

    Attributes:
        stages: whose channels are compared. The authors' code takes the last alone, RepDistiller and mdistiller all.
            `crd` has the three groups of residual blocks, without the stem.
        weight: 50 in the authors' code (ImageNet) and RepDistiller (CIFAR); the OFA-KD code base has no NST.
        ce_weight: weight of the hard-label loss.
    """

    kind = "feature"
    paper = "arXiv 1707.01219"
    venue = "arXiv 2017"
    published = ("NST",)
    presets = {"crd": {"stages": (2, 3, 4)}}

    search_space = {"weight": LogUniform(0.5, 500)}

    stages: tuple[Annotated[int, Field(ge=1, le=4)], ...] = (1, 2, 3, 4)
    weight: float = 50.0
    ce_weight: float = 1.0

    def build(self, pair: Pair) -> None:
        self._stages = common_stages(pair, self.stages, cells=2)
        self.student_needs = self.teacher_needs = Needs(stages=frozenset(self._stages))

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        losses = [selectivity_loss(student.stages[k].map, teacher.stages[k].map) for k in self._stages]
        return {
            "ce": self.ce_weight * batch.cross_entropy(student.logits),
            "selectivity": self.weight * torch.stack(losses).sum(),
        }


@full_precision
def selectivity_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """MMD^2 of the channels of two features (B, C, H, W), on the smaller of their grids.

    In half precision the small difference of the kernels would be lost.
    """
    s, t = (F.normalize(x.flatten(2), dim=2) for x in common_grid(student, teacher))
    if s.shape[2] > max(s.shape[1], t.shape[1]):
        return _kernel(t, t) + _kernel(s, s) - 2 * _kernel(s, t)
    # sum_ij (s_i . t_j)^2 is the inner product of the Gram matrices of the cells: the three terms are one distance.
    gram_s, gram_t = (x.transpose(1, 2) @ x / x.shape[1] for x in (s, t))
    return F.mse_loss(gram_s, gram_t, reduction="sum") / len(s)


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b.transpose(1, 2)).pow(2).mean()
