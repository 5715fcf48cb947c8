"""CTKD: KD whose temperature is learned to make it harder."""

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from kdbench.method import Batch, LogUniform, Method, Outputs, Pair
from kdbench_methods.parts.losses import kl_divergence


class CTKD(Method):
    """CTKD: KD with a learned temperature that ascends the loss (Li et al., arXiv 2211.16231, section 3).

    L = ce_weight * CE + kd_weight * T^2 * KL(softmax(z_t / T) || softmax(z_s / T)), T = t_start + t_range *
    sigmoid(theta). The gradient of the one parameter theta is reversed and grows with the epoch e = 1, 2, ...: times
    -(1 - cos(pi * min(e, E) / E)) / 2, E = ramp_epochs. This is the global temperature of the released code,
    not the one that a network predicts for each image. It needs logits alone and costs one parameter, which starts at 1
    (T = 15.6).

    t_start, t_range and the ramp are those of the released scripts; their CE and KD weights are 1 for ImageNet, as in
    the OFA protocol, and 0.1 and 0.9 for CIFAR-100 (the `crd` preset).

    Attributes:
        ce_weight: weight of the hard-label loss.
        kd_weight: weight of the KL term.
        t_start, t_range: lowest temperature, and how far it may rise.
        ramp_epochs: E, epochs until the reversed gradient is whole.
    """

    kind = "logit"
    paper = "arXiv 2211.16231"
    venue = "AAAI 2023"
    published = ("CTKD", "KD+CTKD")
    presets = {
        "crd": {"ce_weight": 0.1, "kd_weight": 0.9},
        "ofa-imagenet": {"ramp_epochs": 5},
    }

    search_space = {"kd_weight": LogUniform(0.1, 10), "t_range": LogUniform(2, 40)}

    ce_weight: float = 1.0
    kd_weight: float = 1.0
    t_start: Annotated[float, Field(gt=0)] = 1.0
    t_range: Annotated[float, Field(ge=0)] = 20.0
    ramp_epochs: Annotated[int, Field(ge=1)] = 10

    def build(self, pair: Pair) -> None:
        self.theta = nn.Parameter(torch.ones(()))
        if not self.kd_weight * self.t_range:
            self.starved = {"theta": "its weight or its range is 0"}

    def temperature(self, epoch: int) -> Tensor:
        """T, with the gradient of theta as it is to be in that epoch."""
        ramp = (1 - math.cos(math.pi * min(1.0, (epoch + 1) / self.ramp_epochs))) / 2
        # Between theta and itself: the same value, but -ramp times its gradient.
        theta = torch.lerp(self.theta.detach(), self.theta, -ramp)
        return self.t_start + self.t_range * theta.sigmoid()

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        divergence = kl_divergence(student.logits, teacher.logits, self.temperature(batch.epoch))
        return {
            "ce": self.ce_weight * batch.cross_entropy(student.logits),
            "kd": self.kd_weight * divergence,
        }
