"""`kdbench data` as a user meets it, and downloads from a server of our own."""

import functools
import hashlib
import http.server
import json
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torchvision

from kdbench.data import sources
from kdbench.data.sources.download import download
from kdbench.data.sources.sets import ImageSet
from kdbench.errors import KdbenchError
from tests.support.command import kdbench, kdbench_without
from tests.support.files import cifar_images, image_folder, write_cifar_pack, write_cifar_python

NO_NETWORK = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9") | {"no_proxy": "", "NO_PROXY": ""}
"""A proxy that nobody listens at: what a machine without network looks like."""


def test_list(tmp_path: Path) -> None:
    image_folder(tmp_path / "pictures")
    np.savez(tmp_path / "cifar100.npz", nothing=0)
    rows = json.loads(kdbench("data", "list", "--data", str(tmp_path), "--json").stdout)
    found = {row["source"]: row["found"] for row in rows}
    assert found == {
        "fashion-mnist-5k2k": "comes with kdbench",
        "fashion-mnist": None,
        "cifar10": None,
        "cifar100": str(tmp_path / "cifar100.npz"),
        "folder:pictures": str(tmp_path / "pictures"),
    }
    shown = kdbench("data", "list", KDBENCH_DATA=str(tmp_path / "none")).stdout
    assert f"cifar10 50,000 + 10,000 images, 32 px, 10 classes: not in {tmp_path / 'none'}; get it with" in shown


def test_listing_and_help_load_no_torch(tmp_path: Path) -> None:
    done = kdbench_without("torch timm torchvision", "data", "list", "--data", tmp_path)
    assert done.returncode == 0, done.stderr


def test_import_packs(tmp_path: Path) -> None:
    train, test = cifar_images(6, 0), cifar_images(3, 1)
    files = [
        str(write_cifar_pack(tmp_path / "a.npz", train=train.take(np.arange(4)), test=test)),
        str(write_cifar_pack(tmp_path / "b.npz", train=train.take(np.arange(4, 6)))),
    ]
    root = tmp_path / "root"
    done = kdbench("data", "import", "cifar100", *files, "--data", str(root), "--json")
    assert done.returncode == 0, done.stderr
    told, data = json.loads(done.stdout), sources.read_dataset("cifar100", root)
    assert told == {
        "written": str(root / "cifar100.npz"),
        "classes": 100,
        "train": 6,
        "test": 3,
        "sha256": data.sha256,
    }
    assert isinstance(data.train, ImageSet) and np.array_equal(data.train.images, train.images)
    assert [path.name for path in root.iterdir()] == ["cifar100.npz"]
    shown = kdbench("data", "import", "cifar100", *files, "--data", str(root)).stdout
    assert "6 training and 3 test images of 100 classes" in shown and "cifar100 has 50,000 and 10,000" in shown


def test_import_torchvision_layout(tmp_path: Path) -> None:
    train, test = cifar_images(4, 0), cifar_images(2, 1)
    write_cifar_python(tmp_path / "cifar-100-python", train, test, 2)
    done = kdbench("data", "import", "cifar100", str(tmp_path / "cifar-100-python"), "--data", str(tmp_path / "root"))
    assert done.returncode == 0, done.stderr
    data = sources.read_dataset("cifar100", tmp_path / "root")
    assert isinstance(data.test, ImageSet) and np.array_equal(data.test.images, test.images)


def test_a_refused_import_writes_nothing(tmp_path: Path) -> None:
    pack = str(write_cifar_pack(tmp_path / "a.npz", train=cifar_images(4, 0), test=cifar_images(2, 1)))
    done = kdbench("data", "import", "cifar100", pack, pack, "--data", str(tmp_path / "root"))
    assert done.returncode == 3 and done.stderr.count("\n") == 1
    assert "4 train images of" in done.stderr and "give each pack once" in done.stderr
    assert not (tmp_path / "root").exists()


def test_check(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "pictures", train=3)
    done = kdbench("data", "check", "folder:pictures", "--data", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "train 9 images, 3 classes of 3" in done.stdout and "all 48x40 px" in done.stdout
    (root / "train" / "bee" / "1.png").write_bytes(b"not an image")
    (root / "train" / "cat" / "2.png").unlink()
    done = kdbench("data", "check", "folder:pictures", "--data", str(tmp_path))
    assert done.returncode == 2
    assert "3 classes of 2 to 3" in done.stdout and "cat 2" in done.stdout
    assert "broken bee/1.png: not an image" in done.stdout
    done = kdbench("data", "check", "folder:pictures", "--data", str(tmp_path), "--json")
    assert done.returncode == 2
    train = json.loads(done.stdout)["splits"]["train"]
    assert train["per_class"] == {"ant": 3, "bee": 3, "cat": 2}
    assert train["broken"] == [{"file": "bee/1.png", "reason": "not an image"}]
    assert train["sizes"] == {"48x40": 7} and train["modes"] == {"RGB": 7}


def test_check_of_images_in_memory() -> None:
    told = json.loads(kdbench("data", "check", "fashion-mnist-5k2k", "--json").stdout)
    assert set(told["splits"]["train"]["per_class"].values()) == {500}
    assert told["splits"]["test"]["modes"] == {"L": 2000}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "check cifar100 --data none",
            "get it with `kdbench data download cifar100 --data none`, or `kdbench data import",
        ),
        ("check cifar1000", "unknown data source 'cifar1000'; did you mean cifar100"),
        ("check folder:none", "no folder data/none"),
        ("import cifar100 none.npz", "cannot read none.npz: No such file"),
        ("import cifar1000 none.npz", "did you mean cifar100"),
        ("download imagenet", "unknown value of NAME 'imagenet'; known: cifar10, cifar100, fashion-mnist"),
        ("chek", "did you mean check"),
        ("list --dta x", "unknown option of kdbench data list '--dta'; did you mean --data"),
    ],
)
def test_mistakes_are_one_line_and_exit_3(tmp_path: Path, arguments: str, message: str) -> None:
    done = kdbench("data", *arguments.split(), cwd=tmp_path)
    assert done.returncode == 3, done.stdout + done.stderr
    assert message in done.stderr and done.stderr.count("\n") == 1 and done.stderr.startswith("kdbench: ")


@pytest.mark.runs
@pytest.mark.parametrize("name", ["cifar10", "cifar100", "fashion-mnist"])
def test_no_network_is_one_line_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    done = kdbench("data", "download", name, "--data", str(tmp_path), **NO_NETWORK)
    assert done.returncode == 3, done.stdout + done.stderr
    assert done.stderr.count("\n") == 1 and f"cannot download {name} to {tmp_path}: " in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address under which it is served."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{serving.server_port}/"
        serving.shutdown()


@pytest.mark.parametrize("whole", [True, False])
def test_download_takes_only_what_its_checksum_says(
    tmp_path: Path, server: tuple[Path, str], whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = server
    train, test = cifar_images(4, 0), cifar_images(2, 1)
    write_cifar_python(tmp_path / "made" / "cifar-100-python", train, test, 2)
    archive = folder / "cifar-100-python.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(tmp_path / "made" / "cifar-100-python", "cifar-100-python")
    official = torchvision.datasets.CIFAR100
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(official, "url", address + archive.name)
    monkeypatch.setattr(official, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    root = tmp_path / "root"
    if whole:
        assert download("cifar100", root) == [root / "cifar-100-python"]
        data = sources.read_dataset("cifar100", root)
        assert isinstance(data.train, ImageSet) and np.array_equal(data.train.images, train.images)
        assert [path.name for path in root.iterdir()] == ["cifar-100-python"]
        return
    archive.write_bytes(archive.read_bytes()[:-1])
    with pytest.raises(KdbenchError, match=r"cannot download cifar100 to .*corrupted.*nothing was written"):
        download("cifar100", root)
    assert not list(root.iterdir())


def test_download_of_fashion_mnist(tmp_path: Path, server: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, address = server
    resources = []
    for prefix, count in (("train", 5), ("t10k", 3)):
        for name, shape in (
            (f"{prefix}-images-idx3-ubyte.gz", (count, 28, 28)),
            (f"{prefix}-labels-idx1-ubyte.gz", (count,)),
        ):
            content = bytes([0, 0, 8, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape)
            (folder / name).write_bytes(content + bytes(int(np.prod(shape))))
            resources.append((name, hashlib.md5((folder / name).read_bytes()).hexdigest()))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "mirrors", [address])
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "resources", resources)
    assert download("fashion-mnist", tmp_path / "root") == [tmp_path / "root" / "fashion-mnist"]
    assert len(sources.read_dataset("fashion-mnist", tmp_path / "root").train) == 5
