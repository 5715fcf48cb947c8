"""Mixup and cutmix of a whole batch with its own reverse, as in timm's batch mode."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from kdbench.suites.schema import Augment


class Mixer:
    """Mixes batches as an `Augment` says; draws come from one generator, a few numbers a batch.

    Sources: mixup, arXiv 1710.09412 eq. 1; cutmix, arXiv 1905.04899 section 3.1 (the share is that of the pasted area).
    """

    def __init__(self, augment: Augment, smoothing: float, num_classes: int, generator: np.random.Generator) -> None:
        self._augment = augment
        self._smoothing = smoothing
        self._num_classes = num_classes
        self._generator = generator

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Mixed images, the labels of the heavier images, soft targets (None where nothing was mixed).

        Args:
            images: (B, C, H, W).
            labels: (B,) int64.
        """
        augment, draw = self._augment, self._generator
        if not (augment.mixup or augment.cutmix):
            return images, labels, None
        if draw.random() >= augment.mix_probability:
            return images, labels, self._soft(labels)
        cut = augment.cutmix and (not augment.mixup or draw.random() < augment.switch_probability)
        alpha = augment.cutmix if cut else augment.mixup
        share = float(draw.beta(alpha, alpha))
        partner = images.flip(0)
        if cut:
            height, width = images.shape[2:]
            side = np.sqrt(1 - share)
            y, x = int(draw.integers(height)), int(draw.integers(width))
            half_h, half_w = int(height * side) // 2, int(width * side) // 2
            top, bottom = max(0, y - half_h), min(height, y + half_h)
            left, right = max(0, x - half_w), min(width, x + half_w)
            images = images.clone()
            images[:, :, top:bottom, left:right] = partner[:, :, top:bottom, left:right]
            share = 1 - (bottom - top) * (right - left) / (height * width)
        else:
            images = torch.lerp(partner, images, share)
        other = labels.flip(0)
        targets = share * self._soft(labels) + (1 - share) * self._soft(other)
        return images, labels if share >= 0.5 else other, targets

    def _soft(self, labels: Tensor) -> Tensor:
        hard = F.one_hot(labels, self._num_classes).float()
        return hard * (1 - self._smoothing) + self._smoothing / self._num_classes
