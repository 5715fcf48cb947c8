"""ViTKD: early tokens are mimicked, late ones generated from what is left of them after masking."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from kdbench.method import Batch, LogUniform, Method, Needs, Outputs, Pair, UnsupportedPair


class ViTKD(Method):
    """ViTKD: feature distillation between transformers, stage by stage another way (Yang et al., arXiv 2209.02432).

    L = ce_weight * CE + mimic_weight * |P_1 x_s - x_t|^2 + generate_weight / masked * sum_n m_n |G(y)_n - y_t,n|^2,
    mean over the batch, of the tokens x of stage 1 and y_t of stage 4 (class tokens aside). y is P_2 y_s with a learned
    token where the random mask m of the share `masked` of the tokens is 1; G is conv3x3, ReLU, conv3x3 on the grid; P
    are linear, and absent where the widths agree. Costs 2 * (D_s + 1) * D_t + 18 * D_t^2 + 3 * D_t parameters.

    Sums over tokens and widths and weights are those of the released code (yzd-v/cls_KD, DeiT III -> DeiT). It mimics
    the first two blocks; here it is stage 1, the block that ends the first quarter of the depth. With NKD, as in its
    best numbers, it is a method of its own and not here.

    Attributes:
        masked: share of the tokens that are masked.
        mimic_weight, generate_weight: weights of the two terms.
        ce_weight: weight of the hard-label loss.
    """

    kind = "feature"
    paper = "arXiv 2209.02432"
    venue = "arXiv 2022"
    published = ("ViTKD",)
    student_needs = teacher_needs = Needs(stages=frozenset({1, 4}))

    search_space = {"mimic_weight": LogUniform(1e-6, 1e-3), "generate_weight": LogUniform(1e-7, 1e-4)}

    masked: Annotated[float, Field(gt=0, le=1)] = 0.5
    mimic_weight: float = 3e-5
    generate_weight: float = 3e-6
    ce_weight: float = 1.0

    def build(self, pair: Pair) -> None:
        for model in (pair.student, pair.teacher):
            if any(k not in model.stages or model.stages[k].layout != "tokens" for k in (1, 4)):
                raise UnsupportedPair(f"it is of tokens, and {type(model.model).__name__} computes on maps")
        own, theirs = ([model.stages[k] for k in (1, 4)] for model in (pair.student, pair.teacher))
        if any(s.grid != t.grid for s, t in zip(own, theirs, strict=True)):
            raise UnsupportedPair("it compares token with token, and the two networks have different numbers of them")
        self.mimic, self.align = (
            nn.Identity() if s.channels == t.channels else nn.Linear(s.channels, t.channels)
            for s, t in zip(own, theirs, strict=True)
        )
        width = theirs[1].channels
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.generate = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)
        )
        self.starved = {} if self.mimic_weight else {"mimic": "its weight is 0"}
        if not self.generate_weight:
            self.starved |= dict.fromkeys(("align", "mask_token", "generate"), "its weight is 0")

    def no_weight_decay(self) -> set[str]:
        return {"mask_token"}

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        size, last = len(batch.labels), teacher.stages[4]
        mimic = F.mse_loss(self.mimic(student.stages[1].tokens), teacher.stages[1].tokens, reduction="sum") / size
        tokens = self.align(student.stages[4].tokens)
        kept = int(tokens.shape[1] * (1 - self.masked))
        mask = torch.rand(tokens.shape[:2], device=tokens.device).argsort(dim=1).argsort(dim=1) >= kept
        tokens = torch.where(mask[:, :, None], self.mask_token, tokens)
        made = self.generate(tokens.transpose(1, 2).unflatten(2, last.grid)).flatten(2).transpose(1, 2)
        errors = F.mse_loss(made, last.tokens, reduction="none") * mask[:, :, None]
        return {
            "ce": self.ce_weight * batch.cross_entropy(student.logits),
            "mimic": self.mimic_weight * mimic,
            "generate": self.generate_weight * errors.sum() / size / self.masked,
        }
