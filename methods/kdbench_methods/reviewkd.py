"""ReviewKD: shallow stages of the teacher are learned by the student's deeper ones, too."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from kdbench.method import Batch, LogUniform, Method, Needs, Outputs, Pair
from kdbench_methods.parts.feature_losses import context_loss
from kdbench_methods.parts.losses import warm_up
from kdbench_methods.parts.projectors import common_stages


class ReviewKD(Method):
    """ReviewKD: fused student features learn stages and pooled feature (Chen et al., arXiv 2104.09044, section 3).

    L = ce_weight * CE + weight * ramp * sum_k HCL(G_k, F_t,k), deep to shallow, where ABF fuses the student's level k
    with what it made of level k + 1 into G_k, in the teacher's width and grid. ramp = min((epoch + 1) / warmup_epochs,
    1), as in mdistiller; the authors start at 0. Levels are the stages and the pooled feature, a map of one cell. Both
    codes take the teacher's features before the ReLU; here they are stage outputs, in timm's ResNets those after it.
    Extra parameters: about mid * (C_s + 9 * C_t) a level.

    Attributes:
        stages: beside the pooled feature. `crd` has the three groups of residual blocks, without the stem.
        weight: 1 for ResNet-34 -> ResNet-18 on ImageNet (8 for ResNet-50 -> MobileNet), 5 for most CIFAR pairs.
        ce_weight: weight of the hard-label loss.
        warmup_epochs: of the ramp; 1, that is none, on ImageNet, 20 on CIFAR. The OFA-KD code base has no ReviewKD: the
            defaults are those for ImageNet.
        mid_channels: width of the fusion, at most that of the student's pooled feature (authors; 256 for MobileNet).
    """

    kind = "feature"
    paper = "arXiv 2104.09044"
    venue = "CVPR 2021"
    published = ("ReviewKD",)
    presets = {"crd": {"stages": (2, 3, 4), "weight": 5.0, "warmup_epochs": 20}}

    search_space = {"weight": LogUniform(0.1, 30)}

    stages: tuple[Annotated[int, Field(ge=1, le=4)], ...] = (1, 2, 3, 4)
    weight: float = 1.0
    ce_weight: float = 1.0
    warmup_epochs: Annotated[int, Field(ge=1)] = 1
    mid_channels: Annotated[int, Field(ge=1)] = 512

    def build(self, pair: Pair) -> None:
        student, teacher = pair.student, pair.teacher
        self._stages = common_stages(pair, self.stages)[::-1]
        mid = min(self.mid_channels, student.pooled_width)
        self.fusions = nn.ModuleList([Fusion(student.pooled_width, mid, teacher.pooled_width, fuse=False)])
        for k in self._stages:
            self.fusions.append(Fusion(student.stages[k].channels, mid, teacher.stages[k].channels, fuse=True))
        self.student_needs = self.teacher_needs = Needs(frozenset(self._stages), pooled=True)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        losses, fused = [], None
        for fusion, own, target in zip(self.fusions, self._levels(student), self._levels(teacher), strict=True):
            result, fused = fusion(own, fused, target.shape[-2:])
            losses.append(context_loss(result, target))
        ramp = warm_up(batch, self.warmup_epochs)
        return {
            "ce": self.ce_weight * batch.cross_entropy(student.logits),
            "review": self.weight * ramp * torch.stack(losses).sum(),
        }

    def _levels(self, outputs: Outputs) -> list[Tensor]:
        """The pooled feature as a map of one cell, then the stages, deep to shallow."""
        return [outputs.pooled[:, :, None, None], *(outputs.stages[k].map for k in self._stages)]


class Fusion(nn.Module):
    """ABF: blends a level with the fused deeper ones by two learned gates; returns it for the teacher, and as it is."""

    def __init__(self, width: int, mid: int, teacher: int, fuse: bool) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.Conv2d(width, mid, 1, bias=False), nn.BatchNorm2d(mid))
        self.leave = nn.Sequential(nn.Conv2d(mid, teacher, 3, padding=1, bias=False), nn.BatchNorm2d(teacher))
        self.gate = nn.Sequential(nn.Conv2d(2 * mid, 2, 1), nn.Sigmoid()) if fuse else None
        for part in (*self.enter, *self.leave):
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_uniform_(part.weight, a=1)

    def forward(self, own: Tensor, deeper: Tensor | None, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        x = self.enter(own)
        if self.gate is not None and deeper is not None:
            deeper = F.interpolate(deeper, x.shape[-2:])
            gates = self.gate(torch.cat([x, deeper], dim=1))
            x = x * gates[:, :1] + deeper * gates[:, 1:]
        if x.shape[-2:] != grid:
            x = F.interpolate(x, grid)
        return self.leave(x), x
