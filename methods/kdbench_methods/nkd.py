"""NKD: the teacher's probability of the label, and a normalised cross-entropy among the other classes."""

from typing import Annotated

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from kdbench.method import Batch, LogUniform, Method, Outputs
from kdbench_methods.parts.losses import label_mask, masked_log_softmax


class NKD(Method):
    """NKD: normalised knowledge distillation (Yang et al., arXiv 2303.13005, "From KD to self-KD").

    L = ce_weight * CE - target_weight * p_t,y log p_s,y - gamma_weight * T^2 sum_{i != y} q_t,i log q_s,i, mean over
    the batch, with p = softmax(z) and q the softmax of z / T over all classes but the label's y (of mixed images the
    heavier one, as in the code). Vanilla KD's non-target probabilities sum to two different numbers; q's do not. It
    needs logits and hard labels, no parameters. With two classes the last term is the constant 0.

    Defaults are those of the released code (yzd-v/cls_KD) for ImageNet; gamma is 1 for its DeiTs. The `crd` preset is
    its CIFAR-100 configuration (ResNet34 -> ResNet18, a recipe of its own). The logarithm is that of a log-softmax: an
    older version took it of a softmax, which rounds to 0 (its issue 13).

    Attributes:
        temperature: T, of the classes but the label's.
        target_weight: weight of the label's term, 1 in the paper.
        gamma_weight: gamma, weight of the others.
        ce_weight: weight of the hard-label loss.
    """

    kind = "logit"
    paper = "arXiv 2303.13005"
    venue = "ICCV 2023"
    published = ("NKD",)
    presets = {"crd": {"temperature": 3.0, "gamma_weight": 3.5}}

    search_space = {"temperature": LogUniform(1, 8), "gamma_weight": LogUniform(0.1, 10)}

    temperature: Annotated[float, Field(gt=0)] = 1.0
    target_weight: float = 1.0
    gamma_weight: float = 1.5
    ce_weight: float = 1.0

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        z_s, z_t, mask = student.logits, teacher.logits, label_mask(teacher.logits, batch.labels)
        target = ((F.softmax(z_t, dim=1) * F.log_softmax(z_s, dim=1)) * mask).sum(dim=1)
        log_s, log_t = (masked_log_softmax(z / self.temperature, mask) for z in (z_s, z_t))
        others = self.temperature**2 * (log_t.exp() * log_s).sum(dim=1)
        return {
            "ce": self.ce_weight * batch.cross_entropy(z_s),
            "target": -self.target_weight * target.mean(),
            "others": -self.gamma_weight * others.mean(),
        }
