"""Networks that are not timm's: stages, features and tails of torchvision's and of one's own."""

import copy

import pytest
import torch
import torchvision
from torch import nn

from kdbench.errors import KdbenchError
from kdbench.models.adapter import Adapted
from kdbench.models.create import create_model
from kdbench.models.features import Needs
from kdbench.models.spec import ModelSpec
from kdbench.models.staged import StagedModel

SIZE = 64


def adapted(name: str, **kwargs: object) -> StagedModel:
    torch.manual_seed(0)
    spec = ModelSpec(timm=f"torchvision.models:{name}", kind="cnn", recipe="-", kwargs=kwargs)
    model = create_model(spec, 10, 3, SIZE)
    assert isinstance(model, Adapted)
    return StagedModel(model, (3, SIZE, SIZE), ((0.5,) * 3, (0.5,) * 3)).eval()


@pytest.mark.runs
@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("resnet18", [(64, 16), (128, 8), (256, 4), (512, 2)]),
        ("mobilenet_v3_small", [(16, 16), (24, 8), (48, 4), (576, 2)]),
        ("shufflenet_v2_x0_5", [(24, 16), (48, 8), (96, 4), (1024, 2)]),
        ("densenet121", [(256, 16), (512, 8), (1024, 4), (1024, 2)]),
        ("vgg11_bn", [(128, 32), (256, 16), (512, 8), (512, 4)]),
        ("regnet_x_400mf", [(32, 16), (64, 8), (160, 4), (400, 2)]),
        ("convnext_tiny", [(96, 16), (192, 8), (384, 4), (768, 2)]),
        ("swin_v2_t", [(96, 16), (192, 8), (384, 4), (768, 2)]),
        ("vit_b_16", [(768, 4), (768, 4), (768, 4), (768, 4)]),
    ],
)
def test_torchvision(name: str, shapes: list[tuple[int, int]]) -> None:
    sized = {"image_size": SIZE} if name.startswith("vit") else {}
    model = adapted(name, **sized)
    found = [(info.channels, info.grid[0]) for info in model.stages.values()]
    assert found == shapes
    images = torch.randn(3, 3, SIZE, SIZE)
    outputs = model(images, Needs(frozenset(model.stages), pooled=True))
    torch.manual_seed(0)
    plain = getattr(torchvision.models, name)(num_classes=10, **sized).eval()
    assert torch.equal(outputs.logits, plain(images)), "the same draws give the same network"
    assert torch.equal(model.model.get_classifier()(outputs.pooled), outputs.logits)  # type: ignore[operator]


@pytest.mark.runs
def test_one_resumes() -> None:
    model = adapted("resnet18")
    images = torch.randn(3, 3, SIZE, SIZE)
    outputs = model(images, Needs(frozenset({3})))
    twin = copy.deepcopy(model)
    for one in (model, twin):
        tail = one.tail(3)
        torch.testing.assert_close(tail(outputs.stages[3].map).logits, outputs.logits)


def test_gradients_are_those_of_the_network() -> None:
    model = adapted("mobilenet_v3_small")
    images = torch.randn(2, 3, SIZE, SIZE)
    everything = Needs(frozenset(model.stages), pooled=True)
    found = []
    for logits in (model(images, everything).logits, model.model(images)):
        model.zero_grad()
        logits.square().sum().backward()
        found.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert len(found[0]) == len(list(model.parameters()))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


class Tokens(nn.Module):
    """A transformer with a class token, of plain torch modules."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 16, 16)
        self.token = nn.Parameter(torch.zeros(1, 1, 16))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True) for _ in range(8)
        )
        self.fc = nn.Linear(16, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.patches(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        for block in self.blocks:
            x = block(x)
        return self.fc(x[:, 0])


def test_a_transformer_of_ones_own() -> None:
    model = StagedModel(Adapted(Tokens(), (3, SIZE, SIZE)), (3, SIZE, SIZE), ((0.5,) * 3, (0.5,) * 3)).eval()
    assert [(info.channels, info.grid, info.prefix, info.layout) for info in model.stages.values()] == [
        (16, (4, 4), 1, "tokens")
    ] * 4
    outputs = model(torch.randn(2, 3, SIZE, SIZE), Needs(frozenset({3})))
    tail, third = model.tail(3), outputs.stages[3]
    torch.testing.assert_close(tail(third.map, third.prefix).logits, outputs.logits)


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (nn.Sequential(nn.Conv2d(3, 10, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), "does not end in a linear layer"),
        (nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE**2, 10)), "none of its modules puts out maps"),
    ],
)
def test_what_cannot_be_adapted_says_why(network: nn.Module, reason: str) -> None:
    with pytest.raises(KdbenchError, match=reason):
        Adapted(network, (3, SIZE, SIZE))
