"""Small data sets on disk, as the tests of reading need them."""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kdbench.data.sources import ImageSet


def pixels(seed: int, height: int = 40, width: int = 48) -> NDArray[np.uint8]:
    """An image (height, width, 3) with edges and gradients, so that resizing and colour changes show."""
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(0, 256, (5, 6, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def encoded(image: NDArray[np.uint8], kind: str = "PNG", mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).convert(mode).save(buffer, kind)
    return buffer.getvalue()


def image_folder(root: Path, classes: tuple[str, ...] = ("ant", "bee", "cat"), train: int = 4, val: int = 2) -> Path:
    """`root` with train/CLASS/*.png and val/CLASS/*.png; image n of all, in order of the names, is `pixels(n)`."""
    number = 0
    for split, count in (("train", train), ("val", val)):
        for name in classes:
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                (root / split / name / f"{i}.png").write_bytes(encoded(pixels(number)))
                number += 1
    return root


CIFAR_CLASSES = tuple(f"class {number}" for number in range(100))


def cifar_images(count: int, seed: int) -> ImageSet:
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    return ImageSet(images, generator.integers(0, 100, count).astype(np.int64))


def cifar_planes(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), -1)


def write_cifar_python(folder: Path, train: ImageSet, test: ImageSet, protocol: int, as_bytes: bool = False) -> None:
    """The layout of cifar-100-python, pickled by this Python."""
    folder.mkdir(parents=True)

    def key(text: str) -> str | bytes:
        return text.encode() if as_bytes else text

    contents: dict[str, dict[Any, Any]] = {"meta": {key("fine_label_names"): [key(name) for name in CIFAR_CLASSES]}}
    for name, split in (("train", train), ("test", test)):
        contents[name] = {key("data"): cifar_planes(split.images), key("fine_labels"): split.labels.tolist()}
    for name, content in contents.items():
        (folder / name).write_bytes(pickle.dumps(content, protocol))


def write_cifar_pack(path: Path, classes: tuple[str, ...] = CIFAR_CLASSES, strip: int = 2, **splits: ImageSet) -> Path:
    """A pack as `packs` documents it, with `strip` images a strip."""
    arrays: dict[str, Any] = {"size": np.array(32), "classes": np.array(classes)}
    for name, split in splits.items():
        strips = []
        for start in range(0, len(split), strip):
            buffer = io.BytesIO()
            Image.fromarray(split.images[start : start + strip].reshape(-1, 32, 3)).save(buffer, "WEBP", lossless=True)
            strips.append(buffer.getvalue())
        arrays[f"webp_{name}"] = np.frombuffer(b"".join(strips), np.uint8)
        arrays[f"off_{name}"] = np.cumsum([0, *map(len, strips)])
        arrays[f"y_{name}"] = split.labels.astype(np.uint8)
    np.savez(path, **arrays)
    return path
