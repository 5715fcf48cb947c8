"""Fetching data sets with torchvision's own download utilities: its addresses, its checksums."""

import socket
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

from kdbench.data.sources.cifar import CIFAR10, CIFAR100, Cifar
from kdbench.errors import KdbenchError

TIMEOUT = 30.0
"""Seconds that a server may be silent."""


def download(name: str, root: Path) -> list[Path]:
    """Put a data set of `DOWNLOADS` into `root`; what is there at the end is whole.

    Returns:
        What was put there.

    Raises:
        KdbenchError: no network, another file than expected, or a folder that cannot be written.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        # Beside its destination, so that moving it there is one step.
        with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as temporary, _patience():
            return [_place(path, root) for path in sorted(DOWNLOADS[name](Path(temporary)))]
    except (OSError, RuntimeError, EOFError, HTTPException, tarfile.TarError) as error:
        reason = " ".join(str(getattr(error, "reason", None) or error).split())
        raise KdbenchError(f"cannot download {name} to {root}: {reason}; nothing was written") from error


def _cifar(cifar: Cifar) -> Callable[[Path], list[Path]]:
    def fetch(folder: Path) -> list[Path]:
        from torchvision import datasets
        from torchvision.datasets import utils

        official = {CIFAR10.name: datasets.CIFAR10, CIFAR100.name: datasets.CIFAR100}[cifar.name]
        utils.download_and_extract_archive(
            official.url, str(folder), filename=official.filename, md5=official.tgz_md5, remove_finished=True
        )
        return [folder / cifar.folder]

    return fetch


def _fashion_mnist(folder: Path) -> list[Path]:
    from torchvision.datasets import FashionMNIST, utils

    target = folder / "fashion-mnist"
    for name, md5 in FashionMNIST.resources:
        utils.download_url(f"{FashionMNIST.mirrors[0]}{name}", str(target), name, md5)
    return [target]


DOWNLOADS: dict[str, Callable[[Path], list[Path]]] = {
    "fashion-mnist": _fashion_mnist,
    "cifar10": _cifar(CIFAR10),
    "cifar100": _cifar(CIFAR100),
}


def _place(path: Path, root: Path) -> Path:
    target = root / path.name
    if target.exists():
        raise KdbenchError(f"{target} exists; delete it to download it again")
    return path.rename(target)


@contextmanager
def _patience() -> Iterator[None]:
    # torchvision's utilities take no timeout of their own.
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
