"""Data sets by name: the embedded one, IDX files, and what all of them have in common."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from kdbench.data import sources
from kdbench.data.embedded.rebuild import subset
from kdbench.errors import KdbenchError
from tests.conftest import NO_DATA


def test_embedded_subset_is_whole_and_balanced() -> None:
    data = sources.read_dataset("fashion-mnist-5k2k", NO_DATA)
    assert data.train.images.shape == (5000, 28, 28, 1)
    assert data.test.images.shape == (2000, 28, 28, 1)
    assert (np.bincount(data.train.labels) == 500).all()
    assert (np.bincount(data.test.labels) == 200).all()
    assert len(data.classes) == 10
    # Published statistics of Fashion-MNIST: mean .2860, std .3530.
    assert data.train.images.mean() / 255 == pytest.approx(0.2860, abs=0.005)
    assert data.train.images.std() / 255 == pytest.approx(0.3530, abs=0.005)


def test_hash_sees_every_image_and_label() -> None:
    data = sources.read_dataset("fashion-mnist-5k2k", NO_DATA)
    labels = data.train.labels.copy()
    labels[17] = (labels[17] + 1) % 10
    changed = sources.DataSet(data.classes, sources.ImageSet(data.train.images, labels), data.test)
    assert changed.sha256 != data.sha256
    assert sources.read_dataset("fashion-mnist-5k2k", NO_DATA).sha256 == data.sha256


def test_holdout_is_stratified_and_disjoint() -> None:
    labels = np.repeat(np.arange(10), 50)
    kept, held = sources.split_holdout(labels, 0.2)
    assert (np.bincount(labels[held]) == 10).all()
    assert sorted([*kept, *held]) == list(range(500))
    assert (held == sources.split_holdout(labels, 0.2)[1]).all()
    assert len(sources.split_holdout(labels, 0.0)[1]) == 0


def test_holdout_is_the_one_of_recorded_results() -> None:
    _, held = sources.split_holdout(np.tile(np.arange(4), 10), 0.25)
    assert held.tolist() == [9, 16, 18, 19, 22, 23, 24, 37]


@pytest.mark.parametrize("count", [1, 3, 17, 100, 299])
def test_subset_has_the_same_share_of_every_class(count: int) -> None:
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(4), [150, 90, 45, 15]))
    index = sources.stratified_subset(labels, count)
    assert len(index) == len(set(index)) == count
    assert (np.diff(index) > 0).all()
    # Largest remainder: every class gets its exact share, rounded up or down.
    exact = np.array([150, 90, 45, 15]) * count / 300
    assert (np.abs(np.bincount(labels[index], minlength=4) - exact) < 1).all()
    assert (index == sources.stratified_subset(labels, count)).all()


def test_subsets_of_balanced_classes_are_balanced_and_nested() -> None:
    labels = np.tile(np.arange(10), 30)
    small, large = (sources.stratified_subset(labels, count) for count in (50, 200))
    assert (np.bincount(labels[small]) == 5).all()
    assert set(small) < set(large)
    assert (sources.stratified_subset(labels, 10**6) == np.arange(300)).all()


def _write_idx(path: Path, array: np.ndarray, compress: bool) -> None:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(int(n).to_bytes(4, "big") for n in array.shape)
    content = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if compress else content)


# torchvision puts them two folders down.
@pytest.mark.parametrize("folder", [".", "FashionMNIST/raw"])
@pytest.mark.parametrize("compress", [True, False])
def test_idx_files(tmp_path: Path, compress: bool, folder: str) -> None:
    generator = np.random.default_rng(0)
    ending = ".gz" if compress else ""
    arrays = {}
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    for prefix, count in (("train", 7), ("t10k", 3)):
        arrays[prefix] = generator.integers(0, 255, (count, 28, 28)), generator.integers(0, 10, count)
        _write_idx(tmp_path / folder / f"{prefix}-images-idx3-ubyte{ending}", arrays[prefix][0], compress)
        _write_idx(tmp_path / folder / f"{prefix}-labels-idx1-ubyte{ending}", arrays[prefix][1], compress)
    data = sources.read_dataset("fashion-mnist", tmp_path)
    assert (data.train.images[..., 0] == arrays["train"][0]).all()
    assert (data.test.labels == arrays["t10k"][1]).all()


def test_errors_are_one_line_and_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(KdbenchError, match=r"no train-images-idx3-ubyte.*kdbench data download fashion-mnist --data"):
        sources.read_dataset("fashion-mnist", tmp_path)
    with pytest.raises(KdbenchError, match="did you mean fashion-mnist"):
        sources.read_dataset("fashion-mnits", tmp_path)
    with pytest.raises(KdbenchError, match="did you mean reader:NAME"):
        sources.read_dataset("reader:", tmp_path)
    for prefix in ("train", "t10k"):
        for suffix in ("images-idx3-ubyte", "labels-idx1-ubyte"):
            (tmp_path / f"{prefix}-{suffix}").write_bytes(b"\x1f\x8bnot gzip")
    with pytest.raises(KdbenchError, match="cannot read"):
        sources.read_dataset("fashion-mnist", tmp_path)


IDX_FILES = Path("/usr/share/datasets/fashion-mnist")


@pytest.mark.skipif(not IDX_FILES.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_the_embedded_subset_can_be_rebuilt() -> None:
    rebuilt = subset(IDX_FILES)
    with np.load(sources.EMBEDDED / "fashion_mnist_5k2k.npz") as pack:
        assert set(rebuilt) == set(pack.files)
        for name in pack.files:
            assert np.array_equal(rebuilt[name], pack[name]), name
