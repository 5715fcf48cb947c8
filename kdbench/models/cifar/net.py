"""What the 32-pixel networks share: timm's interface over a stem, stages and a head, and their registration."""

from collections.abc import Callable, Sequence
from itertools import accumulate
from operator import mul
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._features import feature_take_indices
from torch import Tensor, nn

CONFIG = {
    "input_size": (3, 32, 32),
    "num_classes": 100,
    "crop_pct": 1.0,
    "mean": (0.5071, 0.4867, 0.4408),
    "std": (0.2675, 0.2565, 0.2761),
    "classifier": "fc",
}
"""timm's description of every network here; mean and std are those of CIFAR-100 as the protocol has them."""

default_cfgs: dict[str, Any] = {}
"""Where `register_model` looks for that description: in the module of the entry point."""


class CifarNet(nn.Module):
    """A network for 32-pixel images with timm's interface; a family adds its blocks.

    `feature_info` has one entry for the stem and one for each stage. Its ends of stages are then those the CRD
    protocol distils: kdbench's rule (`kdbench.models.stages`) makes of them

    * ResNet-8 to -110, WRN: reductions 1, 1, 2, 4, so the stem and the three stages;
    * ShuffleNets: 1, 2, 4, 8, likewise;
    * ResNet-50: 1, 1, 2, 4, 8, the four stages without the stem;
    * VGG: 1, 2, 4, 8, 8, the last block at each of the four resolutions;
    * MobileNetV2: 2, 2, 2, 4, 8, 8, 16, 16, likewise.

    With an entry for every block, the rule would cut the first stage of a ResNet in two and leave out its stem.

    Attributes:
        norm: closes the trunk: part of `forward_features`, not of the last stage's feature (pre-activation networks).
        conv_head: opens the head (MobileNetV2, ShuffleNetV2). Not part of the trunk, so that stage 4 is what the last
            block returns.
        num_features: channels that `forward_features` returns.
        head_hidden_size: width of the pooled feature.
    """

    def __init__(
        self,
        stem: nn.Module,
        stages: Sequence[nn.Module],
        channels: Sequence[int],
        strides: Sequence[int],
        num_classes: int,
        in_chans: int,
        *,
        norm: nn.Module | None = None,
        conv_head: nn.Module | None = None,
        head_hidden_size: int | None = None,
    ) -> None:
        """Assemble and initialise the network.

        Args:
            channels, strides: of the stem and each stage.
            num_classes: 0 for no classifier.
            in_chans: channels of the image, which the stem has to take.
            head_hidden_size: what `conv_head` returns, where there is one.
        """
        super().__init__()
        self.in_chans = in_chans
        self.num_features = channels[-1]
        self.head_hidden_size = head_hidden_size or self.num_features
        modules = ["stem", *(f"stages.{index}" for index in range(len(stages)))]
        self.feature_info = [
            {"num_chs": width, "reduction": reduction, "module": module}
            for width, reduction, module in zip(channels, accumulate(strides, mul), modules, strict=True)
        ]
        self.stem = stem
        self.stages = nn.Sequential(*stages)
        self.norm = norm or nn.Identity()
        self.conv_head = conv_head or nn.Identity()
        self.apply(self.init_module)
        self.reset_classifier(num_classes)

    @staticmethod
    def init_module(module: nn.Module) -> None:
        """Initialise one layer; as long as a family says nothing else, PyTorch's own initialisation stands."""

    def get_classifier(self) -> nn.Module:
        """Return the classifier, the last layer."""
        return self.fc

    def reset_classifier(self, num_classes: int) -> None:
        """A new classifier for `num_classes` classes; with 0, the network returns its pooled feature."""
        self.num_classes = num_classes
        self.fc = nn.Linear(self.head_hidden_size, num_classes) if num_classes else nn.Identity()
        self.init_module(self.fc)

    def forward_features(self, x: Tensor) -> Tensor:
        """Images (B, in_chans, H, W) to the trunk's final features (B, num_features, H', W')."""
        return self.norm(self.stages(self.stem(x)))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Final features to logits (B, num_classes), or to the pooled feature (B, head_hidden_size)."""
        x = self.conv_head(x).mean(dim=(2, 3))
        return x if pre_logits else self.fc(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Features (B, C, H, W) at the entries of `feature_info`; arguments and result as everywhere in timm.

        Args:
            indices: entries to return; the last so many for a number, all for None.
            norm: the last stage's feature is returned behind the trunk's norm.
            stop_early: compute no more than the deepest of them; the final features are then those.
            output_fmt: there is `NCHW` only.
            intermediates_only: leave out the final features.
        """
        if output_fmt != "NCHW":
            raise ValueError(f"{type(self).__name__} returns NCHW features, not {output_fmt}")
        take, deepest = feature_take_indices(len(self.feature_info), indices)
        parts = [self.stem, *self.stages]
        intermediates: list[Tensor] = []
        for index, part in enumerate(parts[: deepest + 1] if stop_early else parts):
            feature = x = part(x)
            if index == len(parts) - 1:
                x = self.norm(x)
            if index in take:
                intermediates.append(x if norm else feature)
        return intermediates if intermediates_only else (x, intermediates)


def he_init(module: nn.Module) -> None:
    """He's normal initialisation of a convolution by its fan-out k * k * out_channels, biases zero."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def conv_bn(
    in_channels: int,
    out_channels: int,
    kernel: int,
    stride: int = 1,
    *,
    groups: int = 1,
    relu: bool = True,
    bias: bool = False,
) -> nn.Sequential:
    """Convolution that keeps the size at stride 1, batch norm, ReLU."""
    layers = [
        nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=bias),
        nn.BatchNorm2d(out_channels),
    ]
    return nn.Sequential(*layers, nn.ReLU(inplace=True)) if relu else nn.Sequential(*layers)


def stage(
    block: Callable[[int, int, int], nn.Module], in_channels: int, out_channels: int, stride: int, depth: int
) -> nn.Sequential:
    """`depth` blocks, the first of which has the stage's stride and takes the channels of the one before.

    Args:
        block: makes a block of its incoming channels, its outgoing channels and its stride.
    """
    return nn.Sequential(
        block(in_channels, out_channels, stride), *(block(out_channels, out_channels, 1) for _ in range(depth - 1))
    )


def register(net: type[CifarNet], name: str, **architecture: Any) -> None:
    """Make a network known to timm; keyword arguments of `timm.create_model` go before those of `architecture`."""

    def build(pretrained: bool = False, **kwargs: Any) -> CifarNet:
        return build_model_with_cfg(net, name, pretrained, **(architecture | kwargs))

    build.__name__ = name
    default_cfgs.update(generate_default_cfgs({name: CONFIG}))
    register_model(build)
