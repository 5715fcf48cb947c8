"""Reading data sets by name. Nothing here imports torch before it is needed."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kdbench.data.sources import fashion_mnist, folder, readers
from kdbench.data.sources.cifar import CIFAR10, CIFAR100
from kdbench.data.sources.fashion_mnist import EMBEDDED
from kdbench.data.sources.locate import below
from kdbench.data.sources.sets import DataSet, FileSet, ImageSet
from kdbench.data.sources.splits import split_holdout, stratified_subset
from kdbench.errors import KdbenchError, unknown_name

__all__ = [
    "EMBEDDED",
    "NAMED",
    "DataSet",
    "FileSet",
    "ImageSet",
    "NamedSource",
    "read_dataset",
    "split_holdout",
    "stratified_subset",
]


@dataclass(frozen=True)
class NamedSource:
    """A data set that has a name of its own.

    Attributes:
        content: what it holds, in words.
        read: reads it from the data folder, raises KdbenchError.
        locate: the file or folder that `read` would read; None where it is not there.
    """

    content: str
    read: Callable[[Path], DataSet]
    locate: Callable[[Path], Path | None]


NAMED = {
    "fashion-mnist-5k2k": NamedSource(
        "5,000 + 2,000 grey images, 28 px, 10 classes", fashion_mnist.read_embedded, lambda root: fashion_mnist.SUBSET
    ),
    "fashion-mnist": NamedSource(
        "60,000 + 10,000 grey images, 28 px, 10 classes", fashion_mnist.read, fashion_mnist.locate
    ),
    "cifar10": NamedSource("50,000 + 10,000 images, 32 px, 10 classes", CIFAR10.read, CIFAR10.locate),
    "cifar100": NamedSource("50,000 + 10,000 images, 32 px, 100 classes", CIFAR100.read, CIFAR100.locate),
}


def read_dataset(source: str, root: Path) -> DataSet:
    """Load a data set by name.

    Args:
        source: one of `NAMED`; `folder` or `folder:SUBFOLDER`, where train/CLASS/ and val/CLASS/ lie in the data folder
            or in a folder of it; `reader:NAME`, NAME as timm's reader factory has it.
        root: the data folder.

    Raises:
        KdbenchError: unknown name, missing folder, unreadable file, or nothing to learn: an empty split, fewer than two
            classes, images without a label.
    """
    dataset = _read(source, root)
    if len(dataset.classes) < 2:
        raise KdbenchError(f"{source} under {root} has a single class ({', '.join(dataset.classes)}); it needs two")
    for name, split in (("training", dataset.train), ("test", dataset.test)):
        if len(split) == 0:
            raise KdbenchError(f"{source} under {root} has no {name} images")
        if not 0 <= split.labels.min() <= split.labels.max() < len(dataset.classes):
            raise KdbenchError(
                f"{source} under {root} has {name} images without a label: a number outside of 0 to "
                f"{len(dataset.classes) - 1}"
            )
    return dataset


def _read(source: str, root: Path) -> DataSet:
    kind, _, rest = source.partition(":")
    if kind == "folder":
        return folder.read(below(root, rest))
    if kind == "reader" and rest:
        return readers.read(rest, root)
    if source not in NAMED:
        raise unknown_name("data source", source, [*NAMED, "folder:SUBFOLDER", "reader:NAME"])
    return NAMED[source].read(root)
