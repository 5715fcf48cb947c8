"""CIFAR-10 and CIFAR-100, in any of the forms in which they lie on disks (Krizhevsky 2009)."""

import lzma
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np

from kdbench.data.sources import packs, unpickle
from kdbench.data.sources.locate import find, missing, refuse_bomb
from kdbench.data.sources.packs import Part
from kdbench.data.sources.sets import DataSet, ImageSet
from kdbench.errors import KdbenchError

SIDE = 32
SIZES = {"train": 50_000, "test": 10_000}
"""Images of either."""


@dataclass(frozen=True)
class Cifar:
    """One of the two: where its parts lie in the archive that its authors publish, which torchvision keeps."""

    name: str
    classes: int
    folder: str
    archive: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    meta: str
    class_names: str
    labels: str

    def locate(self, root: Path) -> Path | None:
        """kdbench's own file, else the folder or the archive of the authors."""
        for name in (f"{self.name}.npz", self.folder, self.archive):
            path = find(root, name)
            if path is not None:
                return path
        return None

    def read(self, root: Path) -> DataSet:
        """The data set, from the first of its forms that is found.

        Raises:
            KdbenchError: none is, or it is damaged.
        """
        path = self.locate(root)
        if path is None:
            packs_too = f"`kdbench data import {self.name} FILE... --data {quote(str(root))}` for packs you have"
            raise missing(self.name, self.name, root, packs_too)
        return packs.whole(self.read_part(path))

    def read_part(self, path: Path) -> Part:
        """What a file or folder has of this data set.

        Raises:
            KdbenchError: it has nothing, something else, or is damaged.
        """
        if path.is_dir():
            part = self._read_pickles(path, lambda name: (path / name).read_bytes())
        elif path.suffix == ".npz":
            part = packs.read_npz(path)
        else:
            part = self._read_archive(path)
        for split in part.splits.values():
            if len(part.classes) != self.classes or split.images.shape[1:] != (SIDE, SIDE, 3):
                raise KdbenchError(
                    f"{path} holds {len(part.classes)} classes of images {split.images.shape[1:]}, "
                    f"{self.name} has {self.classes} of {(SIDE, SIDE, 3)}"
                )
            if len(split) and not 0 <= split.labels.min() <= split.labels.max() < self.classes:
                raise KdbenchError(f"{path} holds labels outside 0-{self.classes - 1}")
        return part

    def _read_archive(self, path: Path) -> Part:
        try:
            with tarfile.open(path) as archive:
                # It is compressed as a whole: one pass, for going back means from the start.
                contents: dict[str, bytes] = {}
                for member in archive:
                    name, file = Path(member.name).name, archive.extractfile(member) if member.isfile() else None
                    if file is not None and name in (*self.train, *self.test, self.meta):
                        refuse_bomb(member.size)
                        contents[name] = file.read()
        except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, tarfile.TarError) as error:
            raise KdbenchError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
        return self._read_pickles(path, contents.__getitem__)

    def _read_pickles(self, path: Path, content: Callable[[str], bytes]) -> Part:
        def load(name: str) -> dict[str, Any]:
            try:
                return {_text(key): value for key, value in unpickle.loads(content(name)).items()}
            except Exception as error:  # A damaged pickle can raise anything.
                raise KdbenchError(f"cannot read {name} of {path}: {error or type(error).__name__}") from error

        def split(names: tuple[str, ...]) -> ImageSet:
            batches = [load(name) for name in names]
            try:
                planes = np.concatenate([batch["data"].array for batch in batches])
                labels = [label for batch in batches for label in batch[self.labels]]
                images = planes.reshape(len(labels), 3, SIDE, SIDE).transpose(0, 2, 3, 1)
                return ImageSet(np.ascontiguousarray(images, np.uint8), np.array(labels, np.int64))
            except (KeyError, AttributeError, TypeError, ValueError) as error:
                raise KdbenchError(f"{names[0]} of {path} is not laid out as {self.name} is: {error}") from error

        classes = tuple(_text(name) for name in load(self.meta).get(self.class_names, ()))
        return Part(path, classes, {"train": split(self.train), "test": split(self.test)})


def _text(value: str | bytes) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else value


CIFAR10 = Cifar(
    name="cifar10",
    classes=10,
    folder="cifar-10-batches-py",
    archive="cifar-10-python.tar.gz",
    train=tuple(f"data_batch_{number}" for number in range(1, 6)),
    test=("test_batch",),
    meta="batches.meta",
    class_names="label_names",
    labels="labels",
)

CIFAR100 = Cifar(
    name="cifar100",
    classes=100,
    folder="cifar-100-python",
    archive="cifar-100-python.tar.gz",
    train=("train",),
    test=("test",),
    meta="meta",
    class_names="fine_label_names",
    labels="fine_labels",
)
