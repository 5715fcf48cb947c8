"""OFA-KD: every stage of the student gets a head into logit space and learns the teacher's logits there."""

import math
from itertools import pairwise
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from kdbench.method import (
    Batch,
    Choice,
    Feature,
    Kind,
    LogUniform,
    Method,
    Needs,
    Outputs,
    Pair,
    SearchSpace,
    StageInfo,
    UnsupportedPair,
)
from kdbench_methods.losses import ofa_loss
from kdbench_methods.projectors import init_projector


class OFA(Method):
    """OFA-KD: stage heads project every student stage into logit space (Hao et al., arXiv 2310.19444, section 3).

    L = ce_weight * CE + kd_weight * ofa(z_s, z_t) + ofa_weight * sum_k ofa(head_k(F_k), z_t), with the modulated loss
    of the released code. Defaults are those of its train.py; its author ran CIFAR-100 with `ofa_weight` 0.1 (issues 14
    and 32, the `ofa-cifar100` preset) and DeiT-T -> ResNet18 on ImageNet with gamma 1.5.

    Attributes:
        stages: student stages with a head.
        gamma: modulation, one value or one for every stage and a last one for the logits.
        temperature: T, without the factor T^2.
        ce_weight, kd_weight, ofa_weight: weights of the terms.
    """

    kind: ClassVar[Kind] = "logit"
    paper: ClassVar[str] = "arXiv 2310.19444"
    venue: ClassVar[str] = "NeurIPS 2023"
    published: ClassVar[tuple[str, ...]] = ("OFA",)
    presets: ClassVar[dict[str, dict[str, Any]]] = {"ofa-cifar100": {"ofa_weight": 0.1}}

    search_space: ClassVar[SearchSpace] = {
        "gamma": Choice(((1.0,), (1.1,), (1.2,), (1.3,), (1.4,), (1.5,))),
        "kd_weight": LogUniform(0.1, 10),
        "ofa_weight": LogUniform(0.01, 10),
    }

    stages: tuple[Annotated[int, Field(ge=1, le=4)], ...] = (1, 2, 3, 4)
    gamma: tuple[Annotated[float, Field(gt=0)], ...] = (1.0,)
    temperature: Annotated[float, Field(gt=0)] = 1.0
    ce_weight: float = 1.0
    kd_weight: float = 1.0
    ofa_weight: float = 1.0

    def build(self, pair: Pair) -> None:
        student, classes = pair.student, pair.task.num_classes
        stages = [k for k in self.stages if k in student.stages]
        if len(self.gamma) not in (1, len(stages) + 1):
            raise UnsupportedPair(f"gamma needs 1 or {len(stages) + 1} values here, it has {len(self.gamma)}")
        self._gamma = self.gamma * (len(stages) + 1) if len(self.gamma) == 1 else self.gamma
        width = max(student.pooled_width, pair.teacher.pooled_width)
        self.heads = nn.ModuleDict()
        for k in stages:
            info = student.stages[k]
            if info.layout == "map":
                self.heads[str(k)] = MapHead(info, width, classes)
            else:
                self.heads[str(k)] = TokenHead(info, student.pooled_width, classes)
        init_projector(self.heads)
        self.student_needs = Needs(stages=frozenset(stages))

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        stage_terms = [
            ofa_loss(head(student.stages[int(k)]), teacher.logits, batch.labels, gamma, self.temperature)
            for gamma, (k, head) in zip(self._gamma, self.heads.items(), strict=False)
        ]
        logit_term = ofa_loss(student.logits, teacher.logits, batch.labels, self._gamma[-1], self.temperature)
        terms = {
            "ce": self.ce_weight * batch.cross_entropy(student.logits),
            "kd": self.kd_weight * logit_term,
        }
        if stage_terms:
            terms["ofa"] = self.ofa_weight * torch.stack(stage_terms).sum()
        return terms


class MapHead(nn.Module):
    """Head of a convolutional stage: (4 - k) halving separable convolutions up to `width`, pooling, classifier."""

    def __init__(self, info: StageInfo, width: int, classes: int) -> None:
        super().__init__()
        count, channels = 4 - info.stage, info.channels
        widths = [*(channels * 2 ** (i + 1) for i in range(count - 1)), width]
        if count:
            blocks = [separable(a, b) for a, b in zip([channels, *widths], widths, strict=False)]
        else:
            blocks = [nn.Conv2d(channels, width, 1)]
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(width, classes)

    def forward(self, feature: Feature) -> Tensor:
        return self.classifier(F.adaptive_avg_pool2d(self.blocks(feature.map), 1).flatten(1))


def separable(channels: int, width: int) -> nn.Sequential:
    """Two depthwise-separable convolutions; the first halves the grid, the second sets the width."""

    def half(stride: int, out: int) -> list[nn.Module]:
        depthwise = nn.Conv2d(channels, channels, 3, stride, padding=1, groups=channels, bias=False)
        pointwise = nn.Conv2d(channels, out, 1, bias=False)
        return [depthwise, pointwise, nn.BatchNorm2d(out), nn.ReLU()]

    return nn.Sequential(*half(2, channels), *half(1, width))


class TokenHead(nn.Module):
    """Head of a token stage: patch mergings down to about a 7x7 grid, (4 - k) transformer blocks, classifier."""

    def __init__(self, info: StageInfo, width: int, classes: int) -> None:
        super().__init__()
        mergings = max(0, math.floor(math.log2(min(info.grid) / 7)))
        widths = [info.channels, *[width] * mergings]
        self.merge = nn.ModuleList(
            Merge(before, after, activate=mergings == 1 or i < mergings - 1)
            for i, (before, after) in enumerate(pairwise(widths))
        )
        heads = math.gcd(4, widths[-1])
        self.blocks = nn.Sequential(*(Block(widths[-1], heads, qkv_bias=False) for _ in range(max(4 - info.stage, 1))))
        self.classifier = nn.Linear(widths[-1], classes)

    def forward(self, feature: Feature) -> Tensor:
        x = feature.map
        for merge in self.merge:
            x = merge(x)
        tokens = x.flatten(2).transpose(1, 2)
        if feature.prefix is None:
            return self.classifier(self.blocks(tokens).mean(dim=1))
        joined = self.blocks(torch.cat([feature.prefix[:, :1], tokens], dim=1))
        return self.classifier(joined[:, 0])


class Merge(nn.Module):
    """Patch merging: 2x2 neighbours joined, LayerNorm, linear map without bias, GELU (the last of several: none)."""

    def __init__(self, before: int, after: int, activate: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * before)
        self.reduce = nn.Linear(4 * before, after, bias=False)
        self.activate = nn.GELU() if activate else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = F.pixel_unshuffle(x[..., : x.shape[-2] // 2 * 2, : x.shape[-1] // 2 * 2], 2)
        return self.activate(self.reduce(self.norm(x.movedim(1, -1)))).movedim(-1, 1)
