"""Importing weights: of networks of one's own, of several sets in a file, in another class order, again and again."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from timm.data.readers.reader_image_folder import ReaderImageFolder
from torch import Tensor, nn

from kdbench.compute.device import Compute
from kdbench.data.sources import ImageSet
from kdbench.data.sources.fashion_mnist import read_embedded
from kdbench.data.sources.folder import timm_order
from kdbench.errors import KdbenchError
from kdbench.registry import Registry
from kdbench.study.plan import make_plan
from kdbench.study.teachers import Imported, ImportRequest, import_once, import_teacher
from kdbench.suites.anymodel import select_pairs, with_model
from kdbench.suites.schema import Suite
from kdbench.targets import module_of
from kdbench.training.teacher import teacher_metadata
from kdbench.weights.files import read_safetensors
from tests.conftest import NO_DATA

State = dict[str, Tensor]
FEW = 500
"""Test images, which are told to take little time."""

MINE = """
from torch import nn

class Block(nn.Sequential):
    def __init__(self, width, out):
        super().__init__(nn.Conv2d(width, out, 3, 2, 1, bias=False), nn.BatchNorm2d(out), nn.{act}())

class Small(nn.Module):
    def __init__(self, num_classes, in_chans):
        super().__init__()
        widths = (in_chans, 8, 16, 32, 48)
        self.blocks = nn.Sequential(*(Block(a, b) for a, b in zip(widths[:-1], widths[1:])))
        self.head = nn.Linear(widths[-1], num_classes)

    def forward(self, x):
        return self.head(self.blocks(x).mean(dim=(2, 3)))

class HeadFirst(nn.Module):
    def __init__(self, num_classes, in_chans):
        super().__init__()
        self.fc = nn.Linear(48, num_classes)
        widths = (in_chans, 8, 16, 32, 48)
        self.body = nn.Sequential(*(Block(a, b) for a, b in zip(widths[:-1], widths[1:])))

    def forward(self, x):
        return self.fc(self.body(x).mean(dim=(2, 3)))

class Wrapped(nn.Module):
    def __init__(self, num_classes, in_chans):
        super().__init__()
        self.model = Small(num_classes, in_chans)

    def forward(self, x):
        return self.model(x)

def build(num_classes, in_chans):
    return Small(num_classes, in_chans)

def headfirst(num_classes, in_chans):
    return HeadFirst(num_classes, in_chans)

def wrapped(num_classes, in_chans):
    return Wrapped(num_classes, in_chans)

def thousand(num_classes, in_chans):
    return Small(64, in_chans)
"""
NAMES = {"build": ("blocks.", "head."), "headfirst": ("body.", "fc."), "wrapped": ("model.blocks.", "model.head.")}


def evaluated() -> tuple[Tensor, Tensor]:
    data = read_embedded(NO_DATA).test
    assert isinstance(data, ImageSet)
    images = torch.from_numpy(data.images).permute(0, 3, 1, 2).float() / 255
    return (nn.functional.pad(images, (2, 2, 2, 2)) - 0.286) / 0.353, torch.from_numpy(data.labels)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[State, State]:
    """Blocks and head of `Small`, trained for an epoch on the embedded images by a plain loop, far above guessing."""
    path = tmp_path_factory.mktemp("trained") / "plain.py"
    path.write_text(MINE.replace("{act}", "ReLU"))
    data = read_embedded(NO_DATA).train
    assert isinstance(data, ImageSet)
    images = (torch.from_numpy(data.images).permute(0, 3, 1, 2).float() / 255 - 0.286) / 0.353
    images, labels = nn.functional.pad(images, (2, 2, 2, 2), value=-0.286 / 0.353), torch.from_numpy(data.labels)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = module_of(f"{path}:build").build(10, 1)
        optimizer = torch.optim.SGD(network.parameters(), 0.05, momentum=0.9)
        for index in torch.randperm(len(images)).split(50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(images[index]), labels[index]).backward()
            optimizer.step()
    return network.blocks.state_dict(), network.head.state_dict()


def named(trained: tuple[State, State], function: str) -> State:
    """The trained weights under the names, and in the order, of one of the networks."""
    parts = list(zip(NAMES[function], trained, strict=True))
    ordered = parts[::-1] if function == "headfirst" else parts
    return {prefix + name: tensor for prefix, state in ordered for name, tensor in state.items()}


def plain_top1(network: nn.Module, state: State, images: int = 2000) -> float:
    """Top-1 in percent by plain torch."""
    network.load_state_dict(state)
    inputs, labels = evaluated()
    with torch.no_grad():
        return 100 * (network.eval()(inputs).argmax(1) == labels)[:images].float().mean().item()


def own(proxy: Suite, folder: Path, function: str, activation: str = "ReLU") -> tuple[Suite, str, Any]:
    """A network of one's own in a file, the suite with it, and the module of the file."""
    folder.mkdir(exist_ok=True)
    (folder / "mine.py").write_text(MINE.replace("{act}", activation))
    target = f"{folder / 'mine.py'}:{function}"
    return *with_model(proxy, target, as_teacher=True), module_of(target)


@pytest.mark.parametrize("function", NAMES)
@pytest.mark.parametrize("kind", ["pt", "safetensors"])
def test_a_network_takes_its_own_checkpoint(
    function: str, kind: str, proxy: Suite, trained: tuple[State, State], tmp_path: Path, cpu: Compute
) -> None:
    suite, name, module = own(proxy, tmp_path, function)
    state, file = named(trained, function), tmp_path / f"w.{kind}"
    if kind == "pt":
        torch.save(state, file)
    else:
        safetensors.torch.save_file(state, file)
    imported = import_teacher(suite, name, ImportRequest(file), cpu, tmp_path / "data", command="import")
    right = plain_top1(getattr(module, function)(10, 1), state)
    assert right > 50
    assert teacher_metadata(imported.path)["top1"] == pytest.approx(right, abs=0.051)
    assert teacher_metadata(imported.path)["imported_from"]["matched"] == "by name"
    # What is stored is a checkpoint of the network itself, too.
    network = getattr(module, function)(10, 1)
    network.load_state_dict(read_safetensors(imported.path))


def test_accuracy_belongs_to_code_and_images(
    proxy: Suite, trained: tuple[State, State], tmp_path: Path, cpu: Compute
) -> None:
    state, data = named(trained, "build"), tmp_path / "data"
    torch.save(state, tmp_path / "w.pt")

    def once(suite: Suite, name: str) -> Imported | None:
        return import_once(suite, name, tmp_path / "w.pt", cpu, data, command="run")

    suite, name, module = own(proxy, tmp_path / "a", "build")
    first = once(suite, name)
    assert first is not None and once(suite, name) is None, "nothing has changed"
    before = teacher_metadata(first.path)
    # Fewer images are another measurement, of the same weights.
    few = once(suite.reduced(test_limit=FEW), name)
    assert few is not None and teacher_metadata(few.path)["sha256"] == before["sha256"]
    assert teacher_metadata(few.path)["measured_on"]["test_limit"] == FEW
    assert once(suite, name) is not None and teacher_metadata(first.path)["top1"] == before["top1"]
    # The same file of weights and a network with another activation.
    changed, same_name, module = own(proxy, tmp_path / "b", "build", "Tanh")
    assert same_name == name
    registry = Registry.installed()
    pairs = [pair.model_copy(update={"teacher": name}) for pair in proxy.pairs[:1]]
    with pytest.raises(KdbenchError, match=r"its code or its arguments have changed; run `kdbench teachers import"):
        make_plan(changed, [registry.plugins["kd"]], pairs, [0], compute=cpu, data_root=data)
    again = once(changed, name)
    right = plain_top1(module.build(10, 1), state)
    assert again is not None and teacher_metadata(again.path)["top1"] == pytest.approx(right, abs=0.051)
    assert abs(before["top1"] - right) > 5


def test_a_width_that_is_not_the_number_of_classes_is_refused(proxy: Suite, tmp_path: Path, cpu: Compute) -> None:
    from kdbench.training.teacher import new_model

    suite, name, _ = own(proxy, tmp_path, "thousand")
    with pytest.raises(KdbenchError, match="answers with 64 logits, the data have 10 classes"):
        new_model(suite, name, 10, cpu)
    for override in ("num_classes=0", "in_chans=3", "features_only=true", "out_indices=[1]"):
        with pytest.raises(KdbenchError, match=f"may not hold {override.partition('=')[0]}: kdbench sets it itself"):
            select_pairs(proxy, f"vit-t:resnet18[{override}]")


@pytest.fixture(scope="module")
def shipped(proxy: Suite) -> State:
    return read_safetensors(proxy.teacher_path("resnet-t", NO_DATA))


def worse(state: State) -> State:
    """The same with noise of .45 standard deviations on what is no vector."""
    noise = torch.Generator().manual_seed(0)

    def noisy(tensor: Tensor) -> Tensor:
        return tensor + 0.45 * tensor.std() * torch.randn(tensor.shape, generator=noise)

    return {n: noisy(t) if t.ndim > 1 and t.is_floating_point() else t for n, t in state.items()}


@pytest.mark.runs
def test_averaged_and_plain_weights_are_both_measured(
    proxy: Suite, shipped: State, tmp_path: Path, cpu: Compute
) -> None:
    for number, content in enumerate(
        (
            {"state_dict": shipped, "state_dict_ema": worse(shipped)},
            {"model": worse(shipped), "ema": shipped},
        )
    ):
        torch.save(content, tmp_path / "w.pth")

        def bring(root: str, **chosen: Any) -> Imported:
            request = ImportRequest(tmp_path / "w.pth", **chosen)
            return import_teacher(proxy, "resnet-t", request, cpu, tmp_path / root, command="import")

        best = bring(f"best{number}")
        assert [what for what, _ in best.tried] == (["state_dict", "state_dict_ema"], ["ema", "model"])[number]
        assert best.tried[0][1] == teacher_metadata(best.path)["top1"] == 90.8 > best.tried[1][1] > 60
        assert teacher_metadata(best.path)["imported_from"]["weights"] == ("state_dict", "ema")[number]
        bad = bring(f"bad{number}", which=("ema", "plain")[number])
        assert bad.tried == (best.tried[1],)
    with pytest.raises(KdbenchError, match=r"several sets of weights \(model, ema\); choose with --weights"):
        from kdbench.training.teacher import pretrained_model

        pretrained_model(proxy, "resnet-t", 10, tmp_path / "w.pth")


@pytest.mark.runs
def test_better_stored_accuracy_is_replaced_when_asked_only(
    proxy: Suite, shipped: State, tmp_path: Path, cpu: Compute
) -> None:
    torch.save(shipped, tmp_path / "w.pth")

    def bring(**chosen: Any) -> Imported:
        request = ImportRequest(tmp_path / "w.pth", **chosen)
        return import_teacher(proxy, "resnet-t", request, cpu, tmp_path, command="import")

    path = bring().path
    # Worse by less than the 0.3 points that another device may make.
    near = (0.286,), (0.345,)
    with pytest.raises(KdbenchError, match=r"reaches 90\.\d\d %, but .* holds a teacher of 90\.80 %; .* --replace"):
        bring(expects=near)
    assert teacher_metadata(path)["top1"] == 90.8
    bring(expects=near, replace=True)
    assert 90.5 < teacher_metadata(path)["top1"] < 90.8
    assert teacher_metadata(path)["normalisation"] == [[0.286], [0.345]]
    with pytest.raises(KdbenchError, match="--mean and --std is for 3 channels"):
        bring(expects=((0.5,) * 3, (0.5,) * 3))


CLASSES = ["Airplane", "Bird", "Cat", "Deer", "Dog", "Elk", "Fox", "hen", "Ibex", "Jay"]


@pytest.fixture
def folders(proxy: Suite, tmp_path: Path) -> Suite:
    """A suite of image folders whose classes sort differently in timm's reader: a pattern a class, with noise."""
    noise = np.random.default_rng(0)
    for number, name in enumerate(CLASSES):
        base = np.kron(np.random.default_rng(number).integers(0, 255, (4, 4, 3)), np.ones((8, 8, 1)))
        for split, count in (("train", 10), ("val", 10)):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for image in range(count):
                pixels = (base + noise.normal(0, 25, base.shape)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{image}.png")
    data = proxy.data.model_copy(
        update={"source": "folder", "teacher_source": None, "mean": (0.5,) * 3, "std": (0.25,) * 3}
    )
    return proxy.model_copy(update={"name": "folders", "data": data})


def test_the_order_of_classes_in_timm(folders: Suite, tmp_path: Path, cpu: Compute) -> None:
    reader = ReaderImageFolder(str(tmp_path / "data/val"))
    assert tuple(reader.class_to_idx) == timm_order(sorted(CLASSES)) != tuple(sorted(CLASSES))
    network = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, 10))
    # The nearest of the classes' mean images, as a linear layer in timm's order.
    with torch.no_grad():
        for name, label in reader.class_to_idx.items():
            files = sorted((tmp_path / "data/train" / name).glob("*.png"))
            images = torch.from_numpy(np.stack([np.asarray(Image.open(file)) for file in files])).permute(0, 3, 1, 2)
            mean = network[:2]((images.float() / 255 - 0.5) / 0.25).mean(0)
            network[2].weight[label], network[2].bias[label] = mean, -mean.square().sum() / 2  # type: ignore[index]
    (tmp_path / "nearest.py").write_text(
        "from torch import nn\n\n"
        "class Blocks(nn.Sequential):\n    pass\n\n"
        "def build(num_classes, in_chans):\n"
        "    # The first layer passes images on, so that there is a map.\n"
        "    same = nn.Conv2d(in_chans, in_chans, 1)\n"
        "    return nn.Sequential(same, nn.AvgPool2d(8), nn.Flatten(), nn.Linear(16 * in_chans, num_classes))\n"
    )
    state = {
        **{"0.weight": torch.eye(3)[:, :, None, None], "0.bias": torch.zeros(3)},
        **{f"3.{name}": tensor for name, tensor in network[2].state_dict().items()},
    }
    torch.save(state, tmp_path / "w.pth")
    suite, name = with_model(folders, f"{tmp_path / 'nearest.py'}:build", as_teacher=True)

    def bring(root: str, **chosen: Any) -> Imported:
        link = tmp_path / root
        link.mkdir()
        for split in ("train", "val"):
            (link / split).symlink_to(tmp_path / "data" / split)
        request = ImportRequest(tmp_path / "w.pth", **chosen)
        return import_teacher(suite, name, request, cpu, link, command="import")

    found = bring("found")
    (stored, right), (other, wrong) = found.tried
    assert (right, wrong) == (100, 70) and "in the order of timm's folder reader" in stored and "order" not in other
    assert teacher_metadata(found.path)["imported_from"]["class_order"] == "timm's folder reader"
    theirs = tuple(reader.class_to_idx)
    assert bring("told", classes=theirs).tried[0][1] == 100
    assert bring("wrong", classes=tuple(sorted(CLASSES))).tried[0][1] == 70
    with pytest.raises(KdbenchError, match="--class-map has 10 classes, folder has 10; 'Hen' is not once in both"):
        bring("odd", classes=tuple("Hen" if name == "hen" else name for name in theirs))
