"""`reader:NAME`: data sets by the names that timm's reader factory gives them."""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdbench.data.sources import archives, folder
from kdbench.data.sources.folder import TEST, TRAIN, unread_splits
from kdbench.data.sources.locate import below
from kdbench.data.sources.sets import DataSet, FileSet
from kdbench.errors import KdbenchError

STREAMS = ("hfids", "tfds")
"""Readers that have no image number i: the order of the batches would depend on the number of processes."""


@dataclass(frozen=True)
class Rows:
    """Rows of one of timm's map-style readers."""

    reader: Any
    rows: NDArray[np.int64]
    names: NDArray[np.bytes_]
    sizes: NDArray[np.int64]

    def take(self, index: NDArray[np.int64]) -> "Rows":
        return Rows(self.reader, self.rows[index], self.names[index], self.sizes[index])

    def read(self, i: int) -> bytes:
        file, _ = self.reader[int(self.rows[i])]
        with file:
            return file.read()


def read(name: str, root: Path) -> DataSet:
    """The data set that timm calls `name`.

    Args:
        name: `hfds/NAME` (Hugging Face datasets: a folder under `root`, else a name of the hub, cached in `root`),
            `wds/FOLDER` (webdataset shards), or a folder with train.tar and val.tar, or with train/ and val/.

    Raises:
        KdbenchError: not found, not readable, or a kind of reader that cannot be read by position.
    """
    kind, _, rest = name.partition("/")
    if kind.lower() == "hfds":
        return _read_hfds(rest, root)
    if kind.lower() == "wds":
        return archives.read_webdataset(below(root, rest))
    if kind.lower() in STREAMS:
        raise KdbenchError(
            f"reader:{name} can only be streamed, and batches are to depend on seed and epoch alone; "
            f"use reader:hfds/..., reader:wds/... or a folder"
        )
    if kind.lower() == "torch":
        raise KdbenchError(f"reader:{name} reads pickles; use one of kdbench's own sources (`kdbench data list`)")
    path = below(root, name)
    return archives.read_tars(path) if archives.holds_tars(path) else folder.read(path)


def _read_hfds(name: str, root: Path) -> DataSet:
    try:
        datasets: Any = import_module("datasets")
        compute: Any = import_module("pyarrow.compute")
    except ImportError as error:
        raise KdbenchError(f"reader:hfds/... needs another package: pip install datasets ({error})") from error
    from timm.data.readers.reader_hfds import ReaderHfds

    path = str(below(root, name).resolve()) if below(root, name).is_dir() else name
    try:
        available = datasets.get_dataset_split_names(path)
        chosen = [next((split for split in names if split in available), None) for names in (TRAIN, TEST)]
        readers = [ReaderHfds(path, root=str(root), split=split) for split in chosen if split]
    except Exception as error:  # Hugging Face's loaders raise errors of their own, and those of the network.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise KdbenchError(f"cannot read {name} with Hugging Face datasets: {reason}") from error
    if None in chosen:
        raise KdbenchError(f"{name} has the splits {', '.join(available)}; needed are train, and val(idation) or test")
    splits = []
    for split, reader in zip(chosen, readers, strict=True):
        count = len(reader)
        content = compute.struct_field(reader.dataset.data.column(reader.image_key), "bytes")
        sizes = compute.fill_null(compute.binary_length(content), 0).to_numpy()
        labels = np.asarray(reader.dataset.with_format("numpy")[reader.label_key][:], np.int64)
        names = np.char.mod(f"{split}/%d", np.arange(count)).astype(bytes)
        splits.append(FileSet(Rows(reader, np.arange(count), names, sizes.astype(np.int64)), labels))
    unread = unread_splits([name for name in TEST if name in available])
    return DataSet(tuple(readers[0].class_to_idx), splits[0], splits[1], unread)
