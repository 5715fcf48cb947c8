"""Wide residual networks (Zagoruyko and Komodakis 2016, arXiv 1605.07146), without dropout."""

from itertools import pairwise

from torch import Tensor, nn

from kdbench.models.cifar.net import CifarNet, he_init, register, stage


class PreactBlock(nn.Module):
    """x + residual(x) with norms and ReLUs before the convolutions; a projection shortcut shares the first of them."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.norm1 = _bn_relu(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.norm2 = _bn_relu(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        changes = stride != 1 or in_channels != out_channels
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        activated = self.norm1(x)
        residual = self.conv2(self.norm2(self.conv1(activated)))
        return residual + (x if self.shortcut is None else self.shortcut(activated))


class WideResNet(CifarNet):
    """WRN-depth-factor: a convolution, three stages of (depth - 4) / 6 blocks, a closing norm."""

    def __init__(self, depth: int, widen_factor: int, num_classes: int = 100, in_chans: int = 3) -> None:
        channels = [16, *(width * widen_factor for width in (16, 32, 64))]
        strides = [1, 1, 2, 2]
        depth_of_stage = (depth - 4) // 6
        stages = [
            stage(PreactBlock, *ends, stride, depth_of_stage)
            for ends, stride in zip(pairwise(channels), strides[1:], strict=True)
        ]
        stem = nn.Conv2d(in_chans, channels[0], 3, 1, 1, bias=False)
        super().__init__(stem, stages, channels, strides, num_classes, in_chans, norm=_bn_relu(channels[-1]))

    @staticmethod
    def init_module(module: nn.Module) -> None:
        he_init(module)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)


def _bn_relu(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True))


for _depth, _factor in ((16, 1), (16, 2), (40, 1), (40, 2)):
    register(WideResNet, f"cifar_wrn_{_depth}_{_factor}", depth=_depth, widen_factor=_factor)
