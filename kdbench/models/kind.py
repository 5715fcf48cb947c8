"""What a network is made of, found by looking at its modules."""

import torch
from torch import nn

from kdbench.errors import KdbenchError
from kdbench.models.create import create_model
from kdbench.models.spec import Kind, ModelSpec


def kind_of(spec: ModelSpec) -> Kind:
    """Transformer: anything in it has attention heads; CNN: else, convolutions that overlap mix positions; else MLP.

    The network is built for images of its own size, on the meta device where that is possible.

    Raises:
        KdbenchError: timm refuses an override.
    """
    model = _built(spec)
    modules = list(model.modules())
    if any(isinstance(getattr(module, "num_heads", None), int) for module in modules):
        return "transformer"
    return "cnn" if any(isinstance(module, nn.Conv2d) and _overlaps(module) for module in modules) else "mlp"


def _built(spec: ModelSpec) -> nn.Module:
    try:
        with torch.device("meta"):
            return create_model(spec, num_classes=2, in_chans=3, image_size=None)
    except KdbenchError:
        # Its constructor computes with tensors, or something is wrong that this attempt will tell.
        with torch.random.fork_rng(devices=[]):
            return create_model(spec, num_classes=2, in_chans=3, image_size=None)


def _overlaps(convolution: nn.Conv2d) -> bool:
    """Neighbouring windows share positions; those of a patch embedding do not."""
    return any(kernel > stride for kernel, stride in zip(convolution.kernel_size, convolution.stride, strict=True))
