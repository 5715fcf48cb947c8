"""Finding files in the data folder, and the line that says how to get what is not there."""

from pathlib import Path
from shlex import quote

from kdbench.errors import KdbenchError
from kdbench.values import inside


def find(root: Path, name: str) -> Path | None:
    """The first file or folder called `name` in `root` or up to two folders below.

    No deeper: the data folder may also hold millions of images, which are never listed here.
    """
    for pattern in (name, f"*/{name}", f"*/*/{name}"):
        for path in sorted(root.glob(pattern)):
            return path
    return None


def below(root: Path, name: str) -> Path:
    """What a suite, or a listing in the data folder, calls `name` there; links that lie there are followed.

    Raises:
        KdbenchError: the name leads out of `root`.
    """
    try:
        return root / inside(name)
    except ValueError:
        raise KdbenchError(f"{name} leads out of the data folder {root}; name another one with --data") from None


LARGEST = 1 << 30
"""Bytes that a compressed file may unfold to; CIFAR is 184 million of them."""


def refuse_bomb(size: int) -> None:
    """Refuse what would unfold to `size` bytes, before it fills the memory.

    Raises:
        ValueError: that is more than any of the data sets here.
    """
    if size > LARGEST:
        raise ValueError(f"it would unfold to {size:,} bytes, no data set read from one file has more than {LARGEST:,}")


def missing(what: str, source: str, root: Path, otherwise: str) -> KdbenchError:
    """The error for a data set that can be downloaded and is not there; `otherwise` is another way to get it."""
    get = f"kdbench data download {source} --data {quote(str(root))}"
    return KdbenchError(f"no {what} under {root}; get it with `{get}`, or {otherwise}")
