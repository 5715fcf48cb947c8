"""ShuffleNet V1 (arXiv 1707.01083) and V2 (arXiv 1807.11164) behind a 1x1 stem, initialised as PyTorch does."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdbench.models.cifar.net import CifarNet, conv_bn, register, stage

STEM_WIDTH = 24
STRIDES = [1, 2, 2, 2]


class UnitV1(nn.Module):
    """Grouped 1x1, shuffle, depthwise 3x3, grouped 1x1; added to x, or at stride 2 joined to the pooled x.

    Unlike in the paper a ReLU follows the depthwise convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, groups: int) -> None:
        super().__init__()
        branch = out_channels if stride == 1 else out_channels - in_channels
        hidden = branch // 4
        opening = 1 if in_channels == STEM_WIDTH else groups  # the stem's few channels are not divided
        self.residual = nn.Sequential(
            conv_bn(in_channels, hidden, 1, groups=opening),
            nn.ChannelShuffle(opening),
            conv_bn(hidden, hidden, 3, stride, groups=hidden),
            conv_bn(hidden, branch, 1, groups=groups, relu=False),
        )
        self.pool = None if stride == 1 else nn.AvgPool2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        residual = self.residual(x)
        joined = residual + x if self.pool is None else torch.cat([residual, self.pool(x)], dim=1)
        return F.relu(joined, inplace=True)


class UnitV2(nn.Module):
    """Two branches, joined and shuffled.

    At stride 1 each has one half of the channels, and the first is the identity; at stride 2 each has them all. Where
    they are computed, a 1x1 convolution and a depthwise 3x3 one take turns.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        half = out_channels // 2
        self.split = stride == 1
        incoming = half if self.split else in_channels
        self.short = (
            nn.Identity()
            if self.split
            else nn.Sequential(
                conv_bn(incoming, incoming, 3, stride, groups=incoming, relu=False),
                conv_bn(incoming, half, 1),
            )
        )
        self.long = nn.Sequential(
            conv_bn(incoming, half, 1),
            conv_bn(half, half, 3, stride, groups=half, relu=False),
            conv_bn(half, half, 1),
        )
        self.shuffle = nn.ChannelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        short, long = x.chunk(2, dim=1) if self.split else (x, x)
        return self.shuffle(torch.cat([self.short(short), self.long(long)], dim=1))


class ShuffleNetV1(CifarNet):
    """Three stages of ShuffleNet units, the first unit of each at stride 2."""

    def __init__(
        self, widths: Sequence[int], depths: Sequence[int], groups: int, num_classes: int = 100, in_chans: int = 3
    ) -> None:
        channels = [STEM_WIDTH, *widths]
        stages = _stages(partial(UnitV1, groups=groups), channels, depths)
        super().__init__(conv_bn(in_chans, STEM_WIDTH, 1), stages, channels, STRIDES, num_classes, in_chans)


class ShuffleNetV2(CifarNet):
    """Three stages of ShuffleNetV2 units, the first unit of each at stride 2, and a 1x1 convolution in the head."""

    def __init__(
        self, widths: Sequence[int], depths: Sequence[int], head_width: int, num_classes: int = 100, in_chans: int = 3
    ) -> None:
        channels = [STEM_WIDTH, *widths]
        super().__init__(
            conv_bn(in_chans, STEM_WIDTH, 1),
            _stages(UnitV2, channels, depths),
            channels,
            STRIDES,
            num_classes,
            in_chans,
            conv_head=conv_bn(channels[-1], head_width, 1),
            head_hidden_size=head_width,
        )


def _stages(
    unit: Callable[[int, int, int], nn.Module], channels: Sequence[int], depths: Sequence[int]
) -> list[nn.Sequential]:
    return [stage(unit, *ends, 2, depth) for ends, depth in zip(pairwise(channels), depths, strict=True)]


register(ShuffleNetV1, "cifar_shufflenetv1", widths=[240, 480, 960], depths=[4, 8, 4], groups=3)
register(ShuffleNetV2, "cifar_shufflenetv2", widths=[116, 232, 464], depths=[4, 8, 4], head_width=1024)
