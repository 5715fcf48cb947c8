"""WKD-L: how far probability has to be moved between classes, near ones costing less, to make the teacher's."""

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from kdbench.method import Batch, LogUniform, Method, Outputs, Pair, UnsupportedPair
from kdbench_methods.parts.losses import NEVER, label_mask, masked_log_softmax
from kdbench_methods.parts.precision import full_precision


class WKD(Method):
    """WKD-L: Wasserstein distance of the probabilities of the classes but the label's (Lv et al., arXiv 2412.08139).

    L = ce_weight * CE - target_weight * p_t,y log p_s,y + r * weight * W(q_s, q_t) with p = softmax(z), q the softmax
    of z / T over all classes but the label's, and W the cost sum_ij f_ij c_ij of the plan f that `iterations` of
    Sinkhorn's algorithm find with entropic regularisation `epsilon`. c_ij = 1 - exp(-sharpen * (1 - cos(v_i, v_j))), v
    the rows of the teacher's classifier. r falls from 1 to 0 along half a cosine from the share `decay_start` of the
    training on. It needs logits, hard labels and that classifier; no parameters. With two classes W is constant.

    The released code (JiamingLv/WKD) has this cost as its option "fc"; its configurations have a cost of the centred
    kernel alignment of class features of the whole training set, made beforehand, which a method here does not see.
    Defaults are its ImageNet configuration (ResNet34 -> ResNet18; 25 and sharpen 2 for ResNet50 -> MobileNetV1), the
    `crd` preset that of ResNet32x4 -> ResNet8x4 (200 and T 6 for WRN-40-2 -> ShuffleNetV1). It adds 1e-8 to Sinkhorn's
    denominators, which moves W where classes cost much; here scaling factors are logarithms and nothing is added.

    Attributes:
        temperature: T.
        epsilon, iterations: of Sinkhorn's algorithm.
        sharpen: of the cost.
        decay_start: share of the training after which the weight falls.
        weight: weight of the distance.
        target_weight: weight of the label's term, 1 in the code.
        ce_weight: weight of the hard-label loss.
    """

    kind = "logit"
    paper = "arXiv 2412.08139"
    venue = "NeurIPS 2024"
    presets = {"crd": {"temperature": 8.0, "weight": 600.0, "decay_start": 0.625}}

    search_space = {"temperature": LogUniform(1, 8), "weight": LogUniform(1, 1000)}

    temperature: Annotated[float, Field(gt=0)] = 2.0
    epsilon: Annotated[float, Field(ge=0.02)] = 0.05
    iterations: Annotated[int, Field(ge=1)] = 10
    sharpen: Annotated[float, Field(gt=0)] = 1.0
    decay_start: Annotated[float, Field(ge=0, lt=1)] = 0.0
    weight: float = 30.0
    target_weight: float = 1.0
    ce_weight: float = 1.0

    _cost: Tensor

    def build(self, pair: Pair) -> None:
        rows = getattr(pair.teacher.model.get_classifier(), "weight", None)  # type: ignore[operator]
        if not isinstance(rows, Tensor) or len(rows) != pair.task.num_classes:
            kind = type(pair.teacher.model).__name__
            raise UnsupportedPair(f"classes are compared by the rows of a classifier, and {kind} has no single one")
        units = F.normalize(rows.detach().flatten(1), dim=1)
        distance = (1 - units @ units.T).clamp_min(0)
        self.register_buffer("_cost", 1 - (-self.sharpen * distance).exp(), persistent=False)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        z_s, z_t, mask = student.logits, teacher.logits, label_mask(teacher.logits, batch.labels)
        target = ((F.softmax(z_t, dim=1) * F.log_softmax(z_s, dim=1)) * mask).sum(dim=1)
        log_s, log_t = (masked_log_softmax(z / self.temperature, mask) for z in (z_s, z_t))
        distance = transport_cost(log_s, log_t, self._cost, self.epsilon, self.iterations)
        done = max(0.0, ((batch.epoch + 1) / self.pair.task.epochs - self.decay_start) / (1 - self.decay_start))
        ramp = (1 + math.cos(math.pi * min(1.0, done))) / 2
        return {
            "ce": self.ce_weight * batch.cross_entropy(z_s),
            "target": -self.target_weight * target.mean(),
            "wasserstein": ramp * self.weight * distance.mean(),
        }


@full_precision
def transport_cost(log_p: Tensor, log_q: Tensor, cost: Tensor, epsilon: float, iterations: int) -> Tensor:
    """sum_ij f_ij cost_ij (B,) of the plans between the rows of log-probabilities (B, classes), NEVER for no class.

    f_ij = exp(a_i - cost_ij / epsilon + b_j), with b and a in turn such that columns and rows have the sums they
    should.
    """
    kernel = (-cost / epsilon).exp()
    a = torch.zeros_like(log_p).masked_fill(log_p <= NEVER / 2, NEVER)
    b = a
    for _ in range(iterations):
        b = log_q - _log_product(a, kernel)
        a = log_p - _log_product(b, kernel.T)
    largest_a, largest_b = (x.detach().amax(dim=1, keepdim=True) for x in (a, b))
    moved = ((a - largest_a).exp() @ (kernel * cost)) * (b - largest_b).exp()
    return moved.sum(dim=1) * (largest_a + largest_b)[:, 0].exp()


def _log_product(x: Tensor, matrix: Tensor) -> Tensor:
    """log(exp(x) @ matrix) for rows x; entries of the matrix are no less than exp(-50), so that none is log 0."""
    largest = x.detach().amax(dim=1, keepdim=True)
    return ((x - largest).exp() @ matrix).log() + largest
