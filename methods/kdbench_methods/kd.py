"""Vanilla knowledge distillation."""

from typing import Annotated

from pydantic import Field
from torch import Tensor

from kdbench.method import Batch, LogUniform, Outputs
from kdbench_methods.parts.logits import LogitMethod
from kdbench_methods.parts.losses import kl_divergence


class KD(LogitMethod):
    """Vanilla KD: the teacher's softened class probabilities (Hinton et al., arXiv 1503.02531, section 2).

    L = ce_weight * CE + kd_weight * T^2 * KL(softmax(z_t / T) || softmax(z_s / T)). The defaults are those of the
    OFA-KD code base; the `crd` preset is RepDistiller's.

    Attributes:
        temperature: T.
        ce_weight: weight of the hard-label loss.
        kd_weight: weight of the KL term.
        standardise: standardise the logits of both networks first (LSKD, arXiv 2403.01427).
        entropy_weights: temperature of the entropies that images are weighed by (EA-KD, arXiv 2311.13621); 0 is off.
    """

    kind = "logit"
    paper = "arXiv 1503.02531"
    venue = "arXiv 2015"
    published = ("KD", "KD(T=4)")
    role = "baseline"
    presets = {"crd": {"temperature": 4.0, "ce_weight": 0.1, "kd_weight": 0.9}}

    search_space = {"temperature": LogUniform(1, 8), "kd_weight": LogUniform(0.1, 10)}

    temperature: Annotated[float, Field(gt=0)] = 1.0
    ce_weight: float = 1.0
    kd_weight: float = 1.0

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        z_s, z_t, weights = self.prepared(student.logits, teacher.logits)
        return {
            "ce": self.ce_weight * batch.cross_entropy(student.logits),
            "kd": self.kd_weight * kl_divergence(z_s, z_t, self.temperature, weights),
        }
