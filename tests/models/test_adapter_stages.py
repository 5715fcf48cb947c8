"""Stages of networks that pad, pool or resize in modules, and stages that the user names."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from kdbench.errors import KdbenchError
from kdbench.models.adapter import Adapted
from kdbench.models.staged import StagedModel
from kdbench.suites.anymodel import with_model
from kdbench.suites.schema import Suite

Shapes = list[tuple[int, int]]


class Block(nn.Sequential):
    """As EfficientNet ports have it: padding like TensorFlow's, in a module or in the convolution."""

    def __init__(self, width: int, out: int, stride: int, explicit: bool) -> None:
        inner = 4 * width
        convolution = nn.Conv2d(inner, inner, 3, stride, 0 if explicit else 1, groups=inner)
        super().__init__(
            *(nn.Conv2d(width, inner, 1), nn.BatchNorm2d(inner), nn.SiLU()),
            nn.Sequential(nn.ZeroPad2d(1), convolution) if explicit else convolution,
            *(nn.Conv2d(inner, out, 1), nn.BatchNorm2d(out)),
        )


def padded(explicit: bool, *first: nn.Module) -> nn.Module:
    shapes = [(8, 16, 2), (16, 16, 1), (16, 32, 2), (32, 32, 1), (32, 48, 2), (48, 64, 2)]
    blocks = [Block(*shape, explicit) for shape in shapes]
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)
    return nn.Sequential(*first, nn.Conv2d(3, 8, 3, 1, 1), *blocks, *head)


class Gated(nn.Module):
    """A squeeze-and-excitation block with a pooling module, and nothing but a mean before the classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in ((3, 8), (8, 16), (16, 24), (24, 32)))
        self.gates = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, width, 1), nn.Sigmoid()) for width in (8, 16, 24)
        )
        self.last = nn.BatchNorm2d(32)
        self.fc = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        for block, gate in zip(self.blocks[:3], self.gates, strict=True):
            x = block(x)
            x = x * gate(x)
        return self.fc(self.last(self.blocks[3](x)).mean((2, 3)))


class Sums(nn.Module):
    """Activations of sums that the glue makes."""

    def __init__(self) -> None:
        super().__init__()
        self.downs = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in ((3, 8), (8, 16), (16, 24), (24, 32)))
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, 1, 1) for width in (8, 16, 24, 32))
        self.relus = nn.ModuleList(nn.ReLU() for _ in range(4))
        self.fc = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        for down, conv, relu in zip(self.downs, self.convs, self.relus, strict=True):
            x = down(x)
            x = relu(conv(x) + x)
        return self.fc(x.mean((2, 3)))


def stages(network: nn.Module, size: int = 32, names: tuple[str, ...] = ()) -> Shapes:
    return [(info.channels, info.grid[0]) for info in staged(network, size, names).stages.values()]


def staged(network: nn.Module, size: int = 32, names: tuple[str, ...] = ()) -> StagedModel:
    return StagedModel(Adapted(network, (3, size, size), names), (3, size, size), ((0.5,) * 3, (0.5,) * 3)).eval()


def modules(network: nn.Module, size: int = 32) -> list[str]:
    model = staged(network, size)
    info: list[dict[str, str]] = model.model.feature_info  # type: ignore[assignment]
    return [info[stage.tap]["own_name"] for stage in model.stages.values() if stage.tap is not None]


END: Shapes = [(16, 16), (32, 8), (48, 4), (64, 2)]


def pooled(*sizes: int) -> nn.Module:
    """Convolutions with their pooling in one module, as hand-written networks have them."""
    ends = zip((3, *sizes[:-1]), sizes, strict=True)
    parts = [nn.Sequential(nn.Conv2d(a, b, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2)) for a, b in ends]
    return nn.Sequential(*parts, nn.Flatten(), nn.Linear(4 * sizes[-1], 10))


@pytest.mark.parametrize(
    ("network", "size", "shapes"),
    [
        (lambda: padded(False), 32, END),
        (lambda: padded(True), 32, END),
        # An up-sampling of the input, and a normalisation of it, are no stages.
        (lambda: padded(True, nn.Upsample(size=32)), 16, END),
        (lambda: padded(True, nn.Upsample(scale_factor=0.5)), 64, END),
        # An odd size: the padding of a block has the size of the stage before.
        (lambda: padded(True, nn.ReflectionPad2d(1)), 30, END),
        (Gated, 64, [(8, 32), (16, 16), (24, 8), (32, 4)]),
        (Sums, 64, [(8, 32), (16, 16), (24, 8), (32, 4)]),
        (lambda: pooled(8, 16, 24, 32), 32, [(8, 32), (16, 16), (24, 8), (32, 4)]),
    ],
)
def test_stages_end_in_what_layers_put_out(network: object, size: int, shapes: Shapes) -> None:
    torch.manual_seed(0)
    assert stages(network(), size) == shapes  # type: ignore[operator]


def test_a_stage_ends_behind_the_activation() -> None:
    assert modules(Sums(), 64) == [f"relus.{i}" for i in range(4)]
    assert modules(pooled(8, 16, 24, 32)) == [f"{i}.1" for i in range(4)]
    assert modules(padded(True)) == ["2", "4", "5", "6"]


def test_the_user_names_stages() -> None:
    torch.manual_seed(0)
    network = padded(True)
    names = ("1.3.0", "2", "3.2", "4")
    assert stages(copy.deepcopy(network), 32, names) == [(32, 34), (16, 16), (64, 16), (32, 8)]
    assert list(staged(copy.deepcopy(network), 32, ("4", "6")).stages) == [3, 4]
    for wrong, reason in (
        (("4", "6x"), "unknown module of Sequential '6x'"),
        (("9",), "puts out no maps"),
        (("1", "2", "3", "4", "5"), "there are 4 stages, and 5 modules"),
    ):
        with pytest.raises(KdbenchError, match=reason):
            Adapted(copy.deepcopy(network), (3, 32, 32), wrong)


CIFAR_ONLY = """
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.layer1 = nn.Sequential(nn.Conv2d(1, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU())
        self.layer2 = nn.Sequential(nn.Conv2d(16, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU())
        self.avgpool = nn.AvgPool2d(8)
        self.fc = nn.Linear(32, num_classes)

    def forward(self, x):
        x = self.avgpool(self.layer2(self.layer1(x)))
        return self.fc(x.view(x.size(0), -1))

def build(num_classes):
    return Net(num_classes)
"""


def test_a_network_for_one_size(proxy: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "small.py").write_text(CIFAR_ONLY)
    monkeypatch.chdir(tmp_path)
    suite, name = with_model(proxy, "./small.py:build", as_teacher=False)
    assert suite.models[name].kind == "cnn"
    suite, name = with_model(proxy, "./small.py:build[stages=['layer1','layer2']]", as_teacher=False)
    assert suite.models[name].stages == ("layer1", "layer2") and not suite.models[name].kwargs
    assert suite.models[name].identity["stages"] == ("layer1", "layer2")
