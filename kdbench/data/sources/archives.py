"""Images inside tar files, by position: the headers are read once, an image is then a place in a file.

That makes shards which are made for being streamed (webdatasets) readable in any order, so that training batches are a
function of seed and epoch alone.
"""

import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdbench.data.sources.folder import TEST, TRAIN, is_hidden, is_image, unread_splits
from kdbench.data.sources.locate import below
from kdbench.data.sources.sets import DataSet, FileSet
from kdbench.errors import KdbenchError

INFO = ("_info.json", "info.json")
"""Where timm's webdatasets list the shards of each split."""


@dataclass(frozen=True)
class ArchiveMembers:
    """ArchiveMembers of tar files that are not compressed.

    Attributes:
        archive: (N,) position in `archives`.
        offsets: (N,) first byte of the content.
    """

    archives: tuple[Path, ...]
    names: NDArray[np.bytes_]
    archive: NDArray[np.int64]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]

    def take(self, index: NDArray[np.int64]) -> "ArchiveMembers":
        return ArchiveMembers(
            self.archives, self.names[index], self.archive[index], self.offsets[index], self.sizes[index]
        )

    def read(self, i: int) -> bytes:
        with self.archives[self.archive[i]].open("rb") as file:
            file.seek(self.offsets[i])
            return file.read(self.sizes[i])


def read_webdataset(folder: Path) -> DataSet:
    """Shards of samples: an image and, under the same key, its label as `.cls` (a number) or in `.json`.

    Which shards make a split is told by timm's `_info.json`, else by the word train, val, validation or test in their
    names. In `.json` the label is the field that `_info.json` calls `alt_label`, else `label`.

    Raises:
        KdbenchError: no shards, damaged ones, or samples without a label.
    """
    splits = [_read_shards(folder, names) for names in (TRAIN, TEST)]
    count = 1 + max(int(split.labels.max()) for split in splits)
    return DataSet(tuple(str(label) for label in range(count)), splits[0], splits[1])


def holds_tars(folder: Path) -> bool:
    """Whether `read_tars` is to read `folder`."""
    return any(_tars(folder, name) for name in TRAIN)


def read_tars(folder: Path) -> DataSet:
    """`train.tar` beside `val.tar` (or `validation.tar`, or `test.tar`), their images in folders named by class; each
    may also be a folder of tars, named by class.

    Raises:
        KdbenchError: not there, damaged, or other classes in one than in the other.
    """
    listed, unread = [], ()
    for names in (TRAIN, TEST):
        found = {name: tars for name in names if (tars := _tars(folder, name))}
        if not found:
            raise KdbenchError(
                f"no {' or '.join(f'{name}.tar' for name in names)} in {folder}, nor such a folder of tars"
            )
        listed.append(sorted(_images(next(iter(found.values()))), key=lambda image: image.path))
        unread = unread_splits(list(found))
    classes = [sorted({image.label for image in images}) for images in listed]
    if classes[0] != classes[1] or not classes[0]:
        odd = sorted(set(classes[0]) ^ set(classes[1]))
        raise KdbenchError(
            f"the classes of both splits in {folder} differ: {odd[0]}" if odd else f"no images in {folder}"
        )
    number = {name: label for label, name in enumerate(classes[0])}
    train, test = (_file_set(images, [number[image.label] for image in images]) for images in listed)
    return DataSet(tuple(classes[0]), train, test, unread)


@dataclass(frozen=True)
class _Image:
    archive: Path
    path: str
    offset: int
    size: int
    label: str = ""


def _file_set(images: Sequence[_Image], labels: Sequence[int]) -> FileSet:
    archives = tuple(sorted({image.archive for image in images}))
    position = {path: number for number, path in enumerate(archives)}
    names = np.array([os.fsencode(f"{image.archive.name}/{image.path}") for image in images])
    numbers = [(position[image.archive], image.offset, image.size) for image in images]
    archive, offsets, sizes = np.array(numbers, np.int64).T
    return FileSet(ArchiveMembers(archives, names, archive, offsets, sizes), np.array(labels, np.int64))


def _tars(folder: Path, name: str) -> list[Path]:
    single = folder / f"{name}.tar"
    return [single] if single.is_file() else sorted((folder / name).glob("*.tar"))


def _images(tars: list[Path]) -> Iterator[_Image]:
    for path in tars:
        for _, member in _members(path):
            inner = Path(member.name)
            if is_image(inner.name) and not any(map(is_hidden, inner.parts)):
                yield _Image(path, member.name, member.offset_data, member.size, inner.parent.name or path.stem)


def _members(path: Path) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    try:
        # Not compressed (r:), so that only the headers are read, and members have a place in the file.
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                if member.isfile():
                    yield archive, member
    except (OSError, EOFError, tarfile.TarError) as error:
        raise KdbenchError(f"cannot read {path}: {error}; shards are tar files that are not compressed") from error


def _read_shards(folder: Path, names: tuple[str, ...]) -> FileSet:
    shards, field = _shards(folder, names)
    images: list[_Image] = []
    labels: list[int] = []
    for shard in shards:
        found: dict[str, _Image] = {}
        told: dict[str, int] = {}
        for archive, member in _members(shard):
            # A sample's key is its path up to the first dot of the file name.
            base, _, extension = member.name.rpartition("/")[2].partition(".")
            key = member.name[: len(member.name) - len(extension) - 1]
            if is_image(f"{base}.{extension}"):
                found[key] = _Image(shard, member.name, member.offset_data, member.size)
            elif extension in ("cls", "json"):
                content = archive.extractfile(member)
                assert content is not None
                label = _label(content.read(), extension, field)
                # A number of its own goes before a field of the description, unless the split names that field.
                if label is not None and (key not in told or extension == ("json" if field else "cls")):
                    told[key] = label
        unlabelled = sorted(found.keys() - told.keys())
        if unlabelled:
            raise KdbenchError(
                f"sample {unlabelled[0]} of {shard} has no label (.cls, or a number `{field or 'label'}` in .json)"
            )
        images += found.values()
        labels += [told[key] for key in found]
    if not images:
        raise KdbenchError(f"no {names[0]} images in the shards of {folder}")
    return _file_set(images, labels)


def _shards(folder: Path, names: tuple[str, ...]) -> tuple[list[Path], str | None]:
    """The shards of a split, and the field of .json that holds its labels where the split says so."""
    for info in (folder / name for name in INFO):
        if info.is_file():
            try:
                splits = json.loads(info.read_text())["splits"]
                for name in names:
                    if name in splits:
                        return [below(folder, file) for file in splits[name]["filenames"]], splits[name].get(
                            "alt_label"
                        ) or None
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise KdbenchError(f"cannot read {info}: {error or type(error).__name__}") from error
    for name in names:
        shards = sorted(path for path in folder.glob("*.tar") if name in path.name.lower())
        if shards:
            return shards, None
    raise KdbenchError(f"no shards of {' or '.join(names)} in {folder}: neither _info.json nor *{names[0]}*.tar tells")


def _label(content: bytes, extension: str, field: str | None) -> int | None:
    try:
        value = json.loads(content)[field or "label"] if extension == "json" else content
        return int(value) if int(value) >= 0 else None
    except (ValueError, KeyError, TypeError):
        return None
