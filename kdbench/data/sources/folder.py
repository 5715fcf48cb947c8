"""Image folders: `train/CLASS/...` beside `val/CLASS/...` (or `validation`, or `test`), ImageNet's usual layout."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdbench.data.sources.sets import DataSet, FileSet
from kdbench.errors import KdbenchError

TRAIN = ("train",)
TEST = ("val", "validation", "test")
SYSTEM = ("__MACOSX", "@eaDir", "lost+found")
"""Folders that archivers, storage boxes and file systems put beside images."""
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
    return root if _split_folders(root, TRAIN) else None


def read(root: Path) -> DataSet:
    """List the images of both splits; the classes are the names of the folders, sorted.

    Raises:
        KdbenchError: the folders are not there, an empty one among them, or the splits have other classes.
    """
    if not root.is_dir():
        raise KdbenchError(f"no folder {root}; --data DIR names the folder that holds train/ and val/")
    found = [_split_folders(root, names) for names in (TRAIN, TEST)]
    for folders, names in zip(found, (TRAIN, TEST), strict=True):
        if not folders:
            raise KdbenchError(f"no folder {' or '.join(names)} in {root}; images lie in train/CLASS/ and val/CLASS/")
    train_folder, test_folder = found[0][0], found[1][0]
    classes, train, beside_train = _read_split(train_folder)
    test_classes, test, beside_test = _read_split(test_folder)
    if classes != test_classes:
        odd = sorted(set(classes) ^ set(test_classes))
        more = f" and {len(odd) - 1} more" if len(odd) > 1 else ""
        raise KdbenchError(f"the classes of {train_folder} and {test_folder} differ: {odd[0]}{more} is in one only")
    unread = unread_splits([f"{folder.name}/" for folder in found[1]])
    return DataSet(classes, train, test, (*unread, *beside_train, *beside_test))


def class_folders(folder: Path) -> list[str]:
    """Names of the class folders of a split, sorted."""
    return sorted(entry.name for entry in os.scandir(folder) if not is_hidden(entry.name) and entry.is_dir())


def is_hidden(name: str) -> bool:
    """Whether a file or folder is none of the user's: hidden, or made by a system beside the images."""
    return name.startswith(".") or name in SYSTEM


def timm_order(classes: Sequence[str]) -> tuple[str, ...]:
    """The classes as timm's folder reader orders them: in lower case, and numbers in them by value."""

    def key(name: str) -> list[str | int]:
        # Texts and numbers take turns.
        return [int(part) if turn % 2 else part for turn, part in enumerate(re.split(r"(\d+)", name.lower()))]

    return tuple(sorted(classes, key=key))


def is_image(name: str) -> bool:
    """Whether a file name is that of an image, and not of something hidden."""
    return name.lower().endswith(IMAGES) and not is_hidden(name)


def unread_splits(names: Sequence[str]) -> tuple[str, ...]:
    """A line on the further test splits that stand beside the one that is read; `names` has that one first."""
    if len(names) < 2:
        return ()
    return (f"{' and '.join(names[1:])} {'is' if len(names) == 2 else 'are'} not read: {names[0]} is the test split",)


def _split_folders(root: Path, names: tuple[str, ...]) -> list[Path]:
    return [root / name for name in names if (root / name).is_dir()]


def _read_split(folder: Path) -> tuple[tuple[str, ...], FileSet, tuple[str, ...]]:
    """The classes of a split, its images, and what was found beside them."""
    skipped: Counter[str] = Counter()
    try:
        for entry in os.scandir(folder):
            _count_system(entry, skipped)
            if entry.is_symlink() and not entry.is_dir() and not entry.is_file():
                raise KdbenchError(f"{entry.path} is a link to nothing; mend or delete it")
        classes = class_folders(folder)
        if not classes:
            raise KdbenchError(f"no class folders in {folder}; images lie in {folder.name}/CLASS/")
        listed = [sorted(_images_in(folder / name, f"{name}/", skipped, ())) for name in classes]
    except OSError as error:
        raise KdbenchError(f"cannot list {error.filename or folder}: {error.strerror or error}") from error
    if not any(listed):
        raise KdbenchError(f"no images in the class folders of {folder} (looked for *{', *'.join(IMAGES)})")
    for name, files in zip(classes, listed, strict=True):
        if not files:
            raise KdbenchError(f"class folder {folder / name} holds no image; fill it, or delete it in both splits")
    names, sizes = zip(*(file for files in listed for file in files), strict=True)
    labels = np.repeat(np.arange(len(classes)), [len(files) for files in listed])
    notes = tuple(f"{folder.name}: {count:,} x {what} not read" for what, count in sorted(skipped.items()))
    return tuple(classes), FileSet(Paths(folder, np.array(names), np.array(sizes, np.int64)), labels), notes


def _count_system(entry: "os.DirEntry[str]", skipped: Counter[str]) -> None:
    if entry.name in SYSTEM:
        skipped[entry.name] += 1


def _images_in(
    folder: Path, prefix: str, skipped: Counter[str], above: tuple[tuple[int, int], ...]
) -> list[tuple[bytes, int]]:
    """Name and size of every image in `folder` and below.

    Args:
        folder: where to look.
        prefix: of the names.
        skipped: is added to: files that are no images by their suffix, and folders that a system made.
        above: device and inode of the folders that were entered to get here.

    Raises:
        OSError: something cannot be looked at.
        KdbenchError: something that goes by the name of an image is no file, or a link leads back to a folder above.
    """
    found: list[tuple[bytes, int]] = []
    place = folder.stat()
    above = (*above, (place.st_dev, place.st_ino))
    if len(set(above)) < len(above):
        raise KdbenchError(f"{folder} is a link to a folder that it lies in; delete it")
    with os.scandir(folder) as entries:
        for entry in entries:
            _count_system(entry, skipped)
            if is_hidden(entry.name):
                continue
            if entry.is_dir():
                found += _images_in(folder / entry.name, f"{prefix}{entry.name}/", skipped, above)
            elif not is_image(entry.name):
                skipped[f"*{Path(entry.name).suffix.lower()}"] += 1
            elif entry.is_file():
                found.append((os.fsencode(prefix + entry.name), entry.stat().st_size))
            else:
                what = "a link to nothing" if entry.is_symlink() else "no file that can be read twice"
                raise KdbenchError(f"{entry.path} is {what}; mend or delete it")
    return found
