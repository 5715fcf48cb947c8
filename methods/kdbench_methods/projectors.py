"""Pieces of projectors that several methods share."""

import math

import torch
from torch import nn

from kdbench.method import Needs, Outputs, StagedModel


def init_projector(module: nn.Module) -> None:
    """The initialisation of the OFA-KD code base: conv Kaiming-normal (fan out), linear truncated normal (0.02)."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=0.02)
        else:
            continue
        if part.bias is not None:
            nn.init.zeros_(part.bias)


def conv_norm(width_in: int, width_out: int, kernel: int = 1, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """A convolution that keeps the grid, batch norm, activation."""
    conv = nn.Conv2d(width_in, width_out, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width_out), activation())


@torch.no_grad()
def probe(model: StagedModel, needs: Needs) -> Outputs:
    """What a network in eval mode puts out for two fixed images, to see of what kind its features are."""
    reference = next(model.parameters())
    shape = 2, *model.image_shape
    images = torch.linspace(-1, 1, math.prod(shape), device=reference.device, dtype=reference.dtype)
    return model(images.view(shape), needs)


def activation_of(feature: torch.Tensor) -> type[nn.Module]:
    """What a projector must end in to reach such features: a ReLU where a probe of them is nowhere negative."""
    return nn.Identity if bool((feature < 0).any()) else nn.ReLU
