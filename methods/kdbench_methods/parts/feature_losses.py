"""Losses between features that several methods share."""

from torch import Tensor
from torch.nn import functional as F


def context_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """HCL of ReviewKD (arXiv 2104.09044): mean squared errors at full size and pooled to 4x4, 2x2 and 1x1.

    Weighted 1, 1/2, 1/4, ... over the sum of the weights; sizes that the map does not exceed are left out.

    Args:
        student, teacher: (B, C, H, W).
    """
    total, weights, weight = F.mse_loss(student, teacher), 1.0, 1.0
    for side in (4, 2, 1):
        if side < min(student.shape[-2:]):
            weight /= 2
            weights += weight
            small, target = (F.adaptive_avg_pool2d(x, side) for x in (student, teacher))
            total = total + weight * F.mse_loss(small, target)
    return total / weights
