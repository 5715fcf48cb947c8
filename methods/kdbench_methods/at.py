"""AT: where the networks are active, stage by stage."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from kdbench.method import Batch, LogUniform, Method, Needs, Outputs, Pair
from kdbench_methods.parts.projectors import common_grid, common_stages


class AT(Method):
    """AT: activation-based attention maps of the stages (Zagoruyko and Komodakis, arXiv 1612.03928, section 3.1).

    L = ce_weight * CE + weight * sum_k mean (A(F_s,k) - A(F_t,k))^2, where A(F) is sum_c F_c^2 over the grid, scaled to
    length 1, and the mean is over cells and images. Eq. 2 of the paper has the norm of the difference, times beta / 2;
    the authors' code and those after it have the mean of its squares times beta, which is followed. So a stage weighs
    more, the fewer cells it has. Stages whose common grid is a single cell are left out: their maps are always equal.
    No parameters, no further passes.

    Attributes:
        stages: whose maps are compared. `crd` has the three groups of residual blocks, without the stem.
        weight: beta. 1000 both with 32 px CIFAR (RepDistiller) and with ImageNet (authors, mdistiller), on grids of 7x7
            and finer. The OFA-KD code base has no AT, so that the default is theirs; coarser grids may want less.
        ce_weight: weight of the hard-label loss.
    """

    kind = "feature"
    paper = "arXiv 1612.03928"
    venue = "ICLR 2017"
    published = ("AT",)
    presets = {"crd": {"stages": (2, 3, 4)}}

    search_space = {"weight": LogUniform(10, 10000)}

    stages: tuple[Annotated[int, Field(ge=1, le=4)], ...] = (1, 2, 3, 4)
    weight: float = 1000.0
    ce_weight: float = 1.0

    def build(self, pair: Pair) -> None:
        self._stages = common_stages(pair, self.stages, cells=2)
        self.student_needs = self.teacher_needs = Needs(stages=frozenset(self._stages))

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        losses = [attention_loss(student.stages[k].map, teacher.stages[k].map) for k in self._stages]
        return {
            "ce": self.ce_weight * batch.cross_entropy(student.logits),
            "attention": self.weight * torch.stack(losses).sum(),
        }


def attention_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of the attention maps of two features (B, C, H, W), on the smaller of their grids."""
    one, other = (F.normalize(x.pow(2).mean(dim=1).flatten(1)) for x in common_grid(student, teacher))
    return F.mse_loss(one, other)
