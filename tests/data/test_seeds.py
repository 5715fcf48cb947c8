"""One seed an axis: none holds a method, two runs differ on every axis, the same run repeats, no seed comes twice."""

import ast
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import kdbench
from kdbench.compute.device import Compute
from kdbench.data.device_stream import DeviceImages, DeviceStream
from kdbench.data.seeds import AXES, derive_seed
from kdbench.data.sources import ImageSet
from kdbench.suites.loading import available, load_suite
from kdbench.suites.schema import Augment, Data, Recipe
from kdbench.training.contender import Contender
from kdbench.weights.files import weights_sha256
from tests.support.course import Course

KNOWN = {"self", "seed", "axis", "pair", "epoch", "indices", "rank", "replica", "view", "derive_seed", "seed_of"}
"""What may stand in a call that makes a seed."""


def test_no_seed_holds_a_method() -> None:
    """Every call that makes a seed, anywhere in the package, names only run, axis, pair, epoch, image or process."""
    calls = []
    for path in Path(kdbench.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called = getattr(node.func, "id", getattr(node.func, "attr", None))
            passed_on = node.args and getattr(node.args[0], "attr", None) == "seed_of"
            if called in ("derive_seed", "seed_of", "generator", "rng") or passed_on:
                calls.append(f"{path}:{node.lineno}")
                words = {n.id for a in node.args for n in ast.walk(a) if isinstance(n, ast.Name)}
                words |= {n.attr for a in node.args for n in ast.walk(a) if isinstance(n, ast.Attribute)}
                assert words <= KNOWN, f"{calls[-1]} makes a seed of {words}"
    assert len(calls) >= len(AXES)


def test_no_seed_comes_twice() -> None:
    pairs = sorted({pair.name for name in available() for pair in load_suite(name).pairs})
    by_epoch = [derive_seed(*place) for place in product(range(20), AXES, pairs, range(5))]
    by_run = [derive_seed(*place) for place in product(range(20), AXES, pairs)]
    by_image = [derive_seed(0, "augment", pairs[0], 0, image) for image in range(1000)]
    by_view = [derive_seed(*place, -2) for place in product(range(20), AXES, pairs, range(5))]
    seeds = [*by_epoch, *by_run, *by_image, *by_view]
    assert len(set(seeds)) == len(seeds) > 50_000
    assert all(0 <= seed < 2**63 for seed in seeds)


DRAWN: dict[str, dict[str, Any]] = {
    "augment": {"shift": 2, "flip": 0.5},
    "crop": {"resized_crop": (0.1, 1.0)},
    "randaugment": {"randaugment": "rand-m9-mstd0.5-inc1"},
    "colour": {"colour_jitter": 0.8},
    "erasing": {"erasing": 0.9},
    "mix": {"mixup": 1.0},
}


def _stream(seed: int, **augment: Any) -> DeviceStream:
    """Twelve times the same image, so that the order of the images alone changes nothing."""
    image = np.random.default_rng(0).integers(0, 256, (1, 12, 12, 3), dtype=np.uint8)
    images = ImageSet(image.repeat(12, 0), np.arange(12) % 3)
    data = Data(source="-", image_size=16, mean=(0.5,) * 3, std=(0.25,) * 3, fit="resize")
    recipe = Recipe(epochs=2, batch_size=4, optimizer="sgd", lr=0.1, augment=Augment(**augment))
    resident = DeviceImages(images, data, 0, torch.device("cpu"))
    return DeviceStream(resident, recipe, 3, seed, "a:b")


def _images(seed: int, axis: str, epoch: int = 0) -> list[bytes]:
    """The images of an epoch as a set, with the soft targets where there are any."""
    return sorted(
        image.numpy().tobytes() + (b"" if batch.targets is None else batch.targets[i].numpy().tobytes())
        for images, batch in _stream(seed, **DRAWN[axis]).epoch(epoch)
        for i, image in enumerate(images.contiguous())
    )


@pytest.mark.parametrize("axis", DRAWN)
def test_images_differ_by_seed_and_epoch_and_repeat(axis: str) -> None:
    first = _images(0, axis)
    assert first == _images(0, axis)
    assert first != _images(1, axis)
    assert first != _images(0, axis, epoch=1)


def test_order_differs_by_seed_and_epoch_and_repeats() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return torch.cat([batch.index for _, batch in _stream(seed).epoch(epoch)]).tolist()

    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


def _dropped(contender: Contender) -> float:
    with contender._stream.active():
        return float(torch.rand(()))


@pytest.mark.parametrize(
    "drawn",
    [
        lambda contender: weights_sha256(contender.student.model),
        lambda contender: weights_sha256(contender.method),
        _dropped,
    ],
    ids=["init", "projectors", "dropout"],
)
def test_a_contender_differs_by_seed_and_repeats(cpu: Compute, drawn: Callable[[Contender], Any]) -> None:
    course = Course("vit", cpu)
    first, again, other = (drawn(course.contender("fitnet", seed)) for seed in (0, 0, 1))
    assert first == again
    assert first != other
