"""Reading data sets into memory as uint8 arrays."""

import gzip
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdbench.errors import KdbenchError, unknown_name

EMBEDDED = Path(__file__).parent / "embedded"


@dataclass(frozen=True)
class ImageSet:
    """Images (N, H, W, C) uint8 and labels (N,) int64."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: NDArray[np.int64]) -> "ImageSet":
        """The subset at `index`."""
        return ImageSet(self.images[index], self.labels[index])


@dataclass(frozen=True)
class DataSet:
    """A training and a test split."""

    classes: tuple[str, ...]
    train: ImageSet
    test: ImageSet

    @cached_property
    def sha256(self) -> str:
        """Hash of every image and label."""
        digest = hashlib.sha256()
        for split in (self.train, self.test):
            digest.update(str(split.images.shape).encode())
            digest.update(split.images.tobytes())
            digest.update(split.labels.tobytes())
        return digest.hexdigest()


def load(source: str, root: Path | None = None) -> DataSet:
    """Load a data set by name.

    Args:
        source: `fashion-mnist-5k2k` (embedded) or `fashion-mnist` (the four IDX files).
        root: folder of data sets that are not embedded.

    Raises:
        KdbenchError: unknown name, missing folder or unreadable file.
    """
    if source not in _READERS:
        raise unknown_name("data source", source, _READERS)
    return _READERS[source](root)


def split_holdout(labels: NDArray[np.int64], share: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices (kept, held out) of a stratified split: the same share of every class, always the same images."""
    generator = np.random.default_rng(0)
    held: list[NDArray[np.int64]] = []
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        held.append(members[: round(share * len(members))])
    mask = np.zeros(len(labels), dtype=bool)
    mask[np.concatenate(held)] = True
    return np.flatnonzero(~mask), np.flatnonzero(mask)


def read_idx(path: Path) -> NDArray[np.uint8]:
    """An IDX file (the MNIST format), gzipped or not: two zero bytes, type 8 (uint8), rank, sizes, data."""
    raw = path.read_bytes()
    if raw[:2] == b"\x1f\x8b":
        raw = gzip.decompress(raw)
    if raw[:3] != b"\0\0\x08":
        raise ValueError("not an IDX file of bytes")
    rank = raw[3]
    shape = np.frombuffer(raw, dtype=">u4", count=rank, offset=4)
    return np.frombuffer(raw, dtype=np.uint8, offset=4 + 4 * rank).reshape(shape).copy()


def _embedded_fashion_mnist(root: Path | None) -> DataSet:
    with np.load(EMBEDDED / "fashion_mnist_5k2k.npz", allow_pickle=False) as pack:
        splits = [
            ImageSet(pack[f"x_{split}"][..., None], pack[f"y_{split}"].astype(np.int64)) for split in ("train", "test")
        ]
        return DataSet(tuple(str(name) for name in pack["classes"]), *splits)


FASHION_MNIST_CLASSES = [
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
]


def _fashion_mnist(root: Path | None) -> DataSet:
    if root is None:
        raise KdbenchError(
            "fashion-mnist is not embedded; give --data DIR, the folder of its four *-ubyte(.gz) files "
            "(Debian: apt-get install dataset-fashion-mnist, then --data /usr/share/datasets/fashion-mnist)"
        )
    splits = []
    for prefix in ("train", "t10k"):
        arrays = []
        for suffix in ("images-idx3-ubyte", "labels-idx1-ubyte"):
            found = sorted(p for p in root.rglob(f"{prefix}-{suffix}*") if p.is_file()) if root.is_dir() else []
            if not found:
                raise KdbenchError(f"no {prefix}-{suffix}(.gz) under {root}; is --data the folder of the IDX files?")
            try:
                arrays.append(read_idx(found[0]))
            except (OSError, ValueError, EOFError) as error:
                raise KdbenchError(f"cannot read {found[0]}: {error}") from error
        splits.append(ImageSet(arrays[0][..., None], arrays[1].astype(np.int64)))
    return DataSet(tuple(FASHION_MNIST_CLASSES), *splits)


_READERS: dict[str, Callable[[Path | None], DataSet]] = {
    "fashion-mnist-5k2k": _embedded_fashion_mnist,
    "fashion-mnist": _fashion_mnist,
}
