"""MobileNetV2 (Sandler et al. 2018, arXiv 1801.04381) as the CRD protocol has it, of half width."""

from functools import partial
from itertools import pairwise

from torch import Tensor, nn

from kdbench.models.cifar.net import CifarNet, conv_bn, he_init, register, stage

GROUPS = [(1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
"""Expansion, channels at full width, blocks, stride. The second group does not down-sample, unlike in the paper."""


class InvertedResidual(nn.Module):
    """Expand, depthwise 3x3, project; identity around it where the shapes allow."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = expansion * in_channels
        self.residual = nn.Sequential(
            conv_bn(in_channels, hidden, 1),
            conv_bn(hidden, hidden, 3, stride, groups=hidden),
            conv_bn(hidden, out_channels, 1, relu=False),
        )
        self.identity = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        residual = self.residual(x)
        return x + residual if self.identity else residual


class MobileNetV2(CifarNet):
    """Seven groups of inverted residuals behind a stem of stride 2, with a 1x1 convolution in the head.

    Unlike in the paper the activation is ReLU, the first block has its expansion of factor 1 as a convolution, and
    widths are cut to whole numbers without rounding to multiples of eight.
    """

    def __init__(self, width: float, num_classes: int = 100, in_chans: int = 3) -> None:
        """Build the network.

        Args:
            width: factor on all channels but the 1280 of the head.
        """
        channels = [int(32 * width), *(int(full * width) for _, full, _, _ in GROUPS)]
        stages = [
            stage(partial(InvertedResidual, expansion=expansion), *ends, stride, depth)
            for ends, (expansion, _, depth, stride) in zip(pairwise(channels), GROUPS, strict=True)
        ]
        super().__init__(
            conv_bn(in_chans, channels[0], 3, 2),
            stages,
            channels,
            [2, *(stride for *_, stride in GROUPS)],
            num_classes,
            in_chans,
            conv_head=conv_bn(channels[-1], 1280, 1),
            head_hidden_size=1280,
        )

    @staticmethod
    def init_module(module: nn.Module) -> None:
        he_init(module)
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)


register(MobileNetV2, "cifar_mobilenetv2", width=0.5)
