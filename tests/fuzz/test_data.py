"""Damaged data sets: what can be read is counted, or one line says which file is broken."""

import gzip
import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdbench.data.sources import fashion_mnist, locate
from kdbench.data.sources.packs import write_npz
from kdbench.data.sources.sets import DataSet
from tests.support.files import CIFAR_CLASSES, cifar_images, image_folder, write_cifar_pack, write_cifar_python
from tests.support.harness import answer, damaged, drawn, other_bytes


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with something for every reader."""
    root = tmp_path_factory.mktemp("data")
    train, test = cifar_images(6, 1), cifar_images(4, 2)
    write_cifar_python(root / "pickles" / "cifar-100-python", train, test, 2)
    with tarfile.open(root / "cifar-100-python.tar.gz", "w:gz") as archive:
        archive.add(root / "pickles" / "cifar-100-python", "cifar-100-python")
    write_cifar_pack(root / "pack.npz", train=train, test=test)
    (root / "whole").mkdir()
    write_npz(root / "whole" / "cifar100.npz", DataSet(CIFAR_CLASSES, train, test))
    _write_fashion_mnist(root / "fashion")
    image_folder(root / "images", train=2, val=1)
    _write_shards(root / "shards", root / "images")
    return root


def _write_fashion_mnist(folder: Path) -> None:
    folder.mkdir()
    for name, count in (("train", 20), ("t10k", 10)):
        images, labels = np.zeros((count, 28, 28), np.uint8), np.arange(count, dtype=np.uint8) % 10
        for kind, array in ((f"{name}-images-idx3-ubyte", images), (f"{name}-labels-idx1-ubyte", labels)):
            sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
            content = b"\0\0\x08" + bytes([array.ndim]) + sizes + array.tobytes()
            (folder / (kind if name == "train" else f"{kind}.gz")).write_bytes(
                content if name == "train" else gzip.compress(content)
            )


def _write_shards(folder: Path, images: Path) -> None:
    folder.mkdir()
    for split in ("train", "val"):
        with tarfile.open(folder / f"{split}-0.tar", "w") as archive:
            for number, path in enumerate(sorted((images / split).rglob("*.png"))):
                for name, content in (
                    (f"{number}.png", path.read_bytes()),
                    (f"{number}.cls", str(number % 3).encode()),
                ):
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
    splits = {name: {"filenames": [f"{name}-0.tar"]} for name in ("train", "val")}
    (folder / "_info.json").write_text(json.dumps({"splits": splits}))


COMMANDS = {
    "pack.npz": "data import cifar100 {root}/pack.npz --data {made}",
    "whole/cifar100.npz": "data check cifar100 --data {root}/whole",
    "cifar-100-python.tar.gz": "data import cifar100 {root}/cifar-100-python.tar.gz --data {made}",
    "pickles/cifar-100-python/train": "data check cifar100 --data {root}/pickles",
    "pickles/cifar-100-python/meta": "data check cifar100 --data {root}/pickles",
    "fashion/train-images-idx3-ubyte": "data check fashion-mnist --data {root}/fashion",
    "fashion/t10k-labels-idx1-ubyte.gz": "data check fashion-mnist --data {root}/fashion",
    "images/train/ant/0.png": "data check folder:images --data {root}",
    "shards/train-0.tar": "data check reader:wds/shards --data {root}",
    "shards/_info.json": "data check reader:wds/shards --data {root}",
}
"""Of each kind of file, what reads it."""


def _command(root: Path, name: str, made: Path) -> list[str]:
    return [word.format(root=root, made=made) for word in COMMANDS[name].split()] + ["--json"]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_files_are_read(root: Path, name: str, tmp_path: Path) -> None:
    done = answer(*_command(root, name, tmp_path))
    assert done.returncode == 0, done.stderr


@drawn(60)
@given(data=st.data())
def test_damaged_files(root: Path, data: st.DataObject, tmp_path: Path) -> None:
    name = data.draw(st.sampled_from(sorted(COMMANDS)))
    with damaged(root / name, data.draw(other_bytes((root / name).read_bytes()))):
        done = answer(*_command(root, name, tmp_path))
    if done.returncode == 3:
        assert str(root) in done.stderr or "leads out" in done.stderr
        return
    told = json.loads(done.stdout)
    if "splits" in told:
        broken = [one["file"] for split in told["splits"].values() for one in split["broken"]]
        assert done.returncode == (2 if broken else 0)
        counts = {split: found["images"] for split, found in told["splits"].items()}
        assert all(sum(told["splits"][split]["per_class"].values()) == count > 0 for split, count in counts.items())


def test_bombs(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that would unfold to more than a data set has (the bound lowered, so that the test is quick)."""
    bomb = tmp_path / "bomb.npz"
    np.savez_compressed(bomb, x_train=np.zeros((3 << 10, 32, 32, 1), np.uint8), y_train=np.zeros(3 << 10, np.uint8))
    monkeypatch.setattr(locate, "LARGEST", 1 << 20)
    done = answer("data", "import", "cifar100", bomb, "--data", tmp_path)
    assert done.returncode == 3 and "would unfold to 3,1" in done.stderr
    monkeypatch.setattr(fashion_mnist, "LARGEST", 1 << 20)
    with damaged(root / "fashion/t10k-labels-idx1-ubyte.gz", gzip.compress(bytes(3 << 20), 9)):
        done = answer("data", "check", "fashion-mnist", "--data", root / "fashion")
        assert done.returncode == 3 and "would unfold to" in done.stderr


def test_an_array_that_claims_more_than_it_holds(root: Path, tmp_path: Path) -> None:
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999, 32, 32, 3), }\n"
    liar = np.lib.format.magic(1, 0) + len(header).to_bytes(2, "little") + header
    with damaged(root / "pack.npz", liar):
        assert answer("data", "import", "cifar100", root / "pack.npz", "--data", tmp_path).returncode == 3
    with zipfile.ZipFile(tmp_path / "liar.npz", "w") as archive:
        archive.writestr("x_train.npy", liar)
    done = answer("data", "import", "cifar100", tmp_path / "liar.npz", "--data", tmp_path)
    assert done.returncode == 3 and "liar.npz" in done.stderr
