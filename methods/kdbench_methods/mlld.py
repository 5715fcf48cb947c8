"""MLLD: predictions aligned at several temperatures, by image, by class and over the batch, on two views."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from kdbench.method import Batch, LogUniform, Outputs, Pair
from kdbench_methods.parts.logits import LogitMethod
from kdbench_methods.parts.losses import kl_divergence
from kdbench_methods.parts.precision import full_precision


class MLLD(LogitMethod):
    """MLLD: multi-level logit distillation on a weak and a strong view (Jin et al., CVPR 2023).

    L = ce_weight * CE + second_ce_weight * CE' + kd_weight * sum_T [K' + (K + G_class + G_batch) / 2], ' the second
    view: K = T^2 KL(softmax(z_t / T) || softmax(z_s / T)), G_class = |P_s^T P_s - P_t^T P_t|^2 / C, G_batch = |P_s
    P_s^T - P_t P_t^T|^2 / B, P (B, C) the probabilities at T. Two views cost twice the passes of both networks.

    We follow the released code, from which the published numbers are: its mask of confident images and classes
    multiplies averages and so halves them all (exactly so with an even number of images and of classes, without ties);
    its K' takes the second view at the first `second` temperatures and the first view again at the others; its G' are
    not added. Defaults are its own. LSKD's MLLD is `standardise`, which reaches K alone, with kd_weight 9 and 2 as the
    first temperature.

    Attributes:
        temperatures: the T summed over.
        second: at how many of them K' takes the second view.
        ce_weight, second_ce_weight: weight of the hard-label loss of each view.
        kd_weight: weight of all other terms.
        standardise: standardise the logits of both networks in K first (LSKD, arXiv 2403.01427).
        entropy_weights: temperature of the entropies that weigh images in K (EA-KD, arXiv 2311.13621); 0 is off.
    """

    aliases = ("mlkd",)
    kind = "logit"
    paper = "CVPR 2023"
    venue = "CVPR 2023"
    published = ("MLLD",)
    presets = {
        "ofa-imagenet": {
            "temperatures": (1.0, 3.0, 5.0, 2.0, 6.0),
            "ce_weight": 0.5,
            "second_ce_weight": 0.5,
            "kd_weight": 0.5,
        }
    }
    second_view = True

    search_space = {"ce_weight": LogUniform(0.05, 2), "kd_weight": LogUniform(0.05, 10)}

    temperatures: tuple[Annotated[float, Field(gt=0)], ...] = (4.0, 3.0, 5.0, 2.0, 6.0)
    second: Annotated[int, Field(ge=0)] = 3
    ce_weight: float = 0.1
    second_ce_weight: float = 0.1
    kd_weight: float = 0.9

    def build(self, pair: Pair) -> None:
        super().build(pair)
        self._labels = pair.task.labels
        self.second_view = bool(self.second_ce_weight or self.kd_weight)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        terms = {"ce": self.ce_weight * batch.cross_entropy(student.logits)}
        if not self.second_view:
            return terms
        z_s, z_t, again_s, again_t = student.logits, teacher.logits, student.second.logits, teacher.second.logits
        # The second view is not mixed: its label is the image's own.
        ce = F.cross_entropy(again_s, self._labels[batch.index], label_smoothing=batch.smoothing)
        relations = torch.stack([class_and_batch_error(z_s, z_t, t) for t in self.temperatures]).sum()
        z_s, z_t, weights = self.prepared(z_s, z_t)
        again_s, again_t, again_weights = self.prepared(again_s, again_t)
        first = [kl_divergence(z_s, z_t, t, weights) for t in self.temperatures]
        again = [kl_divergence(again_s, again_t, t, again_weights) for t in self.temperatures[: self.second]]
        instances = torch.stack([*again, *first[self.second :]]).sum() + torch.stack(first).sum() / 2
        return terms | {
            "second ce": self.second_ce_weight * ce,
            "instance": self.kd_weight * instances,
            "relation": self.kd_weight * relations / 2,
        }


@full_precision
def class_and_batch_error(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """|P_s^T P_s - P_t^T P_t|^2 / C + |P_s P_s^T - P_t P_t^T|^2 / B of the probabilities P (B, C) at T."""
    p_s, p_t = (student / temperature).softmax(dim=1), (teacher / temperature).softmax(dim=1)
    pairs = (p_s.T, p_t.T), (p_s, p_t)
    return torch.stack([(a @ a.T - b @ b.T).square().sum() / len(a) for a, b in pairs]).sum()
