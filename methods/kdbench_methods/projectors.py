"""Pieces of projectors that several methods share."""

from torch import nn


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
