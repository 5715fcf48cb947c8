"""Running a network from one stage to the next: the stages, composed, are the network."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from kdbench.errors import UnsupportedPair
from kdbench.models.features import Feature, Needs
from kdbench.models.staged import StagedModel
from kdbench.testing import staged
from tests.models.test_resume import Glue, known

ALL = Needs(frozenset({1, 2, 3, 4}), pooled=True)
FAMILIES: dict[str, tuple[str, int, dict[str, Any]]] = {
    "resnet": ("resnet18", 64, {}),
    "convnext": ("convnext_atto", 64, {}),
    "vit": ("vit_tiny_patch16_224", 64, {"depth": 8, "embed_dim": 48, "num_heads": 3}),
    "vit without class token": ("vit_tiny_patch16_224", 64, {"depth": 4, "class_token": False, "global_pool": "avg"}),
    "two class tokens": ("deit_tiny_distilled_patch16_224", 32, {}),
    "swin": ("swin_tiny_patch4_window7_224", 64, {"embed_dim": 24, "num_heads": [2, 2, 2, 2], "window_size": 4}),
    "mixer": ("mixer_s32_224", 32, {"patch_size": 8, "num_blocks": 4, "embed_dim": 32}),
    "head with batch norm": ("mobilenetv4_conv_small", 64, {}),
    "stage 4 is the end": ("mobilenetv2_035", 64, {}),
    "sizes beside tokens": ("xcit_nano_12_p8_224", 32, {}),
    "channels elsewhere": ("pvt_v2_b0", 64, {}),
    "three stages": ("efficientvit_m0", 64, {}),
}


@pytest.mark.runs
@pytest.mark.parametrize("family", FAMILIES)
def test_stages_run_one_by_one_are_the_network(family: str) -> None:
    name, size, kwargs = FAMILIES[family]
    model = staged(name, size=size, **kwargs).eval()
    model.requires_grad_(False)
    images = torch.randn(5, 3, size, size, generator=torch.Generator().manual_seed(4))
    first, *others = sorted(model.stages)
    outputs = model(images, Needs(frozenset(model.stages), pooled=True))
    injected = outputs.stages[first].map.clone().requires_grad_()
    feature = Feature(injected, outputs.stages[first].prefix, outputs.stages[first].layout)
    for stage in others:
        segment = model.segment(first)
        assert (segment.stage, segment.following) == (first, stage)
        feature, expected = segment(feature.map, feature.prefix), outputs.stages[stage]
        assert torch.equal(feature.map, expected.map)
        assert feature.layout == expected.layout
        assert (feature.prefix is None) == (expected.prefix is None)
        if feature.prefix is not None and expected.prefix is not None:
            assert torch.equal(feature.prefix, expected.prefix)
        first = stage
    finished = model.finish(feature)
    torch.testing.assert_close(finished.logits, outputs.logits, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(finished.pooled, outputs.pooled, rtol=1e-5, atol=1e-6)
    # Frozen weights are passed by: the gradient reaches what went in, and nothing else.
    finished.pooled.square().sum().backward()
    assert injected.grad is not None and injected.grad.abs().sum() > 0
    assert not any(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.runs
def test_tokens_held_in_another_order_are_put_back() -> None:
    """Hiera keeps the tokens of a window together."""
    model = known("hiera_tiny_224", 64).eval()
    stages = model(torch.randn(3, 3, 64, 64), ALL).stages
    for stage in (1, 2, 3):
        assert torch.equal(model.segment(stage)(stages[stage].map).map, stages[stage + 1].map)


def test_a_segment_leaves_batch_norm_statistics_alone_in_training() -> None:
    model = staged("resnet18", size=64).train()
    segment, info = model.segment(2), model.stages[2]
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    segment(torch.randn(4, info.channels, *info.grid))
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "stage", "reason"),
    [
        ("resnet18", 4, "ResNet has no stage 4 that another one follows"),
        ("pit_ti_224", 2, "from stage 2 to stage 3: its features come without the class tokens that go with them"),
        ("xception41p", 1, "from stage 1 to stage 2: more than its features is needed behind it"),
    ],
)
def test_refused_with_a_reason(name: str, stage: int, reason: str) -> None:
    with pytest.raises(UnsupportedPair, match=reason):
        known(name, 64).segment(stage)


class Uneven(Glue):
    """Its glue does something else between stages 2 and 3 for three images than for two, which it is traced with."""

    def _stages(self, x: Tensor) -> list[Tensor]:
        found = []
        for i, block in enumerate(self.blocks):
            if i == 2 and len(x) == 3:
                x = x + 1
            x = block(x)
            found.append(x)
        return found

    def forward_intermediates(self, x: Tensor, indices: list[int], stop_early: bool, output_fmt: str) -> Any:
        found = self._stages(x)
        return found[-1], [found[i] for i in indices]

    def forward_features(self, x: Tensor) -> Tensor:
        return self._stages(x)[-1]


def test_a_segment_that_is_not_the_network_is_refused() -> None:
    torch.manual_seed(0)
    model = StagedModel(Uneven(), (3, 32, 32), ((0.5,) * 3, (0.5,) * 3)).eval()
    assert model.segment(1).following == 2
    with pytest.raises(UnsupportedPair, match="what lies between does not reproduce its output"):
        model.segment(2)


def test_a_copy_has_segments_of_its_own() -> None:
    model = staged("resnet18", size=32, layers=[1, 1, 1, 1]).eval()
    state = torch.randn(2, model.stages[3].channels, *model.stages[3].grid)
    before = model.segment(3)(state).map
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert torch.equal(model.segment(3)(state).map, before)
    assert not torch.equal(twin.segment(3)(state).map, before)
