"""SPOFA: OFA-KD whose stages and images weigh less where they go against what has been usual."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from kdbench.method import Batch, Outputs, Pair, gather
from kdbench_methods.ofa import OFA
from kdbench_methods.parts.losses import ofa_loss, ofa_target
from kdbench_methods.parts.precision import full_precision


class SPOFA(OFA):
    """SPOFA: OFA-KD with normalised heads and weights that follow a moving average (arXiv 2606.24557).

    L = ce_weight * CE + kd_weight * mean_b w_b ofa(z_s, z_t)_b + ofa_weight * sum_k v_k ofa(head_k(F_k), z_t). Heads of
    convolutional stages have a LayerNorm before their classifier. The weights are constants:

        v_k = 1 - stage_scale * (M_k - c_k) in [0.1, 2], c_k the mean cosine of the stage's logits with the teacher's
        w_b = 1 - output_scale * max(0, M - g_b) in [0.5, 2], g_b the cosine of the gradients of CE and ofa by z_s,b

    where M_k and M are moving averages of c_k and of the mean of g, that of M with the batch, that of M_k before it, as
    in the released code (xiaoming927/spofaKD); so is that g takes the CE without label smoothing. There the code's
    scales are 5, and 2 times 0.1. In a distributed run the means are over the whole batch, in the code each process has
    its own. Token stages have OFA's heads. The paper itself was not read. Presets are OFA's.

    Attributes:
        stages: student stages with a head.
        gamma: modulation, one value or one for every stage and a last one for the logits.
        temperature: T, without the factor T^2.
        stage_scale, output_scale: how far a deviation from the average moves a weight.
        momentum: of the averages.
        ce_weight, kd_weight, ofa_weight: weights of the terms.
    """

    paper = "arXiv 2606.24557"
    venue = "arXiv 2026"
    published = ()

    stage_scale: Annotated[float, Field(ge=0)] = 5.0
    output_scale: Annotated[float, Field(ge=0)] = 0.2
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.99

    _normalise_heads = True

    _averages: Tensor

    def build(self, pair: Pair) -> None:
        super().build(pair)
        # Of the stages, then of the output; a number only from the first batch on.
        self.register_buffer("_averages", torch.full((len(self.heads) + 1,), torch.nan))

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        z_s, z_t, labels = student.logits, teacher.logits, batch.labels
        stage_terms = []
        for number, logits in enumerate(self.heads(student.stages)):
            cosine = gather(row_cosines(logits.detach(), z_t)).mean()
            before, _ = self._followed(number, cosine)
            weight = (1 - self.stage_scale * (before - cosine)).clamp(0.1, 2)
            stage_terms.append(weight * ofa_loss(logits, z_t, labels, self._gamma[number], self.temperature))
        target = F.one_hot(labels, z_s.shape[1]) if batch.targets is None else batch.targets
        wanted = ofa_target(z_t, labels, self._gamma[-1], self.temperature)
        agreement = gradient_cosines(z_s.detach(), target, wanted, self.temperature)
        _, average = self._followed(-1, gather(agreement).mean())
        weights = (1 - self.output_scale * (average - agreement).clamp_min(0)).clamp(0.5, 2)
        loss = ofa_loss(z_s, z_t, labels, self._gamma[-1], self.temperature, weights)
        terms = {"ce": self.ce_weight * batch.cross_entropy(z_s), "kd": self.kd_weight * loss}
        if stage_terms:
            terms["ofa"] = self.ofa_weight * torch.stack(stage_terms).sum()
        return terms

    def _followed(self, number: int, value: Tensor) -> tuple[Tensor, Tensor]:
        """A moving average before and after `value`, which is the first there is where there was none."""
        before = torch.where(self._averages[number].isnan(), value, self._averages[number])
        after = self.momentum * before + (1 - self.momentum) * value
        self._averages[number] = after
        return before, after


@full_precision
def row_cosines(one: Tensor, other: Tensor) -> Tensor:
    """Cosine similarities (B,) of the rows of two matrices."""
    return F.cosine_similarity(one, other, dim=1)


@full_precision
def gradient_cosines(logits: Tensor, target: Tensor, wanted: Tensor, temperature: float) -> Tensor:
    """Cosines (B,) of the gradients by `logits` (B, classes) of the cross-entropies with `target` and with `wanted`.

    The gradient of -sum_i w_i log softmax(z / T)_i is (softmax(z / T) sum_i w_i - w) / T.
    """
    hard = logits.softmax(dim=1) * target.sum(dim=1, keepdim=True) - target
    soft = (logits / temperature).softmax(dim=1) * wanted.sum(dim=1, keepdim=True) - wanted
    return F.cosine_similarity(hard, soft, dim=1)
