"""Input normalisation: every model has its own, teacher and student may differ."""

from functools import lru_cache

import torch
from torch import Tensor

from kdbench.models.features import Normalisation


def normalise(images: Tensor, normalisation: Normalisation) -> Tensor:
    """Normalise float images (B, C, H, W) in [0, 255]."""
    scale, offset = _constants(normalisation, images.device)
    return torch.addcmul(offset, images, scale)


@lru_cache
def _constants(normalisation: Normalisation, device: torch.device) -> tuple[Tensor, Tensor]:
    mean, std = (torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1) for values in normalisation)
    return (1 / (255 * std)).to(device), (-mean / std).to(device)
