"""Counted operations against known values: on the meta device, attention included, at 224 px and 1,000 classes."""

import pytest

from kdbench.models.flops import forward_flops
from kdbench.models.spec import ModelSpec


@pytest.mark.parametrize(
    ("name", "giga"),
    [
        ("resnet18", 3.63),
        ("vit_base_patch16_224", 35.1),
        ("vit_small_patch16_224", 9.2),
        ("deit_tiny_patch16_224", 2.53),
        ("swin_tiny_patch4_window7_224", 8.98),
        ("convnext_tiny", 8.9),
        ("mixer_b16_224", 25.2),
        ("mobilenetv2_100", 0.6),
        ("resmlp_12_224", 6.0),
    ],
)
def test_forward_pass(name: str, giga: float) -> None:
    spec = ModelSpec(timm=name, kind="cnn", recipe="-")
    assert forward_flops(spec, 1000, (3, 224, 224)) / 1e9 == pytest.approx(giga, rel=0.01)
