"""DKD: what the teacher says of the label's class and what it says among the others, weighted apart."""

from typing import Annotated

from pydantic import Field
from torch import Tensor

from kdbench.method import Batch, LogUniform, Outputs
from kdbench_methods.parts.logits import LogitMethod
from kdbench_methods.parts.losses import binary_kl, label_mask, masked_kl, warm_up


class DKD(LogitMethod):
    """DKD: decoupled knowledge distillation (Zhao et al., arXiv 2203.08679, equation 7).

    L = ce_weight * CE + r * T^2 * [alpha * KL(b_t || b_s) + beta * KL(q_t || q_s)], with p = softmax(z / T): b is the
    pair (p_y, 1 - p_y) of the label's class y and the rest, q the softmax over all classes but y. Vanilla KD weighs the
    second term by 1 - p_t,y, small where the teacher is sure. r = min(1, epoch / warmup_epochs), counted from 1, as in
    mdistiller. It needs logits and hard labels (of mixed images the heavier one, as in OFA-KD's code), no parameters.

    Defaults are those of OFA-KD's train.py, for both data sets. The `crd` preset is mdistiller's; its beta varies by
    pair (8; 6 for VGG13 and WRN-40-2, 2 for ResNet56 and ResNet110). LSKD's DKD is `standardise` with T 2 and both
    weights times 9. The released code takes 1000 from the logit of y; here y is left out.

    Attributes:
        temperature: T.
        alpha: weight of the target class against the rest.
        beta: weight among the other classes.
        ce_weight: weight of the hard-label loss.
        warmup_epochs: of the linear ramp of both terms; 0 is none.
        standardise: standardise the logits of both networks first (LSKD, arXiv 2403.01427).
        entropy_weights: temperature of the entropies that images are weighed by (EA-KD, arXiv 2311.13621); 0 is off.
    """

    kind = "logit"
    paper = "arXiv 2203.08679"
    venue = "CVPR 2022"
    published = ("DKD",)
    presets = {"crd": {"temperature": 4.0, "beta": 8.0, "warmup_epochs": 20}}

    search_space = {
        "temperature": LogUniform(1, 8),
        "alpha": LogUniform(0.1, 10),
        "beta": LogUniform(0.1, 10),
    }

    temperature: Annotated[float, Field(gt=0)] = 1.0
    alpha: float = 1.0
    beta: float = 2.0
    ce_weight: float = 1.0
    warmup_epochs: Annotated[int, Field(ge=0)] = 0

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        z_s, z_t, weights = self.prepared(student.logits, teacher.logits)
        labels, target = batch.labels, label_mask(z_t, batch.labels)
        ramp = warm_up(batch, self.warmup_epochs)
        return {
            "ce": self.ce_weight * batch.cross_entropy(student.logits),
            "target": ramp * self.alpha * binary_kl(z_s, z_t, labels, labels, self.temperature, weights),
            "others": ramp * self.beta * masked_kl(z_s, z_t, target, self.temperature, weights),
        }
