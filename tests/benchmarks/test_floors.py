"""The 224-px pairs on a GPU against the floors that memory traffic sets; at toy size on a CPU, to see it run."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, count, islice
from statistics import median
from time import perf_counter

import numpy as np
import pytest
import torch

from kdbench.compute.device import Compute, resolve
from kdbench.data.batch import Draw
from kdbench.data.device_stream import DeviceImages, DeviceStream
from kdbench.data.sources import ImageSet
from kdbench.registry import Registry
from kdbench.suites.loading import load_suite
from kdbench.suites.schema import Suite
from kdbench.training.arena import Arena
from kdbench.training.contender import Contender
from kdbench.training.lockstep import compile_all, lockstep

pytestmark = pytest.mark.bench

# Images/s of vanilla KD on an H100 if every tensor is moved once (bf16, 2.7 TB/s) and no launch costs anything.
FLOORS = {
    "swin-t:resnet18": 15108,
    "vit-s:resnet18": 19337,
    "mixer-b16:mobilenetv2": 9898,
    "convnext-t:deit-t": 19107,
    "convnext-t:resmlp-s12": 16582,
}
METHODS = ["scratch", "kd", "fitnet", "ofa", "assistant"]


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    images: int
    batch: int
    steps: int
    rounds: int


FULL, TOY = Size(images=20000, batch=256, steps=40, rounds=5), Size(images=16, batch=4, steps=1, rounds=1)


@pytest.fixture(params=["off", "on"])
def compute(request: pytest.FixtureRequest) -> Compute:
    if not torch.cuda.is_available() and request.param == "on":
        pytest.skip("compiling at toy size shows nothing")
    return resolve("auto", "auto", request.param)


def _arena(suite: Suite, pair: str, compute: Compute, size: Size) -> Arena:
    """Random images at 32 px on the device, augmented as the suite says; networks with random weights."""
    spec = suite.select_pairs(pair)[0]
    arena = Arena.without_data(suite, spec, compute)
    random = np.random.default_rng(0)
    images = ImageSet(
        random.integers(0, 256, (size.images, 32, 32, 3), dtype=np.uint8), random.integers(0, 100, size.images)
    )
    recipe = suite.recipe_of(spec.student).model_copy(update={"batch_size": size.batch})
    resident = DeviceImages(images, suite.data, recipe.augment.shift, compute.device)
    return replace(arena, stream=DeviceStream(resident, recipe, 100, 0, pair))


def _contender(arena: Arena, name: str) -> Contender:
    plugin = Registry.installed().plugins[name]
    return arena.contender(name, plugin.method, plugin.hyperparameters().model_dump())


def _seconds(arena: Arena, contenders: Sequence[Contender], steps: int) -> float:
    batches = islice(chain.from_iterable(map(arena.stream.epoch, count())), steps)
    arena.compute.synchronise()
    started = perf_counter()
    for raw, batch in batches:
        lockstep(contenders, arena.teacher, Draw(raw, batch), arena.compute)
    arena.compute.synchronise()
    for contender in contenders:
        assert contender.status is None, contender.error
    return perf_counter() - started


@pytest.mark.parametrize("pair", FLOORS)
def test_pairs_at_224_px(pair: str, compute: Compute) -> None:
    size = FULL if compute.device.type == "cuda" else TOY
    arena = _arena(load_suite("cifar100"), pair, compute, size)
    together = [_contender(arena, name) for name in METHODS]
    alone = [[_contender(arena, name)] for name in METHODS]
    for contenders in (together, *alone):
        compile_all(contenders, arena.teacher, compute)
        _seconds(arena, contenders, size.steps)
    rounds = [
        (_seconds(arena, together, size.steps), [_seconds(arena, solo, size.steps) for solo in alone])
        for _ in range(size.rounds)
    ]
    ratio = median(ours / sum(solos) for ours, solos in rounds)
    print(f"\n{pair} --compile {compute.compile}: five methods in lockstep over five solo runs {ratio:.3f}")
    for number, name in enumerate(METHODS):
        rate = median(size.steps * size.batch / solos[number] for _, solos in rounds)
        share = f", {100 * rate / FLOORS[pair]:.0f} % of the floor of kd" if compute.device.type == "cuda" else ""
        print(f"  {name:10} {rate:8.0f} images/s{share}")
    if compute.device.type == "cuda" and compute.compile == "on" and pair == "swin-t:resnet18":
        assert ratio <= 0.65
        assert median(size.steps * size.batch / solos[1] for _, solos in rounds) >= 0.45 * FLOORS[pair]
