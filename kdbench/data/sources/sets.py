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
        """Image `i`, converted to RGB from whatever it is; raises as `decode`."""
        image = self.decode(i)
        if image.mode.startswith("I"):
            # Grey of 16 bits, which Pillow would clip and not scale.
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        return image.convert("RGB")

    def identity(self) -> Iterator[bytes]:
        """What tells this split from every other without reading it: names, sizes, labels."""
        yield b"\n".join(self.files.names.tolist())
        yield self.files.sizes.tobytes()
        yield self.labels.tobytes()


@dataclass(frozen=True)
class DataSet:
    """A training and a test split."""

    classes: tuple[str, ...]
    train: ImageSet | FileSet
    test: ImageSet | FileSet

    @cached_property
    def sha256(self) -> str:
        """Hash of every image and label in memory, of the listing where images are files."""
        digest = hashlib.sha256()
        for split in (self.train, self.test):
            for part in split.identity():
                digest.update(part)
        return digest.hexdigest()
