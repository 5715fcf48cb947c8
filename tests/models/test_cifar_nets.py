"""The 32-pixel networks against the reference implementation's numbers, timm's interface and the staged contract."""

from pathlib import Path
from typing import NamedTuple

import pytest
import timm
import torch
from torch import Tensor, nn

import kdbench.models.cifar  # noqa: F401  (registers the networks)
from kdbench.models.cifar.net import CifarNet
from kdbench.models.features import Needs
from kdbench.models.staged import StagedModel
from kdbench.suites.loading import load_suite
from kdbench.testing import staged
from kdbench.training.optim import learning_rate
from tests.conftest import NO_DATA


class Reference(NamedTuple):
    """Facts about a network.

    Attributes:
        parameters: their number at 100 classes.
        logits: the first three of the first image, computed with RepDistiller's own networks under `set_weights`.
        stages: (channels, side) of the stages 1-4 at 32 px.
        pooled: width of the pooled feature.
    """

    parameters: int
    logits: tuple[float, float, float]
    stages: tuple[tuple[int, int], ...]
    pooled: int


THIN = ((16, 32), (16, 32), (32, 16), (64, 8))
X4 = ((32, 32), (64, 32), (128, 16), (256, 8))
WRN_2 = ((16, 32), (32, 32), (64, 16), (128, 8))
VGG = ((64, 32), (128, 16), (256, 8), (512, 4))

NETS = {
    "resnet8": Reference(83_892, (2.392344, -0.821418, -0.587467), THIN, 64),
    "resnet14": Reference(181_108, (3.964654, -1.541078, -1.137014), THIN, 64),
    "resnet20": Reference(278_324, (5.311454, -2.114223, -1.253419), THIN, 64),
    "resnet32": Reference(472_756, (8.17725, -3.550031, -1.697065), THIN, 64),
    "resnet44": Reference(667_188, (11.18861, -4.725063, -2.20893), THIN, 64),
    "resnet56": Reference(861_620, (13.992867, -5.700366, -2.712185), THIN, 64),
    "resnet110": Reference(1_736_564, (27.409201, -11.660055, -5.179094), THIN, 64),
    "resnet8x4": Reference(1_233_540, (4.549876, 0.416575, -0.499084), X4, 256),
    "resnet32x4": Reference(7_433_860, (13.374568, 0.864144, -1.382906), X4, 256),
    "resnet50": Reference(
        23_705_252, (27.237357, -1.043939, -1.33874), ((256, 32), (512, 16), (1024, 8), (2048, 4)), 2048
    ),
    "wrn_16_1": Reference(180_916, (1.632893, -0.615464, -0.460656), THIN, 64),
    "wrn_16_2": Reference(703_284, (1.741806, 0.014006, -0.674032), WRN_2, 128),
    "wrn_40_1": Reference(569_780, (1.689772, -0.647718, -0.471829), THIN, 64),
    "wrn_40_2": Reference(2_255_156, (1.7092, -0.015322, -0.697695), WRN_2, 128),
    "vgg8": Reference(3_965_028, (4.432425, -0.071229, -0.848248), VGG, 512),
    "vgg11": Reference(9_277_284, (4.537476, -0.075399, -0.771916), VGG, 512),
    "vgg13": Reference(9_462_180, (4.324019, -0.117958, -0.607332), VGG, 512),
    "vgg16": Reference(14_774_436, (4.612762, -0.099101, -0.597064), VGG, 512),
    "vgg19": Reference(20_086_692, (4.541418, 0.124039, -0.725772), VGG, 512),
    "mobilenetv2": Reference(812_836, (7.183659, -0.046995, -0.328753), ((12, 16), (16, 8), (48, 4), (160, 2)), 1280),
    "shufflenetv1": Reference(
        949_258, (17.307007, -2.157255, 3.120546), ((24, 32), (240, 16), (480, 8), (960, 4)), 960
    ),
    "shufflenetv2": Reference(
        1_355_528, (5.953771, -0.288792, 0.074008), ((24, 32), (116, 16), (232, 8), (464, 4)), 1024
    ),
}
ALL = Needs(frozenset({1, 2, 3, 4}), pooled=True)


def fixed(shape: torch.Size) -> Tensor:
    """Numbers in [-1, 1] that depend on the shape alone."""
    n = torch.arange(shape.numel(), dtype=torch.float64)
    return (0.7 * n * n + n).sin().view(shape)


@torch.no_grad()
def set_weights(model: nn.Module) -> None:
    """Weights that the reference implementation was given, too."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.weight.copy_(fixed(module.weight.shape) * (2 / module.weight[0].numel()) ** 0.5)
            if module.bias is not None:
                module.bias.copy_(0.1 * fixed(module.bias.shape))
        elif isinstance(module, nn.BatchNorm2d):
            module.weight.copy_(1 + 0.5 * fixed(module.weight.shape))
            module.bias.copy_(0.2 * fixed(module.bias.shape))


@pytest.fixture(params=NETS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def model(name: str) -> StagedModel:
    """With batch norms that do something: fresh ones have mean 0 and variance 1, and wrong wiring would look right."""
    model = staged(f"cifar_{name}", classes=100)
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5, generator=generator)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2.0, generator=generator)  # type: ignore[union-attr]
    return model.eval()


def build(name: str, **kwargs: int) -> CifarNet:
    model = timm.create_model(f"cifar_{name}", **kwargs)  # type: ignore[arg-type]
    assert isinstance(model, CifarNet)
    return model


def test_parameters(name: str) -> None:
    assert sum(p.numel() for p in build(name).parameters()) == NETS[name].parameters


@pytest.mark.runs
def test_logits_are_the_reference_implementations(name: str) -> None:
    model = build(name).double().train()
    set_weights(model)
    with torch.no_grad():
        logits = model(fixed(torch.Size((4, 3, 32, 32))))
    assert logits[0, :3].tolist() == pytest.approx(NETS[name].logits, abs=2e-6)


def test_initialisation(name: str) -> None:
    """He by fan-out for convolutions; the classifier and the ShuffleNets as the reference code leaves them."""
    torch.manual_seed(0)
    model = build(name)
    for convolution in (m for m in model.modules() if isinstance(m, nn.Conv2d) and m.weight.numel() >= 4000):
        weight = convolution.weight
        fan_in, fan_out = weight[0].numel(), weight[:, 0].numel()
        std = (1 / (3 * fan_in)) ** 0.5 if name.startswith("shufflenet") else (2 / fan_out) ** 0.5
        assert weight.std().item() == pytest.approx(std, rel=0.06)
        if convolution.bias is not None:
            assert not convolution.bias.any()
    width = NETS[name].pooled
    small = name.startswith(("vgg", "mobilenet"))
    assert model.fc.weight.std().item() == pytest.approx(0.01 if small else (1 / (3 * width)) ** 0.5, rel=0.06)
    assert bool(model.fc.bias.any()) is not (small or name.startswith("wrn"))


def test_timms_interface(name: str, images: Tensor) -> None:
    model = build(name, num_classes=7).eval()
    assert (model.num_classes, model.in_chans) == (7, 3)
    assert (model.default_cfg["input_size"], model.default_cfg["num_classes"]) == ((3, 32, 32), 100)
    final = model.forward_features(images)
    assert final.shape[1] == model.num_features
    pooled = model.forward_head(final, pre_logits=True)
    logits = model(images)
    assert pooled.shape == (3, model.head_hidden_size) == (3, NETS[name].pooled)
    assert logits.shape == (3, 7)
    assert torch.equal(model.forward_head(final), logits)
    assert torch.equal(model.get_classifier()(pooled), logits)
    model.reset_classifier(5)
    assert model(images).shape == (3, 5) and model.num_classes == 5
    model.reset_classifier(0)
    assert torch.equal(model(images), pooled)
    assert torch.equal(build(name, num_classes=0).eval().get_classifier()(pooled), pooled)


def test_intermediates(name: str, images: Tensor) -> None:
    model = build(name).eval()
    outputs: dict[str, Tensor] = {}
    for info in model.feature_info:
        module = model.get_submodule(info["module"])
        module.register_forward_hook(lambda _, __, out, where=info["module"]: outputs.update({where: out.clone()}))
    final = model.forward_features(images)
    returned, features = model.forward_intermediates(images)
    assert torch.equal(returned, final)
    for info, feature in zip(model.feature_info, features, strict=True):
        assert feature.shape[1:] == (info["num_chs"], 32 // info["reduction"], 32 // info["reduction"])
        assert torch.equal(feature, outputs[info["module"]])
    *_, normed = model.forward_intermediates(images, indices=1, norm=True, intermediates_only=True)
    assert torch.equal(normed, final)
    outputs.clear()
    early, _ = model.forward_intermediates(images, indices=[0, 2], stop_early=True)
    assert torch.equal(early, features[2])
    assert list(outputs) == [info["module"] for info in model.feature_info[:3]]
    with pytest.raises(ValueError, match="not NLC"):
        model.forward_intermediates(images, output_fmt="NLC")


def test_other_channels(name: str) -> None:
    model = build(name, in_chans=1).eval()
    assert model.in_chans == 1
    assert model(torch.zeros(1, 1, 32, 32)).shape == (1, 100)


def test_stages(name: str, model: StagedModel, images: Tensor) -> None:
    shapes = {stage: (info.channels, info.grid[0]) for stage, info in model.stages.items()}
    assert shapes == dict(enumerate(NETS[name].stages, start=1))
    assert model.pooled_width == NETS[name].pooled
    outputs = model(images, ALL)
    assert torch.equal(outputs.logits, model.model(images))
    for stage, info in model.stages.items():
        assert outputs.stages[stage].map.shape == (3, info.channels, *info.grid)


@pytest.mark.runs
def test_resuming_from_every_stage(model: StagedModel, images: Tensor) -> None:
    outputs = model(images, ALL)
    for stage in (1, 2, 3, 4):
        state = outputs.stages[stage].map.detach().requires_grad_()
        resumed = model.tail(stage)(state)
        assert torch.equal(resumed.logits, outputs.logits), stage
        assert torch.equal(resumed.pooled, outputs.pooled), stage
        (gradient,) = torch.autograd.grad(resumed.logits.square().sum(), state)
        assert gradient.abs().sum() > 0, stage


def test_every_parameter_gets_a_gradient(model: StagedModel, images: Tensor) -> None:
    model.train()(images).logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        # A convolution's bias in front of a batch norm has no effect, so its gradient is rounding noise around zero.
        assert parameter.grad.any() or parameter.ndim == 1, name


def test_suite_protocol() -> None:
    suite = load_suite("cifar100-crd")
    assert len(suite.pairs) == 13
    assert all(model.kind == "cnn" and model.timm.removeprefix("cifar_") in NETS for model in suite.models.values())
    used = {end for pair in suite.pairs for end in (pair.teacher, pair.student)}
    assert used == set(suite.models)
    light = {name for name in used if suite.recipe_of(name).lr == 0.01}
    assert light == {"mobilenetv2", "shufflenetv1", "shufflenetv2"}
    assert suite.teacher_path("vgg13", NO_DATA) == Path(NO_DATA, "teachers", "cifar100-crd", "vgg13.safetensors")


def test_the_suites_schedule() -> None:
    """The reference divides by ten when its epoch, counted from 1, is greater than 150, 180, 210."""
    recipe = load_suite("cifar100-crd").recipe_of("resnet20")
    for epoch in range(1, recipe.epochs + 1):
        expected = 0.05 * 0.1 ** sum(epoch > decay for decay in (150, 180, 210))
        assert learning_rate(recipe, epoch - 1) == pytest.approx(expected)
        assert learning_rate(recipe, epoch - 0.01) == pytest.approx(expected)
