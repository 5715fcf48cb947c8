"""VID: the student's stages predict the teacher's, with a variance for each channel."""

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from kdbench.method import Batch, LogUniform, Method, Needs, Outputs, Pair
from kdbench_methods.parts.projectors import common_grid, common_stages


class VID(Method):
    """VID: a variational bound of the mutual information of the stages (Ahn et al., arXiv 1904.05835, section 2).

    L = ce_weight * CE + weight * sum_k mean [(mu_k(F_s,k) - F_t,k)^2 / v_k + log v_k] / 2, the negative log-likelihood
    of the teacher's feature under a Gaussian without its constant: mu_k are three 1x1 convolutions with ReLUs between,
    v_k = softplus(alpha_k) + eps is learned for each channel. The mean over cells and channels is that of RepDistiller
    and mdistiller; the paper sums. Extra parameters: C_t * (C_s + 2 C_t + 1) a stage. alpha is trained, as in
    RepDistiller; mdistiller hands it to no optimizer.

    Attributes:
        stages: whose features are predicted. `crd` has the three groups of residual blocks, without the stem.
        weight: of the sum (RepDistiller, mdistiller); the OFA-KD code base has no VID.
        ce_weight: weight of the hard-label loss.
        init_variance: v at the start (RepDistiller).
        eps: the least v (RepDistiller).
    """

    kind = "feature"
    paper = "arXiv 1904.05835"
    venue = "CVPR 2019"
    published = ("VID",)
    presets = {"crd": {"stages": (2, 3, 4)}}

    search_space = {"weight": LogUniform(0.01, 100)}

    stages: tuple[Annotated[int, Field(ge=1, le=4)], ...] = (1, 2, 3, 4)
    weight: float = 1.0
    ce_weight: float = 1.0
    init_variance: Annotated[float, Field(gt=1e-3)] = 5.0
    eps: Annotated[float, Field(gt=0, lt=1e-3)] = 1e-5

    def build(self, pair: Pair) -> None:
        self.predictors = nn.ModuleDict()
        for k in common_stages(pair, self.stages):
            widths = pair.student.stages[k].channels, pair.teacher.stages[k].channels
            self.predictors[str(k)] = Predictor(*widths, self.init_variance, self.eps)
        self.student_needs = self.teacher_needs = Needs(stages=frozenset(map(int, self.predictors)))

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        losses = [p(student.stages[int(k)].map, teacher.stages[int(k)].map) for k, p in self.predictors.items()]
        return {
            "ce": self.ce_weight * batch.cross_entropy(student.logits),
            "information": self.weight * torch.stack(losses).sum(),
        }


class Predictor(nn.Module):
    """The Gaussian of a teacher's feature given the student's; returns the negative log-likelihood, mean per number."""

    def __init__(self, student: int, teacher: int, variance: float, eps: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in (student, teacher, teacher):
            layers += [nn.Conv2d(width, teacher, 1, bias=False), nn.ReLU()]
        self.mean = nn.Sequential(*layers[:-1])
        self.alpha = nn.Parameter(torch.full((teacher, 1, 1), math.log(math.expm1(variance - eps))))
        self.eps = eps

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        source, target = common_grid(student, teacher)
        variance = F.softplus(self.alpha) + self.eps
        return ((self.mean(source) - target).pow(2) / variance + variance.log()).mean() / 2
