"""Contrastive losses between features of the same images."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdbench.method import gather


class InfoNCE(nn.Module):
    """InfoNCE with in-batch negatives and a learnable temperature (van den Oord et al., arXiv 1807.03748, eq. 4).

    Cosine similarities times exp(log_scale), cross-entropy against the diagonal, mean over the batch; close to log(B)
    for unrelated features. exp(log_scale) = 1 / tau is kept at 100 at most, as in CLIP.
    """

    def __init__(self, tau: float, symmetric: bool = False, gather: bool = True) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / tau)))
        self.symmetric = symmetric
        self.gather = gather

    def forward(self, anchors: Tensor, targets: Tensor) -> Tensor:
        """The loss of telling each anchor's target from those of the other images.

        Args:
            anchors, targets: (B, D), row by row of the same image.
        """
        anchors, targets = F.normalize(anchors.float(), dim=1), F.normalize(targets.float(), dim=1)
        scale = self.log_scale.clamp(max=math.log(100)).exp()
        loss = self._contrast(anchors, targets, scale)
        return (loss + self._contrast(targets, anchors, scale)) / 2 if self.symmetric else loss

    def _contrast(self, anchors: Tensor, targets: Tensor, scale: Tensor) -> Tensor:
        if self.gather:
            anchors, targets = gather(anchors), gather(targets)
        return F.cross_entropy(scale * anchors @ targets.T, torch.arange(len(anchors), device=anchors.device))
