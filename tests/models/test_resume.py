"""Resuming networks whose glue asks, unpacks, freezes or hides; and those that cannot be resumed."""

import copy
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from kdbench.errors import UnsupportedPair
from kdbench.models.features import Needs
from kdbench.models.staged import StagedModel
from kdbench.testing import staged

ALL = Needs(frozenset({1, 2, 3, 4}), pooled=True)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("vit_small_patch16_dinov3_qkvb[depth=4,embed_dim=96,num_heads=3]", 64),
        ("xcit_nano_12_p8_224", 32),
        ("twins_svt_small", 64),
        ("efficientvit_m0", 64),
        ("test_vit3", 64),
        ("naflexvit_base_patch16_parfac_gap[depth=4,embed_dim=64,num_heads=2]", 64),
    ],
    ids=["rotary embedding", "sizes beside tokens", "sizes unpacked", "three stages", "registers", "a dictionary"],
)
def test_composed_stages_equal_the_network(name: str, size: int) -> None:
    base, _, overrides = name.rstrip("]").partition("[")
    kwargs: dict[str, Any] = {k: int(v) for k, v in (pair.split("=") for pair in overrides.split(",") if pair)}
    model = staged(base, size=size, **kwargs).eval()
    images = torch.randn(5, 3, size, size, generator=torch.Generator().manual_seed(4))
    outputs = model(images, Needs(frozenset({3}), pooled=True))
    tail, third = model.tail(3), outputs.stages[3]
    assert (tail.channels, tail.grid) == (third.map.shape[1], third.grid)
    injected = third.map.detach().requires_grad_()
    logits = tail(injected, third.prefix).logits
    torch.testing.assert_close(logits, outputs.logits, rtol=1e-5, atol=1e-6)
    logits.square().sum().backward()
    assert injected.grad is not None and injected.grad.abs().sum() > 0
    assert not [name for name in vars(model.model) if name.startswith("_tensor_constant")]


def test_parameters_used_before_the_cut_are_trained_behind_it() -> None:
    """A rotary embedding with learned frequencies is computed again behind the cut, not frozen."""
    model = staged("vit_small_patch16_rope_mixed_224", size=64, depth=4, embed_dim=48, num_heads=2).eval()
    tail = model.tail(3)
    tail(torch.randn(2, tail.channels, *tail.grid), torch.randn(2, tail.prefix, tail.channels)).logits.sum().backward()
    frequencies = dict(model.model.named_parameters())["rope.freqs"]
    assert frequencies.grad is not None and frequencies.grad.abs().sum() > 0


def test_class_tokens_apart_from_the_map() -> None:
    pit = staged("pit_ti_224", size=64).eval()
    tail = pit.tail(3)
    assert (tail.layout, tail.prefix) == ("NCHW", 1)
    assert tail.prefix_tokens is not None and tail.prefix_tokens.shape == (1, 1, tail.channels)
    logits = tail(torch.randn(4, tail.channels, *tail.grid), tail.prefix_tokens.expand(4, -1, -1)).logits
    assert logits.shape == (4, 10) and logits.isfinite().all()


def known(name: str, size: int) -> StagedModel:
    """A model that the oldest timm may not have, or not with intermediate features."""
    if not timm.is_model(name) or not hasattr(timm.create_model(name), "forward_intermediates"):
        pytest.skip(f"timm {timm.__version__} has no {name} with intermediate features")
    return staged(name, size=size)


def test_inside_a_residual_block_the_next_clean_place_is_taken() -> None:
    model = known("xception41p", 64).eval()
    tail = model.tail(3)
    assert (tail.channels, tail.grid) != (model.stages[3].channels, model.stages[3].grid)
    assert tail(torch.randn(3, tail.channels, *tail.grid)).logits.shape == (3, 10)


@pytest.mark.runs
@pytest.mark.parametrize(
    ("name", "size", "reason"),
    [
        ("tnt_s_legacy_patch16_224", 64, "TNT cannot resume from stage 3: more than its features is needed behind it"),
        ("efficientvim_m1", 64, "EfficientViM cannot resume from stage 3: more than its features"),
    ],
)
def test_refused_with_a_reason(name: str, size: int, reason: str) -> None:
    model = known(name, size)
    with pytest.raises(UnsupportedPair, match=reason):
        model.tail(3)
    everything = Needs(frozenset(model.stages), pooled=True)
    assert model(torch.randn(2, 3, size, size), everything).logits.shape == (2, 10)


class Glue(nn.Module):
    """A network whose glue can be spoiled."""

    def __init__(self, spoil: str = "") -> None:
        super().__init__()
        self.spoil = spoil
        self.blocks = nn.ModuleList(nn.Conv2d(3 if i == 0 else 4, 4, 3, 2, 1) for i in range(4))
        self.fc = nn.Linear(4, 10)
        self.feature_info = [{"module": f"blocks.{i}", "reduction": 2 ** (i + 1), "num_chs": 4} for i in range(4)]

    def forward_intermediates(self, x: Tensor, indices: list[int], stop_early: bool, output_fmt: str) -> Any:
        features = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in indices:
                features.append(x)
        return x, features

    def forward_features(self, x: Tensor) -> Tensor:
        images = x
        sizes = [2, 3]
        for block in self.blocks:
            x = block(x)
            if self.spoil == "size" and len(x) == 2:
                x = x + 1
        if self.spoil == "image":
            x = x + images.mean()
        if self.spoil == "list":
            x = x * float(sum(sizes))
        return x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        pooled = x.mean((2, 3))
        return pooled if pre_logits else self.fc(pooled)

    def get_classifier(self) -> nn.Module:
        return self.fc

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


def glued(spoil: str) -> StagedModel:
    torch.manual_seed(0)
    return StagedModel(Glue(spoil), (3, 32, 32), ((0.5,) * 3, (0.5,) * 3)).eval()


def test_a_cut_that_is_not_the_network_is_refused() -> None:
    """Glue that does something else for two images than for three was traced with two."""
    with pytest.raises(UnsupportedPair, match="does not reproduce its output"):
        glued("size").tail(3)


def test_glue_that_looks_at_the_image_again() -> None:
    with pytest.raises(UnsupportedPair, match="is needed behind it"):
        glued("image").tail(3)


def test_any_module_with_these_five_methods_will_do() -> None:
    model = glued("")
    images = torch.randn(6, 3, 32, 32)
    third = model(images, ALL).stages[3].map
    assert torch.equal(model.tail(3)(third).logits, model(images).logits)


def test_a_copy_has_tails_of_its_own() -> None:
    model = staged("resnet18", size=32, layers=[1, 1, 1, 1]).eval()
    tail = model.tail(3)
    state = torch.randn(2, tail.channels, *tail.grid)
    before = tail(state).logits
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert torch.equal(tail(state).logits, before)
    assert not torch.equal(twin.tail(3)(state).logits, before)
