"""The staged view against the plain timm model, for every family of the OFA protocol."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from kdbench.errors import KdbenchError, UnsupportedPair
from kdbench.models.create import create_model
from kdbench.models.features import Needs, Outputs
from kdbench.models.spec import ModelSpec
from kdbench.models.staged import StagedModel
from kdbench.testing import staged

FAMILIES: list[tuple[str, int, dict[str, Any]]] = [
    ("resnet18", 64, {}),
    ("mobilenetv2_035", 64, {}),
    ("convnext_atto", 64, {}),
    ("vit_tiny_patch16_224", 64, {"depth": 12}),
    ("deit_tiny_patch16_224", 48, {}),
    ("deit_tiny_distilled_patch16_224", 32, {}),
    ("swin_tiny_patch4_window7_224", 64, {"embed_dim": 24, "num_heads": [2, 2, 2, 2], "window_size": 4}),
    ("mixer_s32_224", 32, {"patch_size": 8, "num_blocks": 4, "embed_dim": 32}),
    ("resmlp_12_224", 64, {}),
]
ALL = Needs(frozenset({1, 2, 3, 4}), pooled=True)


@pytest.fixture(params=FAMILIES, ids=[f"{name}@{size}" for name, size, _ in FAMILIES])
def model(request: pytest.FixtureRequest) -> StagedModel:
    name, size, kwargs = request.param
    model = staged(name, size=size, **kwargs)
    # Fresh batch norms have mean 0 and variance 1, and some classifiers start at zero: wrong wiring would look right.
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.std() < 1e-3 and parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.1)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
    return model.eval()


@pytest.fixture
def images(model: StagedModel) -> torch.Tensor:
    return torch.randn(3, *model.image_shape, generator=torch.Generator().manual_seed(2))


def test_one_pass_equals_plain_forward(model: StagedModel, images: torch.Tensor) -> None:
    plain = model.model(images)
    outputs = model(images, ALL)
    assert torch.equal(outputs.logits, plain)
    assert torch.equal(model(images, Needs(pooled=True)).logits, plain)
    assert torch.equal(model(images).logits, plain)
    assert outputs.pooled.shape == (3, model.pooled_width)
    assert model.num_classes == 10


def test_shapes_are_the_probed_ones(model: StagedModel, images: torch.Tensor) -> None:
    outputs = model(images, ALL)
    for stage, info in model.stages.items():
        feature = outputs.stages[stage]
        assert feature.map.shape == (3, info.channels, *info.grid)
        assert feature.layout == info.layout
        assert (0 if feature.prefix is None else feature.prefix.shape[1]) == info.prefix
        assert feature.tokens.shape == (3, info.grid[0] * info.grid[1], info.channels)
    alone = model(images, Needs(frozenset({2})))
    assert torch.equal(alone.stages[2].map, outputs.stages[2].map)
    assert set(alone.tensors()) - {"prefix tokens of stage 2"} == {"logits", "stage 2"}


READ: dict[str, Callable[[Outputs], object]] = {
    "the pooled feature was not asked for: add pooled=True to student_needs": lambda outputs: outputs.pooled,
    "stage 3 was not asked for: add it to the stages of student_needs": lambda outputs: outputs.stages[3],
    "the second view was not asked for: set second_view = True": lambda outputs: outputs.second,
}


@pytest.mark.parametrize(("message", "read"), READ.items(), ids=["pooled", "stages", "second"])
def test_what_was_not_asked_for_says_how_to_ask(message: str, read: Callable[[Outputs], object]) -> None:
    model = staged("resnet18", size=64).eval()
    images = torch.zeros(2, *model.image_shape)
    for needs in (Needs(), Needs(frozenset({2}))):
        with pytest.raises(KdbenchError, match=message):
            read(model(images, needs))
    read(model(images, ALL).with_second(model(images)))


def test_gradients_equal_plain_backward(model: StagedModel, images: torch.Tensor) -> None:
    model(images, ALL).logits.square().sum().backward()
    staged_gradients = [p.grad.clone() for p in model.model.parameters() if p.grad is not None]
    model.zero_grad()
    model.model(images).square().sum().backward()
    plain = [p.grad for p in model.model.parameters() if p.grad is not None]
    assert len(plain) == len(staged_gradients) > 0
    for ours, theirs in zip(staged_gradients, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_resume_from_stage_3(model: StagedModel, images: torch.Tensor) -> None:
    outputs = model(images, ALL)
    tail = model.tail(3)
    third = outputs.stages[3]
    resumed = tail(third.map, third.prefix)
    assert torch.equal(resumed.logits, outputs.logits)
    assert torch.equal(resumed.pooled, outputs.pooled)
    injected = third.map.detach().clone().requires_grad_()
    tail(injected, None if third.prefix is None else third.prefix.detach()).logits.sum().backward()
    assert injected.grad is not None and injected.grad.abs().sum() > 0


def test_nothing_behind_the_last_stage_of_mobilenet() -> None:
    with pytest.raises(UnsupportedPair, match="nothing behind stage 4"):
        staged("mobilenetv2_035", size=64).tail(4)


def test_entering_behind_the_down_sampling() -> None:
    swin = staged("swin_tiny_patch4_window7_224", size=64, embed_dim=24, num_heads=[2, 2, 2, 2], window_size=2)
    assert (swin.tail(3, "stage").channels, swin.tail(3, "stage").grid) == (96, (4, 4))
    assert (swin.tail(3, "downsampled").channels, swin.tail(3, "downsampled").grid) == (192, (2, 2))
    resnet = staged("resnet18", size=64)
    assert resnet.tail(3, "downsampled").grid == resnet.stages[3].grid


def test_a_down_sampling_may_leave_channels_elsewhere_than_the_stage_had_them() -> None:
    tail = staged("pvt_v2_b0", size=64).tail(3, "downsampled")
    assert (tail.channels, tail.grid, tail.layout) == (256, (2, 2), "NHWC")


@pytest.mark.parametrize(
    ("name", "size"), [("resnet18", 64), ("mobilenetv4_conv_small", 64), ("cifar_mobilenetv2", 32)]
)
def test_resuming_leaves_batch_norm_statistics_alone(name: str, size: int) -> None:
    model = staged(name, size=size).train()
    tail = model.tail(3)
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    tail(torch.randn(4, tail.channels, *tail.grid))
    for name, value in model.model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_probing_leaves_model_and_random_stream_alone() -> None:
    torch.manual_seed(3)
    model = create_model(ModelSpec(timm="resnet18", kind="cnn", recipe="-"), 10, 3, 32).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    StagedModel(model, (3, 32, 32), ((0.5,) * 3, (0.5,) * 3)).tail(3)
    assert model.training
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("resnet81", {}, "unknown timm model 'resnet81'; did you mean"),
        ("resnet18", {"depth": 3}, "cannot build resnet18"),
    ],
)
def test_bad_specs(name: str, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(KdbenchError, match=message):
        create_model(ModelSpec(timm=name, kind="cnn", recipe="-", kwargs=kwargs), 10, 3, 32)


def test_illegal_image_size() -> None:
    with pytest.raises(KdbenchError, match="does not run at 3 px"):
        staged("convnext_atto", size=3)


def test_overrides_reach_the_model_while_another_error_is_handled() -> None:
    """Python then reports a doubled keyword as another kind of error."""
    spec = ModelSpec(timm="mixer_s32_224", kind="mlp", recipe="-", kwargs={"patch_size": 8, "num_blocks": 2})
    try:
        raise ValueError("data is missing")
    except ValueError:
        model = create_model(spec, 10, 3, 32)
    assert len(model.blocks) == 2  # type: ignore[arg-type]
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


@pytest.mark.parametrize("in_chans", [1, 5])
@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "mixer_s32_224"])
def test_any_number_of_channels(name: str, in_chans: int) -> None:
    model = staged(name, size=64, in_chans=in_chans).eval()
    images = torch.randn(2, in_chans, 64, 64)
    assert torch.equal(model(images, ALL).logits, model.model(images))


def test_a_network_for_other_channels_says_so() -> None:
    with pytest.raises(KdbenchError, match="to have 3 channels, but got 5"):
        staged("torchvision.models:resnet18", size=64, in_chans=5)
