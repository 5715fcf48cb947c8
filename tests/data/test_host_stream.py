"""Streamed batches: timm's pixels, draws that depend on seed, pair, epoch and image alone, no process left behind."""

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.transforms_factory import create_transform
from torch import Tensor

from kdbench.compute.distributed import Replica
from kdbench.data import sources
from kdbench.data.device_stream import DeviceImages, DeviceStream
from kdbench.data.host_stream import HostEvaluation, HostStream
from kdbench.data.normalise import normalise
from kdbench.data.sources import FileSet, ImageSet
from kdbench.data.transforms import evaluation_transform, training_transform
from kdbench.errors import KdbenchError
from kdbench.suites.schema import Augment, Data, Recipe
from tests.support.files import image_folder, pixels

CPU = torch.device("cpu")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
STRONG = Augment(resized_crop=(0.08, 1), flip=0.5, randaugment="rand-m9-mstd0.5-inc1", erasing=0.5)


def _data(**settings: Any) -> Data:
    return Data(**{"source": "folder", "image_size": 24, "fit": "resize", "mean": MEAN, "std": STD} | settings)


def _recipe(augment: Augment, batch: int = 40) -> Recipe:
    return Recipe(epochs=2, batch_size=batch, optimizer="sgd", lr=0.1, augment=augment)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> FileSet:
    """90 images, so that a batch of 40 is more than one piece."""
    train = sources.read_dataset("folder", image_folder(tmp_path_factory.mktemp("images"), train=30)).train
    assert isinstance(train, FileSet)
    return train


def _stream(files: FileSet | ImageSet, augment: Augment, workers: int = 0, **settings: Any) -> HostStream:
    places = {"seed": 0, "pair": "a:b", "replica": Replica()} | settings
    return HostStream(files, _data(), _recipe(augment), 3, device=CPU, workers=workers, **places)


def _epoch(stream: HostStream, epoch: int = 0) -> Tensor:
    return torch.cat([images for images, _ in stream.epoch(epoch)])


@pytest.mark.parametrize("augment", [STRONG, Augment(shift=3, flip=0.5, colour_jitter=0.4)], ids=["strong", "jitter"])
def test_batches_do_not_depend_on_the_workers(files: FileSet, augment: Augment) -> None:
    alone = _epoch(_stream(files, augment))
    assert alone.shape == (80, 3, 24, 24) and alone.dtype == torch.float32
    assert alone.is_contiguous(memory_format=torch.channels_last)
    for workers in (1, 2):
        assert torch.equal(_epoch(_stream(files, augment, workers)), alone)


def test_batches_are_a_function_of_seed_pair_and_epoch(files: FileSet) -> None:
    index = [torch.arange(16)]
    weak = Augment(resized_crop=(0.08, 1), flip=0.5)

    def draw(epoch: int = 0, **places: Any) -> Tensor:
        return next(_stream(files, weak, **places).images(epoch, index))

    first = draw()
    assert torch.equal(first, draw())
    for other in (draw(seed=1), draw(pair="a:c"), draw(epoch=1)):
        assert not torch.equal(first, other)
    # An image's own draws: the same image twice in a batch is the same, in other company too.
    first, second = _stream(files, weak).images(0, [torch.tensor([5, 7, 5]), torch.tensor([7, 11])])
    assert torch.equal(first[0], first[2]) and torch.equal(first[1], second[0])


@pytest.mark.parametrize("workers", [0, 2])
def test_the_global_generators_stay_as_they_are(files: FileSet, workers: int) -> None:
    def states() -> list[Any]:
        return [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]  # noqa: NPY002

    before = states()
    _epoch(_stream(files, STRONG, workers))
    assert states() == before


def _seeded(transform: Callable[[Image.Image], Any], image: Image.Image, seed: int) -> Any:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)
    return transform(image)


@pytest.mark.parametrize(
    "augment",
    [
        Augment(resized_crop=(0.08, 1), flip=0.5, colour_jitter=0.4),
        Augment(resized_crop=(0.3, 0.9), ratio=(0.5, 2), flip=0.5, interpolation="bicubic"),
        Augment(resized_crop=(0.08, 1), flip=0.5, colour_jitter=0.4, randaugment="rand-m7-mstd0.5"),
        Augment(resized_crop=(0.08, 1), interpolation="bilinear", randaugment="rand-m8-inc1-n3"),
    ],
)
def test_training_pixels_are_timms(augment: Augment) -> None:
    theirs: Any = create_transform(
        24,
        is_training=True,
        scale=augment.resized_crop,
        ratio=augment.ratio,
        hflip=augment.flip,
        color_jitter=augment.colour_jitter or None,
        auto_augment=augment.randaugment or None,
        interpolation=augment.interpolation,
        mean=MEAN,
        normalize=False,
    )
    ours = training_transform(_data(), augment)
    seen = set()
    with torch.random.fork_rng():
        for seed in range(40):
            image = Image.fromarray(pixels(seed))
            mine = np.asarray(_seeded(ours, image, seed))
            assert np.array_equal(mine.transpose(2, 0, 1), _seeded(theirs, image, seed).numpy()), seed
            seen.add(mine.tobytes())
    assert len(seen) == 40


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("crop", [0.875, 0.95, 1.0])
@pytest.mark.parametrize("size", [(40, 48), (75, 30), (16, 16)])
def test_evaluation_pixels_are_timms(interpolation: str, crop: float, size: tuple[int, int]) -> None:
    theirs: Any = create_transform(24, interpolation=interpolation, mean=MEAN, std=STD, crop_pct=crop)
    images = np.stack([pixels(seed, *size) for seed in range(3)])
    split = ImageSet(images, np.arange(3))
    batches = HostEvaluation(split, _data(interpolation=interpolation), crop, CPU, 0).batches(2)
    ours = torch.cat([normalise(batch, (MEAN, STD)) for batch, _ in batches])
    expected = torch.stack([theirs(Image.fromarray(image)) for image in images])
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)  # a level of a pixel is 1.7e-2


def test_every_policy_of_full_magnitude_runs() -> None:
    # Pillow 13 refuses the 0 bits that timm's Posterize then asks for.
    transform = training_transform(_data(), Augment(randaugment="rand-m10-inc1"))
    with torch.random.fork_rng():
        seen = [np.asarray(_seeded(transform, Image.fromarray(pixels(0)), seed)).max() for seed in range(150)]
    assert min(seen) == 0 < max(seen)


def test_what_cannot_be_transformed_is_one_line() -> None:
    with pytest.raises(KdbenchError, match="timm knows no randaugment policy 'augmix-m3'"):
        training_transform(_data(), Augment(randaugment="augmix-m3"))
    with pytest.raises(KdbenchError, match=r'eval_crop = 0\.9 needs fit = "resize"'):
        evaluation_transform(_data(fit="pad"), 0.9)
    stream = HostEvaluation(ImageSet(pixels(0)[None], np.zeros(1, np.int64)), _data(fit="pad"), 1.0, CPU, 0)
    with pytest.raises(KdbenchError, match="an image of 48x40 px does not fit into 24"):
        next(stream.batches(1))


@pytest.mark.parametrize("channels", [1, 3])
def test_streamed_and_resident_pads_agree(channels: int) -> None:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (50, 17, 20, channels), dtype=np.uint8)
    split = ImageSet(images, generator.integers(0, 3, 50).astype(np.int64))
    data, recipe = _data(fit="pad", mean=MEAN[:channels], std=STD[:channels]), _recipe(Augment(erasing=0.5), batch=16)
    resident = DeviceImages(split, data, 0, CPU)
    for ours, theirs in zip(
        HostEvaluation(split, data, 1.0, CPU, 0).batches(16), resident.evaluation(1.0).batches(16), strict=True
    ):
        assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1])
    # With random erasing too, whose draws and noise are the same.
    streamed = HostStream(split, data, recipe, 3, seed=0, pair="a:b", device=CPU, workers=0)
    for ours, theirs in zip(streamed.epoch(1), DeviceStream(resident, recipe, 3, 0, "a:b").epoch(1), strict=True):
        assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1].index, theirs[1].index)


def test_shift_moves_the_padded_image() -> None:
    image = pixels(3, 20, 20)
    split = ImageSet(np.repeat(image[None], 200, axis=0), np.zeros(200, np.int64))
    stream = HostStream(
        split, _data(fit="pad"), _recipe(Augment(shift=2), 200), 1, seed=0, pair="a:b", device=CPU, workers=0
    )
    (batch,) = stream.images(0, [torch.arange(200)])
    padded = np.pad(image, ((4, 4), (4, 4), (0, 0)))
    windows = {padded[y : y + 24, x : x + 24].tobytes(): (y, x) for y in range(5) for x in range(5)}
    seen = [windows[np.ascontiguousarray(row.permute(1, 2, 0).numpy().astype(np.uint8)).tobytes()] for row in batch]
    assert set(seen) == set(windows.values()), "200 draws meet all 25 windows"


def test_erasing_leaves_the_rest_of_an_image_alone(files: FileSet) -> None:
    plain = _epoch(_stream(files, STRONG.model_copy(update={"erasing": 0.0})))
    changed = (_epoch(_stream(files, STRONG)) != plain).any(dim=1)
    erased = [image.nonzero() for image in changed if image.any()]
    # Five standard errors of a Bernoulli(.5) over 80 draws.
    assert abs(len(erased) / 80 - 0.5) < 5 * 0.5 / 80**0.5
    for places in erased:
        height, width = (places.amax(0) - places.amin(0) + 1).tolist()
        assert len(places) == height * width


def test_shards_see_what_one_process_would(files: FileSet) -> None:
    augment = STRONG.model_copy(update={"erasing": 0.0})

    def by_index(replica: Replica) -> dict[int, Tensor]:
        epoch = _stream(files, augment, replica=replica).epoch(0)
        return {i: image for images, batch in epoch for i, image in zip(batch.index.tolist(), images, strict=True)}

    whole, parts = by_index(Replica()), [by_index(Replica(rank, 2)) for rank in range(2)]
    assert not parts[0].keys() & parts[1].keys()
    seen = parts[0] | parts[1]
    assert seen.keys() == whole.keys()
    assert all(torch.equal(seen[i], whole[i]) for i in whole)


def _no_workers_left() -> bool:
    deadline = time.monotonic() + 10
    while multiprocessing.active_children() and time.monotonic() < deadline:
        time.sleep(0.05)
    return not multiprocessing.active_children()


def test_workers_end_when_the_consumer_stops_or_fails(files: FileSet) -> None:
    batches = _stream(files, STRONG, workers=2).epoch(0)
    next(batches)
    assert len(multiprocessing.active_children()) == 2
    batches.close()  # type: ignore[attr-defined]
    assert _no_workers_left()
    with pytest.raises(ZeroDivisionError):
        for _ in _stream(files, STRONG, workers=2).epoch(0):
            raise ZeroDivisionError
    assert _no_workers_left()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("damage", ["truncated", "other", "gone"])
def test_a_broken_image_is_named_in_one_line(tmp_path: Path, workers: int, damage: str) -> None:
    root = image_folder(tmp_path)
    split = sources.read_dataset("folder", root).train
    assert isinstance(split, FileSet)
    victim = root / "train" / "bee" / "2.png"
    if damage == "gone":
        victim.unlink()
    else:
        victim.write_bytes(victim.read_bytes()[:900] if damage == "truncated" else b"not an image")
    with pytest.raises(KdbenchError, match=r"cannot decode bee/2\.png: .*`kdbench data check`") as caught:
        list(HostEvaluation(split, _data(), 1.0, CPU, workers).batches(4))
    assert "\n" not in str(caught.value)
    assert _no_workers_left()


def _consume(files: FileSet, connection: Any) -> None:
    batches = _stream(files, STRONG, workers=2).epoch(0)
    first, _ = next(batches)
    connection.send((first.sum().item(), [child.pid for child in multiprocessing.active_children()]))
    connection.recv()


def _running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.runs
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize("end", ["returns", "killed"])
def test_workers_of_a_spawned_process(files: FileSet, end: str) -> None:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_consume, args=(files, theirs))
    process.start()
    total, workers = ours.recv()
    assert total == next(_stream(files, STRONG).epoch(0))[0].sum().item()
    assert len(workers) == 2 and all(map(_running, workers))
    if end == "killed":
        os.kill(process.pid or 0, signal.SIGKILL)
    else:
        ours.send(None)
    process.join(timeout=60)
    # A worker looks every five seconds whether its parent is still there.
    deadline = time.monotonic() + 30
    while any(map(_running, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(_running, workers))
    assert process.exitcode == (-signal.SIGKILL if end == "killed" else 0)
