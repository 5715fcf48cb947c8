"""What a data set is once it is found: arrays in memory, or a listing of encoded images that are read one by one."""

import hashlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kdbench.errors import KdbenchError

Index = NDArray[np.int64]


@dataclass(frozen=True)
class ImageSet:
    """Images (N, H, W, C) uint8, C 1 or 3, and labels (N,) int64."""

    images: NDArray[np.uint8]
    labels: Index

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: Index) -> "ImageSet":
        """The subset at `index`."""
        return ImageSet(self.images[index], self.labels[index])

    def load(self, i: int) -> Image.Image:
        """Image `i`, mode RGB or, with one channel, L."""
        image = self.images[i]
        return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)

    def identity(self) -> Iterator[bytes]:
        """What tells this split from every other: shape, pixels, labels."""
        yield str(self.images.shape).encode()
        yield self.images.tobytes()
        yield self.labels.tobytes()


class BrokenImage(KdbenchError):
    """A file that cannot be decoded, made of its name and the reason."""

    def __str__(self) -> str:
        name, reason = self.args
        return f"cannot decode {name}: {reason}; `kdbench data check` names all such files"


class Files(Protocol):
    """Encoded images by position. It is copied into worker processes, so it is small and holds no file open.

    Attributes:
        names: (N,) bytes, file-system encoded and relative to the data set.
        sizes: (N,) int64, in bytes.
    """

    @property
    def names(self) -> NDArray[np.bytes_]: ...

    @property
    def sizes(self) -> Index: ...

    def take(self, index: Index) -> Self:
        """The files at `index`."""
        ...

    def read(self, i: int) -> bytes:
        """The bytes of file `i`; raises OSError."""
        ...


@dataclass(frozen=True)
class FileSet:
    """Encoded images that are read one by one, and labels (N,) int64."""

    files: Files
    labels: Index

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: Index) -> "FileSet":
        """The subset at `index`."""
        return FileSet(self.files.take(index), self.labels[index])

    def decode(self, i: int) -> Image.Image:
        """Image `i` as it is stored.

        Raises:
            BrokenImage: it cannot be read, or is no whole image.
        """
        try:
            image = Image.open(io.BytesIO(self.files.read(i)))
            image.load()
        except Exception as error:  # Pillow's decoders raise errors of a dozen kinds.
            # Pillow names the buffer and not the file.
            unknown = isinstance(error, Image.UnidentifiedImageError)
            reason = "not an image" if unknown else " ".join(str(error).split()) or type(error).__name__
            raise BrokenImage(os.fsdecode(self.files.names[i]), reason) from error
        return image

    def load(self, i: int) -> Image.Image:
        """Image `i`, converted to RGB; raises as `decode`, or where `as_rgb` refuses its values."""
        try:
            return as_rgb(self.decode(i))
        except ValueError as error:
            raise BrokenImage(os.fsdecode(self.files.names[i]), str(error)) from error

    def identity(self) -> Iterator[bytes]:
        """What tells this split from every other without reading it: names, sizes, labels."""
        yield b"\n".join(self.files.names.tolist())
        yield self.files.sizes.tobytes()
        yield self.labels.tobytes()


def is_wide(image: Image.Image) -> bool:
    """Whether a pixel has more than 8 bits a channel, so that its mode does not tell what value is white."""
    return image.mode.startswith(("I", "F"))


def as_rgb(image: Image.Image) -> Image.Image:
    """An image in mode RGB; 16 bits of grey are scaled from their whole range, 0 to 65535.

    Raises:
        ValueError: numbers of 32 bits, whose range no format states, or 16 bits that hold values of 8 bits only: they
            would be black.
    """
    if not is_wide(image):
        return image.convert("RGB")
    # Pillow widens the 16 bits of a PGM to 32, and scales them to 65535.
    if not image.mode.startswith("I;16") and image.format not in ("PNG", "PPM"):
        raise ValueError(f"mode {image.mode} has no range that says what is white; save it with 8 or 16 bits a channel")
    values = np.asarray(image)
    if 0 < values.max() <= 255:
        raise ValueError(f"16 bits whose largest value is {values.max()}, which would be black; save it with 8 bits")
    return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")


@dataclass(frozen=True)
class DataSet:
    """A training and a test split.

    Attributes:
        classes: their names, in the order of the labels.
        notes: what was found beside the images and is not read, a line each.
    """

    classes: tuple[str, ...]
    train: ImageSet | FileSet
    test: ImageSet | FileSet
    notes: tuple[str, ...] = ()

    @cached_property
    def sha256(self) -> str:
        """Hash of every image and label in memory, of the listing where images are files."""
        digest = hashlib.sha256()
        for split in (self.train, self.test):
            for part in split.identity():
                digest.update(part)
        return digest.hexdigest()
