"""TTM and WTTM: the student matches a power of the teacher's probabilities at its own temperature 1."""

from typing import Annotated

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from kdbench.method import Batch, LogUniform, Method, Outputs
from kdbench_methods.parts.losses import mean_kl


class TTM(Method):
    """TTM: transformed teacher matching, KD without the student's temperature (Zheng & Yang, arXiv 2402.11148).

    L = ce_weight * CE + weight * KL(q || p_s), q = p_t^l / sum_i p_t,i^l with p = softmax(z): l plays the part of 1 / T
    for the teacher alone, which adds a Renyi entropy of the student to KD. It needs logits and costs no parameters.

    The authors name l and the weight for one pair (VGG13 -> VGG8 on CIFAR-100, README of zkxufo/TTM: 0.1 and 45, the
    `crd` preset) and none for the OFA protocol: there, both are 1, with which it is vanilla KD at T 1, the default of
    `kd`. The code takes the power of rounded probabilities, here it is taken of their logarithms.

    Attributes:
        exponent: l.
        weight: beta, weight of the KL term.
        ce_weight: weight of the hard-label loss.
    """

    kind = "logit"
    paper = "arXiv 2402.11148"
    venue = "ICLR 2024"
    published = ("TTM",)
    presets = {"crd": {"exponent": 0.1, "weight": 45.0}}

    search_space = {"exponent": LogUniform(0.05, 1), "weight": LogUniform(0.1, 100)}

    exponent: Annotated[float, Field(gt=0)] = 1.0
    weight: float = 1.0
    ce_weight: float = 1.0

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        power = self.exponent * F.log_softmax(teacher.logits, dim=1)
        log_sum = power.logsumexp(dim=1)
        divergence = mean_kl(F.log_softmax(student.logits, dim=1), power - log_sum[:, None], self.weights(log_sum))
        return {"ce": self.ce_weight * batch.cross_entropy(student.logits), "kd": self.weight * divergence}

    def weights(self, log_sum: Tensor) -> Tensor | None:
        """Weights (B,) of the images, of log sum_i p_t,i^l; None for alike."""
        return None


class WTTM(TTM):
    """WTTM: TTM whose images weigh more, the smoother the teacher is there (Zheng & Yang, arXiv 2402.11148).

    As `TTM`, but the KL of an image is multiplied by sum_i p_t,i^l, which is 1 where the teacher is sure and grows with
    its entropy for l < 1: a weight here is larger than the same one there. The `crd` preset is the README's example of
    WTTM beside CRD (VGG13 -> VGG8, l 0.2 and a weight of 4); it names none for WTTM alone.

    Attributes:
        exponent: l; 1 is vanilla KD.
        weight: beta, weight of the KL term.
        ce_weight: weight of the hard-label loss.
    """

    published = ("WTTM",)
    presets = {"crd": {"exponent": 0.2, "weight": 4.0}}

    def weights(self, log_sum: Tensor) -> Tensor | None:
        return log_sum.exp()
