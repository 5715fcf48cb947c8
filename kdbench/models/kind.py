"""What a network is made of, found by looking at its modules."""

import torch
from torch import nn

from kdbench.errors import KdbenchError
from kdbench.models.create import create_network
from kdbench.models.spec import Kind, ModelSpec
from kdbench.targets import is_target


def kind_of(spec: ModelSpec, in_chans: int, image_size: int) -> Kind:
    """Transformer: anything in it has attention heads; CNN: else, convolutions that overlap mix positions; else MLP.

    The network is built on the meta device where that is possible, and not run.

    Args:
        in_chans: of the images.
        image_size: side in pixels that a function of the user's is asked for; timm's networks are built for the size
            that timm gives them.

    Raises:
        KdbenchError: timm refuses an override.
    """
    model = _built(spec, in_chans, image_size if is_target(spec.timm) else None)
    modules = list(model.modules())
    if any(isinstance(getattr(module, "num_heads", None), int) for module in modules):
        return "transformer"
    return "cnn" if any(isinstance(module, nn.Conv2d) and _overlaps(module) for module in modules) else "mlp"


def _built(spec: ModelSpec, in_chans: int, image_size: int | None) -> nn.Module:
    try:
        with torch.device("meta"):
            return create_network(spec, 2, in_chans, image_size)
    except KdbenchError:
        # Its constructor computes with tensors, or something is wrong that this attempt will tell.
        with torch.random.fork_rng(devices=[]):
            return create_network(spec, 2, in_chans, image_size)


def _overlaps(convolution: nn.Conv2d) -> bool:
    """Neighbouring windows share positions; those of a patch embedding do not."""
    return any(kernel > stride for kernel, stride in zip(convolution.kernel_size, convolution.stride, strict=True))
