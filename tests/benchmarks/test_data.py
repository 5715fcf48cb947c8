"""How fast images come: `pytest tests/benchmarks/test_data.py -m bench -s`, on an idle machine.

The resident path runs in one thread of one process; what it is held against has two worker processes.
"""

import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from kdbench.data.device_stream import DeviceImages, DeviceStream
from kdbench.data.normalise import normalise
from kdbench.data.sources import ImageSet
from kdbench.suites.schema import Augment, Data, Recipe

pytestmark = pytest.mark.bench

ROUNDS = 12
BATCH = 128
BATCHES = 40
MEAN, STD = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
CROP = {"resized_crop": (0.08, 1.0), "flip": 0.5}
RANDAUGMENT = {"randaugment": "rand-m9-mstd0.5-inc1"}
SHIFT = {"shift": 4, "flip": 0.5}
PATHS: dict[str, tuple[int, dict[str, Any]]] = {
    "shift + flip, 32 px": (32, SHIFT),
    "shift + flip + jitter, 32 px": (32, SHIFT | {"colour_jitter": 0.4}),
    "shift + flip + RandAugment, 32 px": (32, SHIFT | RANDAUGMENT),
    "shift + flip + erasing, 32 px": (32, SHIFT | {"erasing": 0.25}),
    "resized crop, 32 to 224 px": (224, CROP),
    "resized crop + jitter, 32 to 224 px": (224, CROP | {"colour_jitter": 0.4}),
    "resized crop + RandAugment, 32 to 224 px": (224, CROP | RANDAUGMENT),
    "resized crop + erasing, 32 to 224 px": (224, CROP | {"erasing": 0.25}),
    "the transformer recipe, 32 to 224 px": (224, CROP | RANDAUGMENT | {"erasing": 0.25}),
}


class _Pictures(Dataset[Tensor]):
    """Arrays as PIL images through torchvision's transforms, as its own data sets do it."""

    def __init__(self, pixels: np.ndarray) -> None:
        self._pixels = pixels
        self._transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self._pixels)

    def __getitem__(self, index: int) -> Tensor:
        return torch.as_tensor(self._transform(Image.fromarray(self._pixels[index])))


def _split(count: int) -> ImageSet:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    return ImageSet(pixels, np.zeros(count, dtype=np.int64))


def _stream(split: ImageSet, side: int, augment: dict[str, Any], batch: int) -> DeviceStream:
    data = Data(source="-", image_size=side, fit="pad" if side == 32 else "resize", mean=MEAN, std=STD)
    recipe = Recipe(epochs=1, batch_size=batch, optimizer="sgd", lr=0.1, augment=Augment(**augment))
    return DeviceStream(DeviceImages(split, data, recipe.augment.shift, torch.device("cpu")), recipe, 10, 0, "a:b")


def _seconds(work: Callable[[], None], clock: Callable[[], float] = time.perf_counter) -> float:
    started = clock()
    work()
    return clock() - started


def test_resident_images_beat_a_loader_with_two_workers() -> None:
    split = _split(BATCH * BATCHES)
    loader = DataLoader(_Pictures(split.images), BATCH, shuffle=True, num_workers=2, persistent_workers=True)
    stream = _stream(split, 32, SHIFT, BATCH)
    epochs = iter(range(10**6))

    def ours() -> None:
        for images, _ in stream.epoch(next(epochs)):
            normalise(images, (MEAN, STD))

    def theirs() -> None:
        for _ in loader:
            pass

    for work in (ours, theirs):
        work()
    rounds = [(_seconds(ours), _seconds(theirs)) for _ in range(ROUNDS)]
    ratio = median(loaded / resident for resident, loaded in rounds)
    speeds = [BATCH * BATCHES / median(column) for column in zip(*rounds, strict=True)]
    print(f"\nimages/s: resident {speeds[0]:,.0f}, loader {speeds[1]:,.0f}; ratio {ratio:.1f}")
    assert ratio >= 3


@pytest.mark.parametrize("path", PATHS)
def test_images_per_second_and_core(path: str) -> None:
    """Processor time, so that other work on the machine counts less; the draws of an epoch stand apart."""
    side, augment = PATHS[path]
    batch, number = (BATCH, 20) if side == 32 else (32, 8)
    stream = _stream(_split(50_000), side, augment, batch)
    order = torch.randperm(len(stream)).split(batch)[:-1]
    firsts, times = [], []
    for epoch in range(3):
        batches = stream.images(epoch, order)

        def draw(batches: Iterator[Tensor] = batches) -> None:
            next(batches)

        firsts.append(_seconds(draw, time.process_time))
        times += [_seconds(draw, time.process_time) for _ in range(number)]
    draws = min(firsts) - min(times)
    print(f"\n{path}: {batch / median(times):,.0f} images/s; draws of 50,000 images {draws:.2f} s")
    assert draws < 0.3
