"""Image folders, tar files, webdatasets and Hugging Face data sets: listings whose images are read one by one."""

import io
import json
import os
import pickle
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ExifTags, Image

from kdbench.data import sources
from kdbench.data.sources import FileSet
from kdbench.data.sources.check import check
from kdbench.data.sources.sets import BrokenImage
from kdbench.errors import KdbenchError
from tests.support.files import encoded, image_folder, pixels

CLASSES = ("ant", "bee", "cat")


def _holds_the_images(data: sources.DataSet) -> bool:
    """Whether `data` is what `image_folder` wrote, in its order, and can be pickled and cut down."""
    expected = [np.repeat(np.arange(3), 4), np.repeat(np.arange(3), 2)]
    first = 0
    for split, labels in zip((data.train, data.test), expected, strict=True):
        assert isinstance(split, FileSet)
        split = pickle.loads(pickle.dumps(split))
        assert (split.labels == labels).all() and len(split) == len(labels)
        for i in range(len(split)):
            assert np.array_equal(np.asarray(split.load(i)), pixels(first + i))
        odd = split.take(np.arange(1, len(split), 2))
        assert np.array_equal(np.asarray(odd.load(1)), pixels(first + 3)) and (odd.labels == labels[1::2]).all()
        first += len(split)
    return True


@pytest.mark.parametrize("test_name", ["val", "validation", "test"])
def test_folder(tmp_path: Path, test_name: str) -> None:
    image_folder(tmp_path / "pictures")
    (tmp_path / "pictures" / "val").rename(tmp_path / "pictures" / test_name)
    (tmp_path / "pictures" / "train" / "bee" / "notes.txt").write_text("no image")
    (tmp_path / "pictures" / "train" / "bee" / ".0.png").write_text("hidden")
    data = sources.read_dataset("folder:pictures", tmp_path)
    assert data.classes == CLASSES and _holds_the_images(data)
    assert sources.read_dataset("folder", tmp_path / "pictures").sha256 == data.sha256
    assert sources.read_dataset("reader:pictures", tmp_path).sha256 == data.sha256


def test_the_hash_of_a_listing(tmp_path: Path) -> None:
    image_folder(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    first = sources.read_dataset("folder:a", tmp_path).sha256
    assert sources.read_dataset("folder:b", tmp_path).sha256 == first, "the place does not matter"
    victim = tmp_path / "b" / "train" / "bee" / "2.png"
    content = victim.read_bytes()
    for change in (
        lambda: victim.write_bytes(content + b"\0"),
        lambda: victim.write_bytes(content) and victim.rename(victim.with_name("9.png")),
        lambda: victim.with_name("9.png").rename(victim) and victim.rename(tmp_path / "b" / "train" / "ant" / "2b.png"),
    ):
        change()
        assert sources.read_dataset("folder:b", tmp_path).sha256 != first


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1", "I;16"])
def test_images_of_every_mode_become_rgb(tmp_path: Path, mode: str) -> None:
    image_folder(tmp_path, classes=("ant", "bee"), train=1, val=1)
    kind, target = ("TIFF" if mode == "CMYK" else "PNG"), tmp_path / "train" / "ant" / "0.png"
    if mode == "I;16":
        wide = Image.fromarray(np.asarray(Image.fromarray(pixels(0)).convert("L")).astype(np.uint16) * 257)
        wide.save(target)
    else:
        target.write_bytes(encoded(pixels(0), kind, mode))
    split = sources.read_dataset("folder", tmp_path).train
    assert isinstance(split, FileSet) and split.decode(0).mode == mode
    image = split.load(0)
    assert image.mode == "RGB"
    expected = Image.fromarray(pixels(0)).convert("L" if mode == "I;16" else mode).convert("RGB")
    assert np.array_equal(np.asarray(image), np.asarray(expected))


RAMP = np.add.outer(np.arange(32), np.arange(32)) / 62
"""Grey from 0 to 1, its mean a half."""


@pytest.mark.parametrize(
    ("name", "values", "refusal"),
    [
        ("0.tif", (RAMP * 255).astype("int32"), "mode I has no range"),
        ("0.tif", (RAMP * 65535).astype("int32"), "mode I has no range"),
        ("0.tif", RAMP.astype("float32"), "mode F has no range"),
        ("0.png", (RAMP * 255).astype("uint16"), "16 bits whose largest value is 255"),
        ("0.png", (RAMP * 65535).astype("uint16"), ""),
        ("0.tif", (RAMP * 65535).astype("uint16"), ""),
        ("0.pgm", (RAMP * 65535).astype("uint16"), ""),
        ("0.png", np.zeros((32, 32), "uint16"), ""),
    ],
)
def test_no_image_turns_black_in_silence(tmp_path: Path, name: str, values: NDArray[Any], refusal: str) -> None:
    image_folder(tmp_path, classes=("ant", "bee"), train=1, val=1)
    (tmp_path / "train" / "ant" / "0.png").unlink()
    Image.fromarray(values).save(tmp_path / "train" / "ant" / name)
    data = sources.read_dataset("folder", tmp_path)
    assert isinstance(data.train, FileSet)
    if refusal:
        with pytest.raises(BrokenImage, match=f"cannot decode ant/{name}: {refusal}"):
            data.train.load(0)
        ((file, reason),) = check(data)["train"].broken
        assert file == f"ant/{name}" and refusal in reason
        return
    half = np.asarray(data.train.load(0)).mean()
    assert half == pytest.approx(127.5 if values.any() else 0, abs=1)
    ((mode, ends),) = check(data)["train"].ranges.items()
    assert mode.startswith("I") and ends == (0, values.max())


def test_a_folder_with_odd_entries(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "pictures")
    bees = root / "train" / "bee"
    for name in (".thumbs", "@eaDir", "__MACOSX"):
        (bees / name).mkdir()
        shutil.copy(bees / "0.png", bees / name / "0.png")
    (root / "train" / "lost+found").mkdir()
    for name in ("a.gif", "b.GIF", "c.heic"):
        (bees / name).write_bytes(b"")
    shutil.copytree(root / "val", root / "test")
    data = sources.read_dataset("folder:pictures", tmp_path)
    assert _holds_the_images(data), "what lies beside the images is no image"
    assert data.notes == (
        "test/ is not read: val/ is the test split",
        *(f"train: {what} not read" for what in ("2 x *.gif", "1 x *.heic", "1 x @eaDir", "1 x __MACOSX")),
        "train: 1 x lost+found not read",
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.symlink_to("nowhere.png"), "bee/odd.png is a link to nothing"),
        (lambda path: path.symlink_to("odd.png"), "bee/odd.png"),
        (lambda path: path.symlink_to("../bee"), "bee/odd.png is a link to a folder that it lies in"),
        (os.mkfifo, "bee/odd.png is no file that can be read twice"),
    ],
    ids=["dangling", "itself", "loop", "pipe"],
)
def test_an_entry_that_is_no_file_is_named(tmp_path: Path, make: Callable[[Path], None], message: str) -> None:
    make(image_folder(tmp_path) / "train" / "bee" / "odd.png")
    with pytest.raises(KdbenchError, match=message):
        sources.read_dataset("folder", tmp_path)


def test_a_class_that_is_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    root = image_folder(tmp_path)
    for split in ("train", "val"):
        shutil.rmtree(root / split / "bee")
        (root / split / "bee").symlink_to("nowhere")
    with pytest.raises(KdbenchError, match="train/bee is a link to nothing"):
        sources.read_dataset("folder", tmp_path)


def test_one_class_is_refused(tmp_path: Path) -> None:
    image_folder(tmp_path / "pictures", classes=("ant",))
    with pytest.raises(KdbenchError, match=r"folder:pictures under .* has a single class \(ant\)"):
        sources.read_dataset("folder:pictures", tmp_path)
    _shards(tmp_path / "shards", lambda label: {"cls": b"0"})
    with pytest.raises(KdbenchError, match=r"reader:wds/shards under .* has a single class"):
        sources.read_dataset("reader:wds/shards", tmp_path)


def test_the_test_split_that_is_not_read_is_told(tmp_path: Path) -> None:
    for split, count, first in (("train", 4, 0), ("val", 2, 12), ("test", 2, 12)):
        images = {f"{name}/{i}.png": encoded(pixels(n)) for n, name, i in _numbered(count, first)}
        _tar(tmp_path / "tars" / f"{split}.tar", images | {"ant/.hidden/1.png": b"", "__MACOSX/ant/0.png": b""})
    data = sources.read_dataset("reader:tars", tmp_path)
    assert data.notes == ("test is not read: val is the test split",) and _holds_the_images(data)


def _empty(root: Path) -> None:
    for path in (root / "train" / "bee").iterdir():
        path.unlink()


def _no_images(root: Path) -> None:
    for path in (root / "train").rglob("*.png"):
        path.rename(path.with_suffix(".doc"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: shutil.rmtree(root), "no folder "),
        (lambda root: shutil.rmtree(root / "train"), "no folder train in "),
        (lambda root: shutil.rmtree(root / "val"), "no folder val or validation or test in "),
        (lambda root: [shutil.rmtree(root / "val" / name) for name in CLASSES], "no class folders in .*val"),
        (_empty, "class folder .*train/bee holds no image"),
        (_no_images, "no images in the class folders of .*train"),
        (lambda root: (root / "val" / "bee").rename(root / "val" / "fly"), "differ: bee and 1 more is in one only"),
    ],
)
def test_bad_folders_are_one_line(tmp_path: Path, change: Callable[[Path], object], message: str) -> None:
    change(image_folder(tmp_path / "pictures"))
    with pytest.raises(KdbenchError, match=message) as caught:
        sources.read_dataset("folder:pictures", tmp_path)
    assert "\n" not in str(caught.value)


def test_check_finds_what_is_odd(tmp_path: Path) -> None:
    root = image_folder(tmp_path)
    (root / "train" / "ant" / "0.png").write_bytes(encoded(pixels(0, 50, 60), "JPEG", "CMYK"))
    (root / "train" / "cat" / "1.png").write_bytes(encoded(pixels(0), "PNG", "L"))
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    Image.fromarray(pixels(0)).save(root / "train" / "cat" / "2.png", exif=turned)
    truncated = root / "train" / "bee" / "3.png"
    truncated.write_bytes(truncated.read_bytes()[:900])
    (root / "val" / "bee" / "1.png").write_bytes(b"not an image")
    reports = check(sources.read_dataset("folder", root))
    train, test = reports["train"], reports["test"]
    assert (train.images, train.per_class) == (12, dict.fromkeys(CLASSES, 4))
    assert train.sizes == {(48, 40): 10, (60, 50): 1}
    assert train.modes == {"RGB": 9, "CMYK": 1, "L": 1}
    assert (train.turned, test.turned) == (1, 0)
    assert [name for name, _ in train.broken] == ["bee/3.png"]
    assert test.broken == [("bee/1.png", "not an image")]


def _tar(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def _numbered(count: int, first: int) -> list[tuple[int, str, int]]:
    """(number of the image, class, number in its class) as `image_folder` counts."""
    return [(first + count * label + i, name, i) for label, name in enumerate(CLASSES) for i in range(count)]


def test_tars_of_class_folders(tmp_path: Path) -> None:
    for split, count, first in (("train", 4, 0), ("val", 2, 12)):
        images = {f"{name}/{i}.png": encoded(pixels(n)) for n, name, i in _numbered(count, first)}
        _tar(tmp_path / "tars" / f"{split}.tar", dict(reversed(images.items())))
    data = sources.read_dataset("reader:tars", tmp_path)
    assert data.classes == CLASSES and _holds_the_images(data)


def test_a_tar_for_each_class(tmp_path: Path) -> None:
    for split, count, first in (("train", 4, 0), ("val", 2, 12)):
        for label in CLASSES:
            images = {f"{name}_{i}.png": encoded(pixels(n)) for n, name, i in _numbered(count, first) if name == label}
            _tar(tmp_path / "tars" / split / f"{label}.tar", images)
    data = sources.read_dataset("reader:tars", tmp_path)
    assert data.classes == CLASSES and _holds_the_images(data)
    (tmp_path / "tars" / "val" / "cat.tar").rename(tmp_path / "tars" / "val" / "dog.tar")
    with pytest.raises(KdbenchError, match=r"the classes of both splits in .*tars differ: cat"):
        sources.read_dataset("reader:tars", tmp_path)


def _shards(folder: Path, label: Callable[[int], dict[str, bytes]]) -> None:
    """Webdataset shards of five samples."""
    for split, count, first in (("train", 4, 0), ("validation", 2, 12)):
        samples = _numbered(count, first)
        for shard in range(0, len(samples), 5):
            members: dict[str, bytes] = {}
            for n, name, _ in samples[shard : shard + 5]:
                told = {f"part.one/{n:04}.{key}": value for key, value in label(CLASSES.index(name)).items()}
                members |= {f"part.one/{n:04}.png": encoded(pixels(n))} | told
            _tar(folder / f"set-{split}-{shard // 5:03}.tar", members)


@pytest.mark.parametrize(
    ("label", "info"),
    [
        (lambda label: {"cls": str(label).encode()}, False),
        (lambda label: {"cls": f"{label}\n".encode(), "json": b'{"label": 7}'}, False),
        (lambda label: {"json": json.dumps({"label": label}).encode()}, False),
        (lambda label: {"cls": b"9", "json": json.dumps({"fine": label}).encode()}, True),
    ],
    ids=["cls", "cls before json", "json", "alt_label"],
)
def test_webdataset(tmp_path: Path, label: Callable[[int], dict[str, bytes]], info: bool) -> None:
    folder = tmp_path / "shards"
    _shards(folder, label)
    if info:
        names = {split: sorted(path.name for path in folder.glob(f"*-{split}-*")) for split in ("train", "validation")}
        for path in folder.glob("*.tar"):
            path.rename(path.with_name(path.name.replace("set-", "")))
        splits = {
            split: {"filenames": [name.replace("set-", "") for name in files], "alt_label": "fine"}
            for split, files in names.items()
        }
        (folder / "_info.json").write_text(json.dumps({"splits": splits}))
    data = sources.read_dataset("reader:wds/shards", tmp_path)
    assert data.classes == ("0", "1", "2") and _holds_the_images(data)


def test_webdataset_as_timm_reads_it(tmp_path: Path) -> None:
    pytest.importorskip("webdataset")
    from timm.data.readers import create_reader

    _shards(tmp_path, lambda label: {"cls": str(label).encode()})
    split = "set-train-{000..002}.tar|12"
    theirs = list(create_reader("wds/", root=str(tmp_path), split=split))  # type: ignore[call-overload]
    ours = sources.read_dataset("reader:wds", tmp_path).train
    assert isinstance(ours, FileSet) and len(theirs) == len(ours) == 12
    for i, (image, label) in enumerate(theirs):
        assert label == ours.labels[i] and np.array_equal(np.asarray(image), np.asarray(ours.load(i)))


def test_bad_archives_are_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    _shards(folder, lambda label: {"txt": str(label).encode()})
    with pytest.raises(KdbenchError, match=r"sample part\.one/0000 of .* has no label"):
        sources.read_dataset("reader:wds/shards", tmp_path)
    with pytest.raises(KdbenchError, match=r"no shards of train in .*none"):
        sources.read_dataset("reader:wds/none", tmp_path)
    shard = folder / "set-train-000.tar"
    shard.write_bytes(b"\x1f\x8b compressed")
    with pytest.raises(KdbenchError, match=r"cannot read .*set-train-000.tar: .*not compressed"):
        sources.read_dataset("reader:wds/shards", tmp_path)
    (folder / "_info.json").write_text("{")
    with pytest.raises(KdbenchError, match=r"cannot read .*_info.json"):
        sources.read_dataset("reader:wds/shards", tmp_path)
    with pytest.raises(KdbenchError, match=r"no folder .*nowhere"):
        sources.read_dataset("reader:nowhere", tmp_path)
    for name in ("tfds/mnist", "hfids/some/thing"):
        with pytest.raises(KdbenchError, match=f"reader:{name} can only be streamed"):
            sources.read_dataset(f"reader:{name}", tmp_path)
    with pytest.raises(KdbenchError, match="reader:torch/cifar100 reads pickles"):
        sources.read_dataset("reader:torch/cifar100", tmp_path)


def test_hugging_face(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = image_folder(tmp_path / "pictures")
    data = sources.read_dataset("reader:hfds/pictures", tmp_path)
    assert data.classes == CLASSES and _holds_the_images(data)
    shutil.rmtree(folder / "val")
    with pytest.raises(KdbenchError, match=r"pictures has the splits train; needed are train, and val\(idation\) or"):
        sources.read_dataset("reader:hfds/pictures", tmp_path)
    with pytest.raises(KdbenchError, match="cannot read nobody/nothing with Hugging Face datasets: ") as caught:
        sources.read_dataset("reader:hfds/nobody/nothing", tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read(tmp_path: Path) -> None:
    closed = image_folder(tmp_path) / "train" / "bee"
    closed.chmod(0)
    try:
        with pytest.raises(KdbenchError, match=r"cannot list .*train/bee: Permission denied"):
            sources.read_dataset("folder", tmp_path)
    finally:
        closed.chmod(0o755)
