"""Rebuild `fashion_mnist_5k2k.npz` from the full Fashion-MNIST: `python -m kdbench.data.embedded.rebuild DIR OUT`.

DIR holds the four IDX files (Debian: package dataset-fashion-mnist, folder /usr/share/datasets/fashion-mnist).
"""

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdbench.data.sources import ImageSet, read_dataset

PER_CLASS = {"train": 500, "test": 200}


def subset(folder: Path) -> dict[str, NDArray]:
    """The arrays of the subset: images, labels and indices into the original files, classes balanced, seed 0."""
    data = read_dataset("fashion-mnist", folder)
    # The legacy generator, whose draws NumPy keeps stable for good.
    generator = np.random.RandomState(0)
    arrays: dict[str, NDArray] = {}
    for name, split in (("train", data.train), ("test", data.test)):
        assert isinstance(split, ImageSet)
        chosen = [
            generator.choice(np.flatnonzero(split.labels == label), PER_CLASS[name], replace=False)
            for label in range(len(data.classes))
        ]
        index = np.sort(np.concatenate(chosen))
        arrays[f"x_{name}"] = split.images[index, ..., 0]
        arrays[f"y_{name}"] = split.labels[index].astype(np.uint8)
        arrays[f"idx_{name}"] = index.astype(np.int32)
    arrays["classes"] = np.array(data.classes)
    return arrays


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    with target.open("wb") as file:
        np.savez_compressed(file, **subset(source))  # type: ignore[arg-type]
