"""Contrastive losses between features of the same images."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdbench.method import gather
from kdbench_methods.parts.precision import full_precision


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

    @full_precision
    def forward(self, anchors: Tensor, targets: Tensor) -> Tensor:
        """The loss of telling each anchor's target from those of the other images.

        Args:
            anchors, targets: (B, D), row by row of the same image.
        """
        anchors, targets = F.normalize(anchors, dim=1), F.normalize(targets, dim=1)
        scale = self.log_scale.clamp(max=math.log(100)).exp()
        loss = self._contrast(anchors, targets, scale)
        return (loss + self._contrast(targets, anchors, scale)) / 2 if self.symmetric else loss

    def _contrast(self, anchors: Tensor, targets: Tensor, scale: Tensor) -> Tensor:
        if self.gather:
            anchors, targets = gather(anchors), gather(targets)
        return F.cross_entropy(scale * anchors @ targets.T, torch.arange(len(anchors), device=anchors.device))


class MemoryBank(nn.Module):
    """An embedding of every training image, which follows the network slowly and tells anchors apart from noise.

    The noise-contrastive loss and the bank of CRD (Tian et al., arXiv 1910.10699, section 3, as released). Rows start
    at random, of about unit length. In a distributed run they are written with what all processes saw, and stay equal.

    Attributes:
        rows: (images, width).
        z: normalisation of exp(similarity / tau), set by the first batch; 0 before.
    """

    rows: Tensor
    z: Tensor

    def __init__(self, images: int, width: int, tau: float, momentum: float) -> None:
        super().__init__()
        bound = math.sqrt(3 / width)
        self.register_buffer("rows", torch.empty(images, width).uniform_(-bound, bound))
        self.register_buffer("z", torch.zeros(()))
        self.tau = tau
        self.momentum = momentum

    @full_precision
    def forward(self, anchors: Tensor, own: Tensor, others: Tensor, chosen: Tensor, count: int) -> Tensor:
        """Each anchor's own row is told from `count` rows of other images; summed over rows, mean over anchors.

        Args:
            anchors: (B, width), of unit length.
            own: (B,) the images they are of.
            others: (M,) images to take negatives from.
            chosen: (B, M) which of them, `count` for each anchor.
        """
        positive = ((anchors * self.rows[own]).sum(dim=1) / self.tau).exp()
        negative = (anchors @ self.rows[others].T / self.tau).exp() * chosen
        with torch.no_grad():
            mean = (positive.sum() + negative.sum()) / (len(anchors) * (count + 1))
            first = gather(mean[None]).mean() * len(self.rows)
            z = torch.where(self.z > 0, self.z, first)
            self.z.copy_(z)
        # With p = exp(similarity / tau) / z and the noise's share n: -log(p / (p + n)) = log(1 + n / p), and the
        # negatives' -log(n / (p + n)) = log(1 + p / n), which is 0 for those that were not chosen.
        scale = 1 / (z * (count / len(self.rows)))
        loss = (1 / (positive * scale)).log1p().sum() + (negative * scale).log1p().sum()
        return loss / len(anchors)

    @torch.no_grad()
    @full_precision
    def update(self, index: Tensor, embeddings: Tensor) -> None:
        """Move rows `index` (B,) towards `embeddings` (B, width); an image that is there twice, towards their mean."""
        index, embeddings = gather(index), gather(embeddings)
        same = (index[:, None] == index).to(embeddings.dtype)
        mean = same @ embeddings / same.sum(dim=1, keepdim=True)
        moved = self.momentum * self.rows[index] + (1 - self.momentum) * mean
        # Entries of one image are equal, so that it does not matter which of them is written last.
        self.rows.index_copy_(0, index, F.normalize(moved, dim=1).to(self.rows.dtype))
