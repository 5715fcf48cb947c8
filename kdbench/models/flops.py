"""Floating-point operations of a model, counted on the meta device."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from kdbench.models.create import create_model
from kdbench.models.spec import ModelSpec


def forward_flops(spec: ModelSpec, num_classes: int, image_shape: tuple[int, int, int]) -> float:
    """FLOPs of one forward pass per image (a multiply-add counts as two).

    On the meta device every attention is counted; training is taken as three forwards, because the counter's figure for
    the backward of grouped convolutions is too high by the number of groups (torch 2.14).
    """
    batch = 2
    with torch.device("meta"):
        model = create_model(spec, num_classes, image_shape[0], image_shape[1]).eval()
        images = torch.empty(batch, *image_shape)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(images)
    return counter.get_total_flops() / batch
