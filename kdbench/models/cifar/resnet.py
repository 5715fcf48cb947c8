"""ResNets for CIFAR (He et al. 2016, arXiv 1512.03385, section 4.2) and ResNet-50 with a 32-pixel stem."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from kdbench.models.cifar.net import CifarNet, conv_bn, he_init, register, stage


class BasicBlock(nn.Module):
    """relu(residual(x) + shortcut(x)) with two 3x3 convolutions in the residual."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.residual = self.make_residual(in_channels, out_channels, stride)
        changes = stride != 1 or in_channels != out_channels
        self.shortcut = conv_bn(in_channels, out_channels, 1, stride, relu=False) if changes else nn.Identity()

    @staticmethod
    def make_residual(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
        """The residual branch, which ends in a norm."""
        return nn.Sequential(
            conv_bn(in_channels, out_channels, 3, stride),
            conv_bn(out_channels, out_channels, 3, relu=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.residual(x) + self.shortcut(x), inplace=True)


class Bottleneck(BasicBlock):
    """A residual block with 1x1 convolutions around a 3x3 convolution of a quarter of the channels."""

    @staticmethod
    def make_residual(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
        width = out_channels // 4
        return nn.Sequential(
            conv_bn(in_channels, width, 1),
            conv_bn(width, width, 3, stride),
            conv_bn(width, out_channels, 1, relu=False),
        )


class ResNet(CifarNet):
    """A ResNet behind a 3x3 convolution of stride 1; every stage but the first halves the resolution."""

    def __init__(
        self,
        depths: Sequence[int],
        widths: Sequence[int],
        stem_width: int,
        bottleneck: bool = False,
        num_classes: int = 100,
        in_chans: int = 3,
    ) -> None:
        """Build the network.

        Args:
            depths, widths: number of blocks and their outgoing channels, for each stage.
        """
        block = Bottleneck if bottleneck else BasicBlock
        channels = [stem_width, *widths]
        strides = [1, 1, *[2] * (len(widths) - 1)]
        stages = [
            stage(block, *ends, stride, depth)
            for ends, stride, depth in zip(pairwise(channels), strides[1:], depths, strict=True)
        ]
        super().__init__(conv_bn(in_chans, stem_width, 3), stages, channels, strides, num_classes, in_chans)

    @staticmethod
    def init_module(module: nn.Module) -> None:
        he_init(module)


for _depth in (8, 14, 20, 32, 44, 56, 110):
    register(ResNet, f"cifar_resnet{_depth}", depths=[(_depth - 2) // 6] * 3, widths=[16, 32, 64], stem_width=16)
for _depth in (8, 32):
    register(ResNet, f"cifar_resnet{_depth}x4", depths=[(_depth - 2) // 6] * 3, widths=[64, 128, 256], stem_width=32)
register(ResNet, "cifar_resnet50", depths=[3, 4, 6, 3], widths=[256, 512, 1024, 2048], stem_width=64, bottleneck=True)
