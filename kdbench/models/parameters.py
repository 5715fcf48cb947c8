"""How many parameters models have."""

from torch import nn


def count_parameters(*models: nn.Module, trainable: bool = False) -> int:
    """The numbers that all parameters of the models hold together; a parameter that two models share counts twice.

    Args:
        trainable: count only the parameters that the optimizer changes.
    """
    return sum(p.numel() for model in models for p in model.parameters() if p.requires_grad or not trainable)
