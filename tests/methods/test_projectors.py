"""Sizes of stage heads, hints and the assistant's projector against published and counted figures."""

from functools import lru_cache
from typing import Any

import pytest
import torch

from kdbench.method import Method, Pair, Task, UnsupportedPair
from kdbench.models.staged import StagedModel
from kdbench.registry import Registry
from kdbench.testing import staged

SPECS: dict[str, tuple[str, dict[str, Any]]] = {
    "swin_t": ("swin_tiny_patch4_window7_224", {}),
    "swin_n": ("swin_tiny_patch4_window7_224", {"embed_dim": 64, "depths": (2, 2, 2, 2), "num_heads": (2, 4, 8, 16)}),
    "swin_p": ("swin_tiny_patch4_window7_224", {"embed_dim": 48, "depths": (2, 2, 2, 2), "num_heads": (2, 4, 8, 16)}),
    "vit_s": ("vit_small_patch16_224", {}),
    "deit_t": ("deit_tiny_patch16_224", {}),
    "mixer_b": ("mixer_b16_224", {}),
    "resmlp": ("resmlp_12_224", {}),
    "r18": ("resnet18", {}),
    "mbv2": ("mobilenetv2_100", {}),
    "convnext_t": ("convnext_tiny", {}),
}


@lru_cache
def _model(name: str, classes: int) -> StagedModel:
    timm_name, kwargs = SPECS[name]
    return staged(timm_name, classes, 224, **kwargs)


def build(method: str, teacher: str, student: str, classes: int, **options: Any) -> Method:
    plugin = Registry.installed().plugins[method]
    pair = Pair(_model(teacher, classes), _model(student, classes), Task(classes, (3, 224, 224), 1000, 1))
    return plugin.method(pair, plugin.hyperparameters(**options).model_dump())


def millions(module: torch.nn.Module) -> float:
    return sum(p.numel() for p in module.parameters()) / 1e6


@pytest.mark.runs
@pytest.mark.parametrize(
    ("teacher", "student", "classes", "expected"),
    [
        ("swin_t", "r18", 100, 1.63),
        ("vit_s", "r18", 100, 1.19),
        ("vit_s", "mbv2", 100, 2.53),
        ("convnext_t", "deit_t", 100, 3.78),
        ("convnext_t", "swin_p", 100, 14.86),
        ("convnext_t", "resmlp", 100, 14.94),
        ("swin_t", "r18", 1000, 4.39),
        ("deit_t", "r18", 1000, 3.04),
        ("convnext_t", "deit_t", 1000, 4.48),
        ("convnext_t", "resmlp", 1000, 16.32),
        # RSD's paper (arXiv 2507.21844) reports 28.2 M for this one.
        ("convnext_t", "swin_n", 1000, 28.19),
    ],
)
def test_stage_heads_of_ofa(teacher: str, student: str, classes: int, expected: float) -> None:
    assert millions(build("ofa", teacher, student, classes)) == pytest.approx(expected, abs=0.006)


@pytest.mark.runs
@pytest.mark.parametrize(
    ("teacher", "student", "expected", "student_first"),
    [
        ("swin_t", "r18", 7.881, True),
        ("vit_s", "r18", 1.875, True),
        ("mixer_b", "mbv2", 7.166, True),
        ("convnext_t", "deit_t", 0.520, False),
        ("convnext_t", "swin_p", 2.367, False),
        ("convnext_t", "resmlp", 1.925, False),
        ("mixer_b", "deit_t", 7.240, True),
        ("swin_t", "resmlp", 8.274, True),
    ],
)
def test_projector_of_the_assistant(teacher: str, student: str, expected: float, student_first: bool) -> None:
    assistant: Any = build("assistant", teacher, student, 100)
    # Swin-P's own 16 heads in the relative position table make 0.0007 of a difference to the counted figure.
    assert millions(assistant.bridge) == pytest.approx(expected, abs=0.0015)
    assert ("3" in map(str, assistant.student_needs.stages)) is student_first


@pytest.mark.parametrize(
    ("teacher", "student", "stage", "kernel", "width"),
    [
        ("convnext_t", "r18", 1, 1, 96),  # map -> map
        ("vit_s", "r18", 1, 4, 384),  # 56x56 map -> 14x14 tokens: patch embedding
        ("vit_s", "r18", 4, 1, 384 * 4),  # 7x7 map -> 14x14 tokens: the teacher's tokens are re-grouped
        ("convnext_t", "deit_t", 1, 1, 96 * 16),  # 14x14 tokens -> 56x56 map: depth to space
        ("convnext_t", "deit_t", 4, 1, 768),  # 14x14 tokens -> 7x7 map: space to depth first
        ("swin_t", "resmlp", 1, 1, 96 * 16),  # 196 -> 3136 tokens
        ("mixer_b", "swin_p", 1, 1, 768),  # 3136 -> 196 tokens
    ],
)
def test_hints_of_fitnet(teacher: str, student: str, stage: int, kernel: int, width: int) -> None:
    fitnet: Any = build("fitnet", teacher, student, 100, stages=[stage])
    project = fitnet.hints[str(stage)].project
    assert (project.kernel_size, project.out_channels) == ((kernel, kernel), width)
    maps_only = (teacher, student) == ("convnext_t", "r18")
    assert (project.bias is None) is maps_only


def test_gamma_must_fit_the_stages() -> None:
    with pytest.raises(UnsupportedPair, match="1 or 5 values"):
        build("ofa", "vit_s", "r18", 100, gamma=[1.0, 2.0])
    assert build("ofa", "vit_s", "r18", 100, gamma=[1.0, 1.0, 1.1, 1.2, 1.4]) is not None
