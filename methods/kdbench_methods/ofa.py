"""OFA-KD: every stage of the student gets a head into logit space and learns the teacher's logits there."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from kdbench.method import Batch, Choice, LogUniform, Method, Needs, Outputs, Pair, UnsupportedPair
from kdbench_methods.parts.heads import StageHeads
from kdbench_methods.parts.losses import ofa_loss


class OFA(Method):
    """OFA-KD: stage heads project every student stage into logit space (Hao et al., arXiv 2310.19444, section 3).

    L = ce_weight * CE + kd_weight * ofa(z_s, z_t) + ofa_weight * sum_k ofa(head_k(F_k), z_t), with the modulated loss
    of the released code. Defaults are those of its train.py; its author ran CIFAR-100 with `ofa_weight` 0.1 (issues 14
    and 32, the `ofa-cifar100` preset, and that of the proxy) and DeiT-T -> ResNet18 on ImageNet with gamma 1.5.

    Attributes:
        stages: student stages with a head.
        gamma: modulation, one value or one for every stage and a last one for the logits.
        temperature: T, without the factor T^2.
        ce_weight, kd_weight, ofa_weight: weights of the terms.
    """

    kind = "logit"
    paper = "arXiv 2310.19444"
    venue = "NeurIPS 2023"
    published = ("OFA",)
    presets = {
        "ofa-cifar100": {"ofa_weight": 0.1},
        "proxy": {"ofa_weight": 0.1},
    }

    search_space = {
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

    _normalise_heads = False

    def build(self, pair: Pair) -> None:
        self.heads = StageHeads(pair, self.stages, pair.task.num_classes, self._normalise_heads)
        count = len(self.heads) + 1
        if len(self.gamma) not in (1, count):
            raise UnsupportedPair(f"gamma needs 1 or {count} values here, it has {len(self.gamma)}")
        self._gamma = self.gamma * count if len(self.gamma) == 1 else self.gamma
        self.student_needs = Needs(stages=frozenset(self.heads.by_stage))

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        stage_terms = [
            ofa_loss(logits, teacher.logits, batch.labels, gamma, self.temperature)
            for gamma, logits in zip(self._gamma, self.heads(student.stages), strict=False)
        ]
        logit_term = ofa_loss(student.logits, teacher.logits, batch.labels, self._gamma[-1], self.temperature)
        terms = {"ce": self.ce_weight * batch.cross_entropy(student.logits), "kd": self.kd_weight * logit_term}
        if stage_terms:
            terms["ofa"] = self.ofa_weight * torch.stack(stage_terms).sum()
        return terms
