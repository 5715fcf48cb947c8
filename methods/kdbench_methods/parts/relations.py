"""How the images of a batch relate to each other: distances, directions, similarities.

In a distributed run each process takes the rows of its own images, against the images of all processes: the mean of a
loss over these rows, averaged over the processes, is the mean over the whole batch.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def displacements(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Distances (B, N) from the rows of `x` (B, D) to those of `y` (N, D), and the unit vectors (B, N, D) along them.

    Equal rows are in no direction from each other: a vector of zeros, which passes no gradient on.
    """
    difference = y - x[:, None]
    distance = difference.norm(dim=2)
    return distance, difference / distance.masked_fill(distance == 0, torch.inf)[:, :, None]


def gram(x: Tensor, y: Tensor) -> Tensor:
    """Inner products (B, N) of flattened features (B, ...) and (N, ...)."""
    return x.flatten(1) @ y.flatten(1).T


def cosines(x: Tensor, y: Tensor) -> Tensor:
    """Cosine similarities (B, N) of features (B, D) and (N, D)."""
    return gram(F.normalize(x, dim=1), F.normalize(y, dim=1))
