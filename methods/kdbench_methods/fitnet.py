"""FitNet between any two architectures: the student's stages, mapped to the teacher's, regress onto them."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from kdbench.method import Batch, Feature, LogUniform, Method, Needs, Outputs, Pair, StageInfo
from kdbench_methods.parts.losses import kl_divergence
from kdbench_methods.parts.projectors import common_grid, common_stages, init_projector


class FitNet(Method):
    """FitNet / MSE: every stage of the student regresses onto the teacher's (Romero et al., arXiv 1412.6550, eq. 3).

    L = CE + weight * sum_k mean (project_k(F_s,k) - F_t,k)^2 + kd_weight * KD(T = 1). Heterogeneous projectors as in
    the OFA-KD tables (its issue 10); class tokens are dropped on both sides. Grids that do not divide each other, which
    that code refuses, are pooled to the smaller one. Between two token networks of which the teacher has more tokens,
    the code reshapes the widened tokens in raster order, so that a token of the student meets others than those of its
    own place; here they are those of its place, and the gradient is another one. The `crd` preset takes one hint, as
    RepDistiller does; its regressor's batch norm is left out.

    Attributes:
        stages: the hints.
        weight: weight of the feature term.
        kd_weight: weight of vanilla KD beside it; 0 is plain FitNet, some published numbers have 1.
    """

    kind = "feature"
    paper = "arXiv 1412.6550"
    venue = "ICLR 2015"
    published = ("FitNet",)
    presets = {"crd": {"stages": (3,), "weight": 100.0}}

    search_space = {"weight": LogUniform(0.01, 100)}

    stages: tuple[Annotated[int, Field(ge=1, le=4)], ...] = (1, 2, 3, 4)
    weight: float = 1.0
    kd_weight: float = 0.0

    def build(self, pair: Pair) -> None:
        stages = common_stages(pair, self.stages)
        self.hints = nn.ModuleDict({str(k): Hint(pair.student.stages[k], pair.teacher.stages[k]) for k in stages})
        self.student_needs = self.teacher_needs = Needs(stages=frozenset(stages))

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        errors = [hint(student.stages[int(k)], teacher.stages[int(k)]) for k, hint in self.hints.items()]
        terms = {
            "ce": batch.cross_entropy(student.logits),
            "hint": self.weight * torch.stack(errors).sum(),
        }
        if self.kd_weight:
            terms["kd"] = self.kd_weight * kl_divergence(student.logits, teacher.logits)
        return terms


class Hint(nn.Module):
    """Projects a student stage into the teacher's format and returns the mean squared error there.

    Tokens are maps on their grid here, so a linear layer on tokens is a 1x1 convolution.
    """

    def __init__(self, student: StageInfo, teacher: StageInfo) -> None:
        super().__init__()
        grid_s, grid_t = student.grid, teacher.grid
        up, down = _factor(grid_t, grid_s), _factor(grid_s, grid_t)
        self.fold_student = self.fold_teacher = self.unfold = 1
        kernel, width_in, width_out = 1, student.channels, teacher.channels
        maps_only = student.layout == teacher.layout == "map"
        self.pool = False
        if (up is None and down is None) or (maps_only and grid_s != grid_t):
            self.pool = True
        elif student.layout == "map" and down:
            kernel = down
        elif student.layout == "map" and up:
            self.fold_teacher, width_out = up, width_out * up**2
        elif up:
            self.unfold, width_out = up, width_out * up**2
        elif down:
            self.fold_student, width_in = down, width_in * down**2
        self.project = nn.Conv2d(width_in, width_out, kernel, stride=kernel, bias=not maps_only)
        init_projector(self)
        if student.layout == "tokens":
            nn.init.trunc_normal_(self.project.weight, std=0.02)

    def forward(self, student: Feature, teacher: Feature) -> Tensor:
        source, target = student.map, teacher.map
        if self.pool:
            # Pooling and a 1x1 convolution commute; the smaller grid is the cheaper place to project.
            source, target = common_grid(source, target)
        source = self.project(F.pixel_unshuffle(source, self.fold_student))
        return F.mse_loss(F.pixel_shuffle(source, self.unfold), F.pixel_unshuffle(target, self.fold_teacher))


def _factor(large: tuple[int, int], small: tuple[int, int]) -> int | None:
    """The whole number r with large = r * small in both directions, else None."""
    factor = large[0] // small[0]
    return factor if factor and large == (factor * small[0], factor * small[1]) else None
