"""Teachers at the start of a training and on disk."""

from pathlib import Path

import pytest
import safetensors
import timm.data
import torch

from kdbench.compute.device import Compute
from kdbench.errors import KdbenchError
from kdbench.suites.schema import Suite
from kdbench.training.teacher import (
    load_teacher,
    new_model,
    normalisation_of,
    pretrained_model,
    pretrained_normalisation,
    teacher_metadata,
    trained_weights,
)
from kdbench.weights.files import save_weights
from tests.conftest import NO_DATA


@pytest.fixture
def own(proxy: Suite, tmp_path: Path) -> Path:
    """Where a teacher of the proxy lies in a data folder."""
    return proxy.own_teachers(tmp_path) / "vit-t.safetensors"


def test_the_files_normalisation_is_the_teachers(proxy: Suite, own: Path, tmp_path: Path, cpu: Compute) -> None:
    shipped, _ = load_teacher(proxy, "vit-t", 10, cpu, NO_DATA)
    assert shipped.normalisation == normalisation_of(proxy)
    facts = teacher_metadata(proxy.teacher_path("vit-t", NO_DATA))
    save_weights(own, shipped.model, facts | {"normalisation": [[0.5], [0.25]]})
    teacher, record = load_teacher(proxy, "vit-t", 10, cpu, tmp_path)
    assert teacher.normalisation == ((0.5,), (0.25,))
    assert not teacher.training and not any(parameter.requires_grad for parameter in teacher.parameters())
    assert record["sha256"] == facts["sha256"]
    del facts["normalisation"]
    save_weights(own, shipped.model, facts)
    assert load_teacher(proxy, "vit-t", 10, cpu, tmp_path)[0].normalisation == normalisation_of(proxy)


def test_a_missing_teacher_names_both_ways_to_get_it(proxy: Suite, cpu: Compute) -> None:
    elsewhere = proxy.model_copy(update={"folder": NO_DATA})
    with pytest.raises(KdbenchError) as told:
        load_teacher(elsewhere, "swin-t", 10, cpu, NO_DATA)
    message = str(told.value)
    assert "`kdbench teachers train --suite proxy --only swin-t`" in message
    assert "`kdbench teachers import swin-t FILE --suite proxy`" in message
    assert str(elsewhere.teacher_path("swin-t", NO_DATA)) in message and "\n" not in message


def test_files_that_are_no_teachers(proxy: Suite, own: Path, tmp_path: Path, cpu: Compute) -> None:
    save_weights(own, new_model(proxy, "vit-t", 10, cpu).model, {})
    with pytest.raises(KdbenchError, match="it tells no accuracy"):
        load_teacher(proxy, "vit-t", 10, cpu, tmp_path)
    own.write_bytes(own.read_bytes()[:1000])
    with pytest.raises(KdbenchError, match="not a whole safetensors file"):
        load_teacher(proxy, "vit-t", 10, cpu, tmp_path)


def test_pretrained_weights_of_a_file(proxy: Suite, tmp_path: Path) -> None:
    shipped = proxy.teacher_path("swin-t", NO_DATA)
    with safetensors.safe_open(shipped, framework="pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    torch.save({"model": {f"module.{name}": tensor for name, tensor in state.items()}}, tmp_path / "w.pth")
    model, origin = pretrained_model(proxy, "swin-t", 10, tmp_path / "w.pth")
    assert (origin["file"], origin["matched"]) == ("w.pth", "by name")
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    # Other classes: the head is fresh and follows the seed, everything else comes along.
    torch.manual_seed(1)
    one, _ = pretrained_model(proxy, "swin-t", 7, shipped)
    torch.manual_seed(2)
    two, _ = pretrained_model(proxy, "swin-t", 7, shipped)
    differing = {name for name, tensor in one.state_dict().items() if not torch.equal(tensor, two.state_dict()[name])}
    assert differing == {"head.fc.weight"} and one.get_classifier().weight.shape[0] == 7  # type: ignore[operator]
    assert torch.equal(one.state_dict()["layers.2.downsample.norm.bias"], state["layers.2.downsample.norm.bias"])
    with pytest.raises(KdbenchError, match="has 10 classes, suite proxy has 7; to fine-tune"):
        trained_weights(proxy, "swin-t", 7, shipped, None)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet18d.no_such_tag", r"no weights resnet18d\.no_such_tag in timm: Invalid pretrained tag"),
        (
            "cifar_resnet56",
            "timm has no pretrained weights of cifar_resnet56; name a tag that has some, or a local FILE",
        ),
    ],
)
def test_pretrained_weights_that_timm_has_not(name: str, message: str, proxy: Suite) -> None:
    models = {"none": proxy.models["resnet-t"].model_copy(update={"timm": name, "kwargs": {}})}
    with pytest.raises(KdbenchError, match=message):
        pretrained_model(proxy.model_copy(update={"models": models}), "none", 10)


def test_timms_weights_expect_timms_normalisation(proxy: Suite) -> None:
    spec = proxy.models["vit-t"].model_copy(update={"timm": "vit_small_patch16_224.augreg_in21k_ft_in1k"})
    colour = proxy.data.model_copy(update={"mean": (0.1, 0.2, 0.3), "std": (1.0, 1.0, 1.0)})
    suite = proxy.model_copy(update={"models": {"grey": spec}})
    assert pretrained_normalisation(suite, "grey") == normalisation_of(proxy), "of one channel timm knows nothing"
    suite = suite.model_copy(update={"data": colour})
    assert pretrained_normalisation(suite, "grey") == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    models = {"imagenet": spec.model_copy(update={"timm": "swin_tiny_patch4_window7_224.ms_in1k"})}
    found = pretrained_normalisation(suite.model_copy(update={"models": models}), "imagenet")
    assert found == (timm.data.IMAGENET_DEFAULT_MEAN, timm.data.IMAGENET_DEFAULT_STD)
