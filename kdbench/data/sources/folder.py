"""Image folders: `train/CLASS/...` beside `val/CLASS/...` (or `validation`, or `test`), ImageNet's usual layout."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdbench.data.sources.sets import DataSet, FileSet
from kdbench.errors import KdbenchError

TRAIN = ("train",)
TEST = ("val", "validation", "test")
IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff")


@dataclass(frozen=True)
class Paths:
    """Image files in a folder."""

    root: Path
    names: NDArray[np.bytes_]
    sizes: NDArray[np.int64]

    def take(self, index: NDArray[np.int64]) -> "Paths":
        return Paths(self.root, self.names[index], self.sizes[index])

    def read(self, i: int) -> bytes:
        return (self.root / os.fsdecode(self.names[i])).read_bytes()


def locate(root: Path) -> Path | None:
    """`root`, if it has a folder of training images."""
    return root if _split_folder(root, TRAIN) else None


def read(root: Path) -> DataSet:
    """List the images of both splits; the classes are the names of the folders, sorted.

    Raises:
        KdbenchError: the folders are not there, an empty one among them, or the splits have other classes.
    """
    if not root.is_dir():
        raise KdbenchError(f"no folder {root}; --data DIR names the folder that holds train/ and val/")
    folders = [_split_folder(root, names) for names in (TRAIN, TEST)]
    for folder, names in zip(folders, (TRAIN, TEST), strict=True):
        if folder is None:
            raise KdbenchError(f"no folder {' or '.join(names)} in {root}; images lie in train/CLASS/ and val/CLASS/")
    (train_classes, train), (test_classes, test) = (_read_split(folder) for folder in folders if folder)
    if train_classes != test_classes:
        odd = sorted(set(train_classes) ^ set(test_classes))
        more = f" and {len(odd) - 1} more" if len(odd) > 1 else ""
        raise KdbenchError(f"the classes of {folders[0]} and {folders[1]} differ: {odd[0]}{more} is in one only")
    return DataSet(train_classes, train, test)


def class_folders(folder: Path) -> list[str]:
    """Names of the class folders of a split, sorted."""
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))


def timm_order(classes: Sequence[str]) -> tuple[str, ...]:
    """The classes as timm's folder reader orders them: in lower case, and numbers in them by value."""

    def key(name: str) -> list[str | int]:
        # Texts and numbers take turns.
        return [int(part) if turn % 2 else part for turn, part in enumerate(re.split(r"(\d+)", name.lower()))]

    return tuple(sorted(classes, key=key))


def is_image(name: str) -> bool:
    """Whether a file name is that of an image, and not of something hidden."""
    return name.lower().endswith(IMAGES) and not name.startswith(".")


def _split_folder(root: Path, names: tuple[str, ...]) -> Path | None:
    return next((root / name for name in names if (root / name).is_dir()), None)


def _read_split(folder: Path) -> tuple[tuple[str, ...], FileSet]:
    try:
        classes = class_folders(folder)
        if not classes:
            raise KdbenchError(f"no class folders in {folder}; images lie in {folder.name}/CLASS/")
        listed = [sorted(_images_in(folder / name, f"{name}/")) for name in classes]
    except OSError as error:
        raise KdbenchError(f"cannot list {folder}: {error.strerror or error}") from error
    if not any(listed):
        raise KdbenchError(f"no images in the class folders of {folder} (looked for *{', *'.join(IMAGES)})")
    for name, files in zip(classes, listed, strict=True):
        if not files:
            raise KdbenchError(f"class folder {folder / name} holds no image; fill it, or delete it in both splits")
    names, sizes = zip(*(file for files in listed for file in files), strict=True)
    labels = np.repeat(np.arange(len(classes)), [len(files) for files in listed])
    return tuple(classes), FileSet(Paths(folder, np.array(names), np.array(sizes, np.int64)), labels)


def _images_in(folder: Path, prefix: str) -> list[tuple[bytes, int]]:
    """Name and size of every image in `folder` and below."""
    found: list[tuple[bytes, int]] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                found += _images_in(folder / entry.name, f"{prefix}{entry.name}/")
            elif is_image(entry.name):
                found.append((os.fsencode(prefix + entry.name), entry.stat().st_size))
    return found
