"""CIFAR in all its forms: pickles of Python 2 and 3, the archive, packs, kdbench's own file."""

import os
import pickle
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdbench.data import sources
from kdbench.data.sources import packs, unpickle
from kdbench.data.sources.cifar import CIFAR10, CIFAR100
from kdbench.data.sources.sets import ImageSet
from kdbench.errors import KdbenchError
from tests.support.files import CIFAR_CLASSES, cifar_images, cifar_planes, write_cifar_pack, write_cifar_python


def _python2_pickle(content: dict[str, Any]) -> bytes:
    """What cPickle of Python 2 wrote with protocol 2: byte strings for text, a byte string for the array's buffer."""

    def string(text: bytes) -> bytes:
        return b"T" + struct.pack("<i", len(text)) + text

    def value(item: Any) -> bytes:
        if isinstance(item, str):
            return string(item.encode())
        if isinstance(item, int):
            return b"J" + struct.pack("<i", item)
        if isinstance(item, list):
            return b"](" + b"".join(map(value, item)) + b"e"
        dtype = b"cnumpy\ndtype\n" + string(b"u1") + b"K\x00K\x01\x87R(K\x03" + string(b"|") + b"NNNJ\xff\xff\xff\xffJ"
        dtype += b"\xff\xff\xff\xffK\x00tb"
        shape = b"".join(map(value, item.shape)) + b"\x86"
        empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + string(b"b") + b"\x87R"
        return empty + b"(K\x01" + shape + dtype + b"\x89" + string(item.tobytes()) + b"tb"

    pairs = b"".join(string(key.encode()) + value(item) for key, item in content.items())
    return b"\x80\x02}(" + pairs + b"u."


def _same(data: sources.DataSet, train: ImageSet, test: ImageSet) -> bool:
    pairs = (data.train, train), (data.test, test)
    return data.classes == CIFAR_CLASSES and all(
        np.array_equal(a.images, b.images) and np.array_equal(a.labels, b.labels) for a, b in pairs
    )


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("as_bytes", [False, True])
def test_pickles_of_python_3(tmp_path: Path, protocol: int, as_bytes: bool) -> None:
    train, test = cifar_images(5, 0), cifar_images(3, 1)
    write_cifar_python(tmp_path / "cifar-100-python", train, test, protocol, as_bytes)
    assert _same(sources.read_dataset("cifar100", tmp_path), train, test)


def test_pickles_of_python_2(tmp_path: Path) -> None:
    train, test = cifar_images(5, 0), cifar_images(3, 1)
    folder = tmp_path / "somewhere" / "cifar-100-python"
    folder.mkdir(parents=True)
    (folder / "meta").write_bytes(_python2_pickle({"fine_label_names": list(CIFAR_CLASSES)}))
    for name, split in (("train", train), ("test", test)):
        content = {"fine_labels": split.labels.tolist(), "data": cifar_planes(split.images)}
        (folder / name).write_bytes(_python2_pickle(content))
        # numpy's own reader agrees that this is such a pickle.
        expected = pickle.loads((folder / name).read_bytes(), encoding="latin1")
        assert np.array_equal(expected["data"], content["data"]) and expected["fine_labels"] == content["fine_labels"]
    assert _same(sources.read_dataset("cifar100", tmp_path), train, test)


def test_cifar10_joins_its_batches(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    batches = [ImageSet(part.images, part.labels % 10) for part in (cifar_images(2, seed) for seed in range(6))]
    for name, split in zip((*CIFAR10.train, *CIFAR10.test), batches, strict=True):
        (folder / name).write_bytes(
            pickle.dumps({"data": cifar_planes(split.images), "labels": split.labels.tolist()}, 2)
        )
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}, 2))
    data = sources.read_dataset("cifar10", tmp_path)
    assert data.classes == tuple("abcdefghij")
    assert np.array_equal(data.train.images, np.concatenate([batch.images for batch in batches[:5]]))
    assert np.array_equal(data.test.labels, batches[5].labels)


def test_archive_and_the_order_of_the_forms(tmp_path: Path) -> None:
    splits = [cifar_images(4, seed) for seed in range(6)]
    write_cifar_python(tmp_path / "made" / "cifar-100-python", splits[0], splits[1], 2)
    root = tmp_path / "root"
    root.mkdir()
    with tarfile.open(root / "cifar-100-python.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "made" / "cifar-100-python", "cifar-100-python")
    assert _same(sources.read_dataset("cifar100", root), splits[0], splits[1])
    write_cifar_python(root / "cifar-100-python", splits[2], splits[3], 2)
    assert _same(sources.read_dataset("cifar100", root), splits[2], splits[3])
    packs.write_npz(root / "cifar100.npz", sources.DataSet(CIFAR_CLASSES, splits[4], splits[5]))
    assert _same(sources.read_dataset("cifar100", root), splits[4], splits[5])


class _Command:
    """What a hostile pickle holds: a call of anything."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "function", [os.mkdir, eval, getattr, np.load, np.array, pickle.loads], ids=lambda f: f.__name__
)
def test_no_pickle_runs_anything(tmp_path: Path, function: Any, protocol: int) -> None:
    train, test = cifar_images(2, 0), cifar_images(2, 1)
    write_cifar_python(tmp_path / "cifar-100-python", train, test, 2)
    trap = tmp_path / "trap"
    content = pickle.dumps({"data": _Command(function, str(trap))}, protocol)
    (tmp_path / "cifar-100-python" / "test").write_bytes(content)
    with pytest.raises(KdbenchError, match=r"cannot read test of .*cifar-100-python: it asks for \S+, which no array"):
        sources.read_dataset("cifar100", tmp_path)
    assert not trap.exists()


def test_arrays_of_objects_are_refused() -> None:
    for array in (np.array([None]), np.array(["text"]), np.array([1.5]), np.zeros(1, [("a", "u1")])):
        with pytest.raises(pickle.UnpicklingError, match=r"an array of type|it asks for"):
            unpickle.loads(pickle.dumps(array, 2))
    with pytest.raises(pickle.UnpicklingError, match="text in"):
        unpickle.loads(b"c_codecs\nencode\n(Vtext\nVbz2\ntR.")


def test_damage_is_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-100-python"
    write_cifar_python(folder, cifar_images(5, 0), cifar_images(3, 1), 2)
    whole = (folder / "train").read_bytes()
    short = pickle.dumps({"data": np.zeros((5, 7), np.uint8), "fine_labels": [0] * 5}, 2)
    other = pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "fine_labels": [100]}, 2)
    for content, message in (
        (whole[: len(whole) // 2], "cannot read train of"),
        (b"", "cannot read train of"),
        (pickle.dumps([1, 2]), "cannot read train of"),
        (pickle.dumps({"labels": []}), "is not laid out as cifar100 is"),
        (short, "is not laid out as cifar100 is"),
        (other, "labels outside 0-99"),
    ):
        (folder / "train").write_bytes(content)
        with pytest.raises(KdbenchError, match=message) as caught:
            sources.read_dataset("cifar100", tmp_path)
        assert "\n" not in str(caught.value)
    (folder / "train").unlink()
    with pytest.raises(KdbenchError, match="cannot read train of"):
        sources.read_dataset("cifar100", tmp_path)
    (tmp_path / "cifar100.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(KdbenchError, match=r"cannot read .*cifar100\.npz"):
        sources.read_dataset("cifar100", tmp_path)
    np.savez(tmp_path / "cifar100.npz", x_train=np.array([None]), y_train=np.array([0]))
    with pytest.raises(KdbenchError, match=r"cannot read .*cifar100\.npz"):
        sources.read_dataset("cifar100", tmp_path)
    empty = tmp_path / "empty"
    with pytest.raises(KdbenchError, match=f"no cifar100 under {empty}; get it with `kdbench data download cifar100"):
        sources.read_dataset("cifar100", empty)


def test_packs_merge_into_what_they_were_made_of(tmp_path: Path) -> None:
    train, test = cifar_images(7, 0), cifar_images(3, 1)
    first = write_cifar_pack(tmp_path / "a.npz", train=train.take(np.arange(4)), test=test)
    second = write_cifar_pack(tmp_path / "b.npz", train=train.take(np.arange(4, 7)))
    data = packs.merge([CIFAR100.read_part(path) for path in (first, second)])
    assert _same(data, train, test)
    packs.write_npz(tmp_path / "data" / "cifar100.npz", data)
    read = sources.read_dataset("cifar100", tmp_path / "data")
    assert _same(read, train, test) and read.sha256 == data.sha256


def test_packs_that_do_not_fit_together(tmp_path: Path) -> None:
    train, test = cifar_images(6, 0), cifar_images(3, 1)
    first = CIFAR100.read_part(write_cifar_pack(tmp_path / "a.npz", train=train, test=test))
    again = CIFAR100.read_part(write_cifar_pack(tmp_path / "b.npz", train=train.take(np.arange(2, 4))))
    others = CIFAR100.read_part(
        write_cifar_pack(tmp_path / "c.npz", classes=CIFAR_CLASSES[::-1], train=cifar_images(2, 5))
    )
    with pytest.raises(KdbenchError, match=r"2 train images of .*b\.npz are in another file too"):
        packs.merge([first, again])
    with pytest.raises(KdbenchError, match="other classes than"):
        packs.merge([first, others])
    with pytest.raises(KdbenchError, match="holds no test images"):
        packs.merge([again])
    with pytest.raises(KdbenchError, match="cifar10 has 10 of"):
        CIFAR10.read_part(tmp_path / "a.npz")
    with pytest.raises(KdbenchError, match="neither x_train nor webp_train"):
        CIFAR100.read_part(_other_npz(tmp_path))
    with pytest.raises(KdbenchError, match=r"cannot read .*none\.npz: No such file"):
        CIFAR100.read_part(tmp_path / "none.npz")


def _other_npz(folder: Path) -> Path:
    np.savez(folder / "other.npz", weights=np.zeros(3))
    return folder / "other.npz"


PACKS = os.environ.get("KDBENCH_TEST_PACKS")


@pytest.mark.skipif(not PACKS, reason="KDBENCH_TEST_PACKS does not name the folder of the CIFAR-100 packs")
def test_the_real_cifar100() -> None:
    paths = [Path(str(PACKS)) / f"cifar100_part{part}.npz" for part in "AB"]
    data = packs.merge([CIFAR100.read_part(path) for path in paths])
    assert (np.bincount(data.train.labels) == 500).all() and (np.bincount(data.test.labels) == 100).all()
    # The published statistics.
    means = data.train.images.mean(axis=(0, 1, 2), dtype=np.float64) / 255
    assert means == pytest.approx([0.5070751592371323, 0.48654887331495095, 0.4409178433670343], abs=1e-12)
    with pytest.raises(KdbenchError, match="give each pack once"):
        packs.merge([CIFAR100.read_part(path) for path in (paths[0], paths[0])])
