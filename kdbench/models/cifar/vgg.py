"""VGG with batch norm (Simonyan and Zisserman 2015, arXiv 1409.1556), for 32 pixels: one linear layer, three pools."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from kdbench.models.cifar.net import CifarNet, conv_bn, he_init, register


class VGG(CifarNet):
    """Five groups of 3x3 convolutions, one linear layer; a max pool opens the second to the fourth group.

    There is none before the fifth, so both of the last groups see 4x4 pixels. The first group takes the place of a
    stem. Features are taken behind the ReLU and before the pool.
    """

    def __init__(self, depths: Sequence[int], num_classes: int = 100, in_chans: int = 3) -> None:
        """Build the network.

        Args:
            depths: number of convolutions of each of the five groups.
        """
        channels = [64, 128, 256, 512, 512]
        strides = [1, 2, 2, 2, 1]
        groups: list[nn.Module] = []
        for ends, stride, depth in zip(pairwise([in_chans, *channels]), strides, depths, strict=True):
            widths = [ends[0], *[ends[1]] * depth]
            convolutions = [conv_bn(*pair, 3, bias=True) for pair in pairwise(widths)]
            groups.append(nn.Sequential(*[nn.MaxPool2d(2)] * (stride - 1), *convolutions))
        super().__init__(groups[0], groups[1:], channels, strides, num_classes, in_chans)

    @staticmethod
    def init_module(module: nn.Module) -> None:
        he_init(module)
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)


register(VGG, "cifar_vgg8", depths=[1, 1, 1, 1, 1])
register(VGG, "cifar_vgg11", depths=[1, 1, 2, 2, 2])
register(VGG, "cifar_vgg13", depths=[2, 2, 2, 2, 2])
register(VGG, "cifar_vgg16", depths=[2, 2, 3, 3, 3])
register(VGG, "cifar_vgg19", depths=[2, 2, 4, 4, 4])
