"""Fashion-MNIST: the embedded subset, and the full set in its four IDX files."""

import gzip
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdbench.data.sources.locate import LARGEST, find, missing, refuse_bomb
from kdbench.data.sources.sets import DataSet, ImageSet
from kdbench.errors import KdbenchError

EMBEDDED = Path(__file__).parents[1] / "embedded"
SUBSET = EMBEDDED / "fashion_mnist_5k2k.npz"

CLASSES = (
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
)


def read_idx(path: Path) -> NDArray[np.uint8]:
    """An IDX file (the MNIST format), gzipped or not: two zero bytes, type 8 (uint8), rank, sizes, data."""
    raw = path.read_bytes()
    if raw[:2] == b"\x1f\x8b":
        with gzip.open(path) as file:
            raw = file.read(LARGEST + 1)
        refuse_bomb(len(raw))
    if raw[:3] != b"\0\0\x08" or len(raw) < 4:
        raise ValueError("not an IDX file of bytes")
    rank = raw[3]
    shape = np.frombuffer(raw, dtype=">u4", count=rank, offset=4)
    return np.frombuffer(raw, dtype=np.uint8, offset=4 + 4 * rank).reshape(shape).copy()


def read_embedded(root: Path) -> DataSet:
    """The subset that comes with kdbench; `root` is not looked at."""
    with np.load(SUBSET, allow_pickle=False) as pack:
        train, test = (
            ImageSet(pack[f"x_{split}"][..., None], pack[f"y_{split}"].astype(np.int64)) for split in ("train", "test")
        )
        return DataSet(tuple(str(name) for name in pack["classes"]), train, test)


def locate(root: Path) -> Path | None:
    """The first of the four files."""
    return _find(root, "train-images-idx3-ubyte")


def read(root: Path) -> DataSet:
    """The full set.

    Raises:
        KdbenchError: one of the four files is missing or unreadable.
    """
    splits = []
    for prefix in ("train", "t10k"):
        arrays = []
        for name in (f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"):
            path = _find(root, name)
            if path is None:
                raise missing(
                    f"{name}(.gz)",
                    "fashion-mnist",
                    root,
                    "from Debian: apt-get install dataset-fashion-mnist, then --data /usr/share/datasets/fashion-mnist",
                )
            try:
                arrays.append(read_idx(path))
            except (OSError, ValueError, EOFError, zlib.error) as error:
                raise KdbenchError(f"cannot read {path}: {error}; delete it and get it again") from error
        images, labels = arrays
        if images.shape[1:] != (28, 28) or labels.shape != images.shape[:1] or not len(labels) or labels.max() > 9:
            raise KdbenchError(
                f"{prefix} of fashion-mnist under {root} has images {images.shape} and labels {labels.shape}, which do "
                "not belong together; delete them and get them again"
            )
        splits.append(ImageSet(images[..., None], labels.astype(np.int64)))
    return DataSet(CLASSES, *splits)


def _find(root: Path, name: str) -> Path | None:
    return find(root, name) or find(root, f"{name}.gz")
