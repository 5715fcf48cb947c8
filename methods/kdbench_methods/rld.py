"""RLD: the teacher's confidence and class relations, without what contradicts the label."""

from typing import Annotated

from pydantic import Field
from torch import Tensor

from kdbench.method import Batch, LogUniform, Outputs
from kdbench_methods.parts.logits import LogitMethod
from kdbench_methods.parts.losses import binary_kl, masked_kl, warm_up


class RLD(LogitMethod):
    """RLD: refined logits, sample confidence and masked correlation (Sun et al., arXiv 2408.07703).

    L = ce_weight * CE + r * [alpha * T_a^2 * KL(b_t || b_s) + beta * T^2 * KL(q_t || q_s)]. Confidence: b_t is (p, 1 -
    p) of the teacher's most probable class, b_s that of the label's class: a teacher that is wrong still says how sure
    to be. Correlation: q is the softmax over the classes that the teacher puts below the label's; the label's own and
    all above it are left out. r is the warm-up of DKD. It needs logits and hard labels, no parameters.

    The authors name no values for the OFA protocol; the defaults are those of their ImageNet configurations (T 1, beta
    2 as for ResNet50 -> MobileNetV1, 0.5 for ResNet34 -> ResNet18; a warm-up over one epoch is none). The `crd` preset
    is their CIFAR-100 command, with one temperature for both terms (its flag `--same-t`; T_a is 1 without it).
    `standardise` is their `--logit-stand`, with temperatures 2 and both weights times 9.

    Attributes:
        temperature: T of the masked correlation.
        confidence_temperature: T_a of the sample confidence.
        alpha: weight of the sample confidence.
        beta: weight of the masked correlation.
        ce_weight: weight of the hard-label loss.
        warmup_epochs: of the linear ramp of both terms; 0 is none.
        standardise: standardise the logits of both networks first (LSKD, arXiv 2403.01427).
        entropy_weights: temperature of the entropies that images are weighed by (EA-KD, arXiv 2311.13621); 0 is off.
    """

    kind = "logit"
    paper = "arXiv 2408.07703"
    venue = "ICCV 2025"
    presets = {"crd": {"temperature": 4.0, "confidence_temperature": 4.0, "beta": 8.0, "warmup_epochs": 20}}

    search_space = {
        "temperature": LogUniform(1, 8),
        "alpha": LogUniform(0.1, 10),
        "beta": LogUniform(0.1, 10),
    }

    temperature: Annotated[float, Field(gt=0)] = 1.0
    confidence_temperature: Annotated[float, Field(gt=0)] = 1.0
    alpha: float = 1.0
    beta: float = 2.0
    ce_weight: float = 1.0
    warmup_epochs: Annotated[int, Field(ge=0)] = 0

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        z_s, z_t, weights = self.prepared(student.logits, teacher.logits)
        labels = batch.labels
        ramp = warm_up(batch, self.warmup_epochs)
        confidence = binary_kl(z_s, z_t, labels, z_t.argmax(dim=1), self.confidence_temperature, weights)
        misleading = z_t >= z_t.gather(1, labels[:, None])
        return {
            "ce": self.ce_weight * batch.cross_entropy(student.logits),
            "confidence": ramp * self.alpha * confidence,
            "correlation": ramp * self.beta * masked_kl(z_s, z_t, misleading, self.temperature, weights),
        }
