"""DeiT's hard-label distillation, on the one head a network has."""

from torch import Tensor
from torch.nn import functional as F

from kdbench.method import Batch, LogUniform, Method, Outputs


class Hard(Method):
    """Hard distillation: the teacher's decision is a second label (Touvron et al., arXiv 2012.12877, equation 3).

    L = ce_weight * CE(z_s, y) + hard_weight * CE(z_s, argmax z_t), half each. The teacher decides on the image as the
    student sees it, mixed or cropped; its label is not smoothed. It needs logits alone and costs no parameters. DeiT
    reports it best with a distillation token and a head of its own, averaged with the other at inference: that changes
    the student and is not done here, so its published numbers with the token are of another method.

    Attributes:
        ce_weight: weight of the true label (1 - alpha of DeiT's code).
        hard_weight: weight of the teacher's decision (alpha).
    """

    aliases = ("deit",)
    kind = "logit"
    paper = "arXiv 2012.12877"
    venue = "ICML 2021"

    search_space = {"hard_weight": LogUniform(0.05, 5)}

    ce_weight: float = 0.5
    hard_weight: float = 0.5

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        return {
            "ce": self.ce_weight * batch.cross_entropy(student.logits),
            "hard": self.hard_weight * F.cross_entropy(student.logits, teacher.logits.argmax(dim=1)),
        }
