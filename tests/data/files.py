"""Small data sets on disk, as the tests of reading need them."""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image


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
