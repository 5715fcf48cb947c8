"""MLDR-KD: relations between classes and between images, in the logits of every stage and in a fusion of them."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from kdbench.method import Batch, LogUniform, Method, Needs, Outputs, Pair, UnsupportedPair
from kdbench_methods.parts.heads import StageHeads
from kdbench_methods.parts.projectors import init_projector


class MLDR(Method):
    """MLDR-KD: decoupled relations of logits at every stage and of their fusion (Yang et al., arXiv 2502.06189).

    L = ce_weight * CE + logit_weight * D(z_s) + stage_weight * sum_k D(h_k) + fused_weight * D(sum_k w_k * h_k), with
    the stages' logits h_k and `dfra` for D. The weights w_k, one for each class, are a softmax over stages of what a
    gate with one hidden layer makes of the vectors in the heads. Formulas and defaults are those of the released code
    (Ethan-Yang02/MLDR-KD, CIFAR-100 at 224 px); the paper's full text was not at hand. That code is for ResNet
    students: the heads of others are OFA-KD's, vectors narrower than the widest are mapped to it before the gate, and
    the last head's convolution has a bias. Costs heads and gate, and memory: (stages + 2) times some tensors of
    B x C x C and C x B x B.

    Attributes:
        stages: student stages with a head.
        temperature: T, without the factor T^2.
        alpha: weight of the plain KL in D.
        ce_weight, logit_weight, stage_weight, fused_weight: weights of the terms.
    """

    aliases = ("mldr-kd",)
    kind = "relation"
    paper = "arXiv 2502.06189"
    venue = "arXiv 2025"
    published = ("MLDR-KD",)

    search_space = {"logit_weight": LogUniform(0.1, 10), "stage_weight": LogUniform(0.01, 10)}

    stages: tuple[Annotated[int, Field(ge=1, le=4)], ...] = (1, 2, 3, 4)
    temperature: Annotated[float, Field(gt=0)] = 1.0
    alpha: float = 2.0
    ce_weight: float = 1.0
    logit_weight: float = 1.0
    stage_weight: float = 1.0
    fused_weight: float = 1.0

    def build(self, pair: Pair) -> None:
        self.heads = StageHeads(pair, self.stages, pair.task.num_classes)
        if len(self.heads) < 2:
            raise UnsupportedPair(f"it fuses stages, and the student has fewer than two of {self.stages}")
        self.gate = Gate([head.width for head in self.heads.by_stage.values()], pair.task.num_classes)
        self.student_needs = Needs(stages=frozenset(self.heads.by_stage))

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        heads = self.heads.by_stage
        vectors = {k: head.vector(student.stages[k]) for k, head in heads.items()}
        logits = [head.classifier(vectors[k]) for k, head in heads.items()]
        fused = (self.gate(list(vectors.values())) * torch.stack(logits, dim=1)).sum(dim=1)
        own, *stages, fusion = (
            dfra(z, teacher.logits, self.temperature, self.alpha) for z in (student.logits, *logits, fused)
        )
        return {
            "ce": self.ce_weight * batch.cross_entropy(student.logits),
            "logit": self.logit_weight * own,
            "stages": self.stage_weight * torch.stack(stages).sum(),
            "fused": self.fused_weight * fusion,
        }


class Gate(nn.Module):
    """Weights (B, stages, classes) from the stages' vectors."""

    def __init__(self, widths: list[int], classes: int) -> None:
        super().__init__()
        width = max(widths)
        self.align = nn.ModuleList(nn.Identity() if each == width else nn.Linear(each, width) for each in widths)
        self.score = nn.Sequential(nn.Linear(width, 4 * classes), nn.GELU(), nn.Linear(4 * classes, classes))
        init_projector(self)

    def forward(self, vectors: list[Tensor]) -> Tensor:
        aligned = [align(vector) for align, vector in zip(self.align, vectors, strict=True)]
        return self.score(torch.stack(aligned, dim=1)).softmax(dim=1)


def dfra(student: Tensor, teacher: Tensor, temperature: float, alpha: float) -> Tensor:
    """R(z) + R(z^T) + alpha * KL(softmax(z_t) || softmax(z_s)) of z = logits / T (B, C), mean over the batch.

    R compares the relations between classes, row_c = softmax(z_c * z / sqrt(C)), by the same KL, mean over classes and
    images; R(z^T) those between images, with C, not B, under the root, as the released code has it.
    """
    student, teacher = student / temperature, teacher / temperature
    scale = student.shape[1] ** -0.5

    def relations(z: Tensor) -> Tensor:
        return scale * z[:, :, None] * z[:, None, :]

    between_classes = _kl(relations(student), relations(teacher))
    return between_classes + _kl(relations(student.T), relations(teacher.T)) + alpha * _kl(student, teacher)


def _kl(student: Tensor, teacher: Tensor) -> Tensor:
    log_student, log_teacher = F.log_softmax(student, dim=-1), F.log_softmax(teacher, dim=-1)
    return F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(dim=-1).mean()
