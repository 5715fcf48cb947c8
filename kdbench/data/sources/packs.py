"""Data sets as single files: `NAME.npz`, which is fast to read, and compact packs, which are small to pass on.

`NAME.npz` holds x_train, y_train, x_test, y_test and classes: images uint8 (N, H, W, C), labels, names of the classes.

A pack is a .npz with `size` (side in pixels), `classes`, and for each split S that it holds a part of: `webp_S`, the
concatenated bytes of lossless WebP strips; `off_S`, their offsets (strips + 1); `y_S`, uint8 labels. A strip is `size`
wide and a multiple of that high: its images one below the other. Anything else in the file is ignored.
"""

import io
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kdbench.data.sources.locate import refuse_bomb
from kdbench.data.sources.sets import DataSet, ImageSet
from kdbench.errors import KdbenchError, one_line
from kdbench.files import write_bytes

SPLITS = ("train", "test")

SAME_IMAGES = 0.01
"""Two files that share that much of their images are the same files: CIFAR-100 itself repeats about 0.03 %."""


@dataclass(frozen=True)
class Part:
    """What one file has of a data set: some or all images of some or all splits."""

    path: Path
    classes: tuple[str, ...]
    splits: Mapping[str, ImageSet]

    @property
    def image_shapes(self) -> set[tuple[int, ...]]:
        return {split.images.shape[1:] for split in self.splits.values()}


def read_npz(path: Path) -> Part:
    """A pack or a `NAME.npz`.

    Raises:
        KdbenchError: it is neither, or damaged.
    """
    with _reading(path), _opened(path) as arrays:
        splits = {}
        for name in SPLITS:
            if f"x_{name}" in arrays:
                splits[name] = _checked(arrays[f"x_{name}"], arrays[f"y_{name}"])
            elif f"webp_{name}" in arrays:
                images = _unpack(arrays[f"webp_{name}"], arrays[f"off_{name}"], int(arrays["size"]))
                splits[name] = _checked(images, arrays[f"y_{name}"])
        if not splits:
            raise ValueError("it holds neither x_train nor webp_train nor the like")
        classes = tuple(str(name) for name in arrays["classes"])
    return Part(path, classes, splits)


def write_npz(path: Path, data: DataSet) -> None:
    """Write `NAME.npz` atomically, not compressed: photographs hardly shrink, and this is read at every start.

    Raises:
        KdbenchError: the folder cannot be written.
    """
    arrays: dict[str, NDArray[Any]] = {"classes": np.array(data.classes)}
    for name in SPLITS:
        split = getattr(data, name)
        arrays |= {f"x_{name}": split.images, f"y_{name}": split.labels}
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    write_bytes(path, buffer.getvalue())


def whole(part: Part) -> DataSet:
    """The data set, where a file has both splits.

    Raises:
        KdbenchError: it has not.
    """
    for name in SPLITS:
        if name not in part.splits or not len(part.splits[name]):
            raise KdbenchError(f"{part.path} holds no {name} images; import it together with the packs that do")
    return DataSet(part.classes, part.splits["train"], part.splits["test"])


def merge(parts: list[Part]) -> DataSet:
    """All parts together, in their order.

    Raises:
        KdbenchError: they have other classes, share images, or lack a split.
    """
    first = parts[0]
    for part in parts[1:]:
        if part.classes != first.classes:
            raise KdbenchError(f"{part.path} has other classes than {first.path}; import packs of one data set")
        if part.image_shapes != first.image_shapes:
            raise KdbenchError(f"{part.path} has images of another size than {first.path}")
    splits: dict[str, ImageSet] = {}
    for name in SPLITS:
        having = [part for part in parts if name in part.splits]
        seen: set[bytes] = set()
        for part in having:
            own = {image.tobytes() for image in part.splits[name].images}
            if len(own & seen) > SAME_IMAGES * len(own):
                raise KdbenchError(
                    f"{len(own & seen)} {name} images of {part.path} are in another file too; give each pack once"
                )
            seen |= own
        if having:
            splits[name] = ImageSet(
                np.concatenate([part.splits[name].images for part in having]),
                np.concatenate([part.splits[name].labels for part in having]),
            )
    return whole(Part(first.path, first.classes, splits))


def _unpack(content: NDArray[np.uint8], offsets: NDArray[np.int64], size: int) -> NDArray[np.uint8]:
    strips = []
    for start, end in pairwise(offsets.tolist()):
        with Image.open(io.BytesIO(content[start:end].tobytes()), formats=["WEBP"]) as strip:
            strips.append(np.asarray(strip.convert("RGB")).reshape(-1, size, size, 3))
    return np.concatenate(strips)


def _checked(images: NDArray[np.uint8], labels: NDArray[Any]) -> ImageSet:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise ValueError(f"images are {images.dtype} {images.shape} and not uint8 (N, H, W, 1 or 3)")
    if labels.shape != images.shape[:1]:
        raise ValueError(f"{len(images)} images and {len(labels)} labels")
    return ImageSet(images, labels.astype(np.int64))


def _opened(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        refuse_bomb(sum(member.file_size for member in archive.infolist()))
    return np.load(path, allow_pickle=False)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # A damaged file fails in any way its bytes lead to.
        reason = getattr(error, "strerror", None) or one_line(str(error)) or type(error).__name__
        raise KdbenchError(f"cannot read {path}: {reason}") from error
