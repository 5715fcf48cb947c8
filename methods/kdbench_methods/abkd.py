"""ABKD: an alpha-beta divergence in place of the KL, between it and its reverse."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from kdbench.method import Batch, LogUniform, Method, Outputs, Uniform
from kdbench_methods.parts.precision import full_precision


class ABKD(Method):
    """ABKD: the alpha-beta divergence of teacher and student probabilities (Wang et al., arXiv 2505.04560).

    L = ce_weight * CE + weight * mean_b D(p_t, p_s) with p = softmax(z / T) and

        D(p, q) = -1 / (a b) sum_i [p_i^a q_i^b - a / (a + b) p_i^(a+b) - b / (a + b) q_i^(a+b)]

    and its limits where a, b or a + b is 0. a = 1, b = 0 is the KL of vanilla KD, a = 0, b = 1 its reverse; a large a
    follows the teacher's large probabilities, a large b the student's. It needs logits alone and costs no parameters.

    As in the released code (ghwang-s/abkd) there is no factor T^2. The `crd` preset is its README's example (ResNet56
    -> ResNet20, T 4); the OFA protocol has none: a and b are those of the example, T and the weight those of `kd`. In
    the limits a = 0 or b = 0 the code divides by b or a, where the limit of the formula has their square, which is
    taken here; both are the same at 1.

    Attributes:
        alpha, beta: a and b.
        temperature: T.
        weight: weight of the divergence.
        ce_weight: weight of the hard-label loss.
    """

    kind = "logit"
    paper = "arXiv 2505.04560"
    venue = "ICML 2025"
    presets = {"crd": {"temperature": 4.0, "weight": 32.0}}

    search_space = {
        "alpha": Uniform(0.1, 1.2),
        "beta": Uniform(0.1, 1.2),
        "temperature": LogUniform(1, 8),
        "weight": LogUniform(0.1, 100),
    }

    alpha: float = 0.8
    beta: float = 0.3
    temperature: Annotated[float, Field(gt=0)] = 1.0
    weight: float = 1.0
    ce_weight: float = 1.0

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        log_s, log_t = (F.log_softmax(outputs.logits / self.temperature, dim=1) for outputs in (student, teacher))
        return {
            "ce": self.ce_weight * batch.cross_entropy(student.logits),
            "divergence": self.weight * divergence(log_t, log_s, self.alpha, self.beta).mean(),
        }


@full_precision
def divergence(log_p: Tensor, log_q: Tensor, a: float, b: float) -> Tensor:
    """D(p, q) of the rows (B,) of log-probabilities (B, classes), its limits where a, b or a + b is 0."""
    if a == b == 0:
        terms = (log_p - log_q).square() / 2
    elif b == 0:
        terms = ((a * log_p).exp() * (a * (log_p - log_q) - 1) + (a * log_q).exp()) / a**2
    elif a == 0:
        terms = ((b * log_q).exp() * (b * (log_q - log_p) - 1) + (b * log_p).exp()) / b**2
    elif a + b == 0:
        ratio = a * (log_q - log_p)
        terms = (ratio + torch.exp(-ratio) - 1) / a**2
    else:
        powers = a * ((a + b) * log_p).exp() + b * ((a + b) * log_q).exp()
        terms = (powers / (a + b) - (a * log_p + b * log_q).exp()) / (a * b)
    return terms.sum(dim=1)
