"""Batches on the device: exact pixels, and draws that depend on seed, pair and epoch alone."""

from typing import Any

import numpy as np
import pytest
import torch
from timm.data import create_transform

from kdbench.compute.distributed import Replica
from kdbench.data.device_stream import DeviceImages, DeviceStream
from kdbench.data.normalise import normalise
from kdbench.data.sources import ImageSet
from kdbench.errors import KdbenchError
from kdbench.suites.schema import Augment, Data, Recipe
from tests.support.images import as_pil, pictures

CPU = torch.device("cpu")
EVERYTHING: dict[str, Any] = {
    "resized_crop": (0.2, 1.0),
    "flip": 0.5,
    "randaugment": "rand-m9-mstd0.5-inc1",
    "erasing": 0.25,
}


def _images(count: int = 20, side: int = 6, channels: int = 3) -> ImageSet:
    generator = np.random.default_rng(0)
    return ImageSet(
        generator.integers(0, 256, (count, side, side, channels), dtype=np.uint8),
        generator.integers(0, 4, count).astype(np.int64),
    )


def _recipe(batch_size: int = 8, **augment: Any) -> Recipe:
    return Recipe(epochs=2, batch_size=batch_size, optimizer="sgd", lr=0.1, augment=Augment(**augment))


def _resident(split: ImageSet, side: int, shift: int = 0, **data: Any) -> DeviceImages:
    channels = split.images.shape[-1]
    settings = {"mean": (0.4,) * channels, "std": (0.2,) * channels} | data
    return DeviceImages(split, Data(source="-", image_size=side, **settings), shift, CPU)


def test_centred_images_are_zero_padded() -> None:
    split = _images()
    resident = _resident(split, 8, 2)
    _, (batch, _), *_ = resident.evaluation(1.0).batches(4)
    assert batch.shape == (4, 3, 8, 8)
    expected = np.pad(split.images[4:8], ((0, 0), (1, 1), (1, 1), (0, 0))).transpose(0, 3, 1, 2)
    assert torch.equal(batch, torch.from_numpy(expected).float())


def test_shift_and_flip_are_exact() -> None:
    split = _images()
    resident = _resident(split, 8, 2)
    index = torch.tensor([5, 0, 11])
    top, left, flip = torch.tensor([0, 4, 2]), torch.tensor([1, 2, 4]), torch.tensor([False, True, True])
    batch = resident.shifted(index, top, left, flip)
    padded = np.pad(split.images, ((0, 0), (3, 3), (3, 3), (0, 0)))
    for row, (i, y, x, flipped) in enumerate(zip(index, top, left, flip, strict=True)):
        window = padded[i, y : y + 8, x : x + 8]
        window = window[:, ::-1] if flipped else window
        assert (batch[row].permute(1, 2, 0).numpy() == window).all()
    # No shift and no flip is the evaluation view.
    middle = torch.full((3,), 2)
    still = resident.shifted(torch.arange(3), middle, middle, torch.zeros(3, dtype=torch.bool))
    assert torch.equal(still, next(resident.evaluation(1.0).batches(3))[0])
    assert still.is_contiguous(memory_format=torch.channels_last)


def test_stream_is_a_function_of_seed_pair_and_epoch() -> None:
    resident = _resident(_images(), 8, 2)

    def draw(seed: int, pair: str, epoch: int) -> torch.Tensor:
        stream = DeviceStream(resident, _recipe(shift=2, flip=0.5), 4, seed, pair)
        return torch.cat([images for images, _ in stream.epoch(epoch)])

    first = draw(0, "a:b", 0)
    assert torch.equal(first, draw(0, "a:b", 0))
    for other in (draw(1, "a:b", 0), draw(0, "a:c", 0), draw(0, "a:b", 1)):
        assert not torch.equal(first, other)


def test_an_epoch_shows_every_image_once_and_drops_the_rest() -> None:
    resident = _resident(_images(), 8)
    stream = DeviceStream(resident, _recipe(), 4, 0, "a:b")
    batches = [batch for _, batch in stream.epoch(0)]
    index = torch.cat([batch.index for batch in batches])
    assert len(batches) == stream.steps_per_epoch == 2
    assert len(index.unique()) == 16
    assert torch.equal(torch.cat([batch.labels for batch in batches]), resident.labels[index])
    assert [batch.progress for batch in batches] == [0.0, 0.25]


def test_a_second_view_is_another_augmentation_of_the_same_images() -> None:
    resident = _resident(_images(side=8), 8, 2)
    stream = DeviceStream(resident, _recipe(shift=2, flip=0.5, mixup=0.8), 4, 0, "a:b")
    first, second = list(stream.epoch(0)), list(stream.second_view(0))
    assert all(torch.equal(a, b) for a, b in zip(second, stream.second_view(0), strict=True))
    assert len(first) == len(second)
    assert not any(torch.equal(a, b) for (a, _), b in zip(first, second, strict=True))
    # Unaugmented but for the RandAugment that is added: half of its operations leave most pixels of an image in place.
    plain = DeviceStream(resident, _recipe(), 4, 0, "a:b")
    same = [(a == b).float().mean() for (a, _), b in zip(plain.epoch(0), plain.second_view(0), strict=True)]
    assert 0.05 < torch.stack(same).mean() < 0.95, "of the same images, and changed"
    assert torch.equal(next(stream.epoch(0))[0], first[0][0]), "drawing one leaves the other alone"


def test_flip_and_shift_have_the_right_frequencies() -> None:
    split = _images(count=4000, side=2, channels=1)
    split.images[:] = np.array([[0, 1], [2, 3]], dtype=np.uint8)[None, ..., None]
    stream = DeviceStream(_resident(split, 2), _recipe(flip=0.3), 4, 0, "a:b")
    flipped = torch.cat([images[:, 0, 0, 0] == 1 for images, _ in stream.epoch(0)]).float().mean()
    # Four standard errors of a Bernoulli(.3) over 4,000 draws.
    assert abs(flipped - 0.3) < 4 * (0.3 * 0.7 / 4000) ** 0.5


def test_normalisation() -> None:
    images = torch.rand(2, 3, 4, 4) * 255
    mean, std = (0.1, 0.5, 0.9), (0.2, 0.3, 0.4)
    expected = (images / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(normalise(images, (mean, std)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("crop", [1.0, 0.875, 0.9])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (20, 31), (90, 61)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_evaluation_is_that_of_timm(height: int, width: int, crop: float, interpolation: str) -> None:
    pixels = pictures(5, 90)[:, :height, :width]
    split = ImageSet(pixels, np.arange(5))
    evaluation = _resident(split, 48, fit="resize", interpolation=interpolation).evaluation(crop)
    batches = list(evaluation.batches(3))
    assert [len(images) for images, _ in batches] == [3, 2]
    assert torch.cat([labels for _, labels in batches]).tolist() == list(range(5)) and len(evaluation) == 5
    transform = create_transform(48, interpolation=interpolation, crop_pct=crop, normalize=False)
    theirs = torch.stack([transform(as_pil(picture)) for picture in pixels])  # type: ignore[operator]
    ours = torch.cat([images for images, _ in batches])
    assert ours.is_contiguous(memory_format=torch.channels_last)
    # They part where a sum lies at a half, which both passes may have: in a scaling by 3 / 2 it is one in a dozen.
    assert (ours - theirs).abs().max() <= 2
    assert (ours - theirs).abs().mean() < 0.1


def test_without_a_random_crop_the_whole_image_is_resized_shifted_and_flipped() -> None:
    pixels = pictures(7, 12)[1:]
    resident = _resident(ImageSet(pixels, np.arange(6)), 24, fit="resize")
    whole = torch.cat([images for images, _ in resident.evaluation(1.0).batches(6)])
    stream = DeviceStream(resident, _recipe(6, shift=3, flip=0.5, interpolation="bicubic"), 6, 0, "a:b")
    images, batch = next(stream.epoch(0))
    padded = torch.nn.functional.pad(whole, (3, 3, 3, 3))
    seen = set()
    for image, label in zip(images, batch.labels, strict=True):
        views = [(padded[label, :, y : y + 24, x : x + 24], y, x) for y in range(7) for x in range(7)]
        match = {(y, x, f) for v, y, x in views for f in (False, True) if torch.equal(v.flip(2) if f else v, image)}
        assert len(match) == 1
        seen |= match
    assert len(seen) > 3


def test_padding_and_resizing_say_what_they_cannot_do() -> None:
    with pytest.raises(KdbenchError, match=r"images of 6x6 px cannot be padded to image_size = 4; set fit"):
        _resident(_images(), 4)
    with pytest.raises(KdbenchError, match=r"eval_crop = 0\.9 needs fit"):
        _resident(_images(), 8).evaluation(0.9)
    with pytest.raises(KdbenchError, match="padded for a shift of 1 px cannot be shifted by 2"):
        DeviceStream(_resident(_images(), 8, 1), _recipe(shift=2), 4, 0, "a:b")
    with pytest.raises(KdbenchError, match="not supported"):
        DeviceStream(_resident(_images(), 8), _recipe(randaugment="augmix"), 4, 0, "a:b")


def test_recipes_share_the_images() -> None:
    """Room for a larger shift than the recipe's changes nothing, nor does another stream in between."""
    recipe = _recipe(shift=1, flip=0.5)

    def draw(room: int) -> torch.Tensor:
        resident = _resident(_images(), 8, room)
        streams = [DeviceStream(resident, r, 4, 0, "a:b").epoch(0) for r in (recipe, _recipe(**EVERYTHING))]
        return torch.cat([images for (images, _), _ in zip(*streams, strict=True)])

    assert torch.equal(draw(1), draw(3))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("fit", ["pad", "resize"])
@pytest.mark.parametrize(
    "augment",
    [EVERYTHING, EVERYTHING | {"randaugment": "", "colour_jitter": 0.4}, {"shift": 1, "erasing": 0.5, "flip": 0.5}],
    ids=["randaugment", "jitter", "shift"],
)
def test_every_recipe_is_a_function_of_seed_and_epoch(augment: dict[str, Any], fit: str, channels: int) -> None:
    resident = _resident(ImageSet(pictures(20, 12, channels), np.arange(20)), 16, 1, fit=fit)

    def draw(seed: int, epoch: int, batch_size: int = 10) -> torch.Tensor:
        stream = DeviceStream(resident, _recipe(batch_size, **augment), 20, seed, "a:b")
        shown = list(stream.epoch(epoch))
        for images, _ in shown:
            assert images.shape == (batch_size, channels, 16, 16) and images.dtype == torch.float32
            assert images.is_contiguous(memory_format=torch.channels_last)
        images = torch.cat([images for images, _ in shown])
        return images[torch.cat([batch.index for _, batch in shown]).argsort()]

    first = draw(0, 0)
    assert torch.equal(first, draw(0, 0))
    assert not torch.equal(first, draw(1, 0))
    assert not torch.equal(first, draw(0, 1))
    # In batches of another size only the noise differs, and only noise is no whole number.
    other = draw(0, 0, 5)
    noise = (first != first.round()) | (other != other.round())
    assert torch.equal(first.where(~noise, 0), other.where(~noise, 0))
    assert 0 < noise.float().mean() < 0.5


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("augment", [EVERYTHING, {"shift": 1, "flip": 0.5, "colour_jitter": 0.4}], ids=["all", "shift"])
def test_no_step_waits_for_the_device(augment: dict[str, Any]) -> None:
    split = ImageSet(pictures(64, 12), np.arange(64))
    data = Data(source="-", image_size=16, mean=(0.4,) * 3, std=(0.2,) * 3)
    stream = DeviceStream(DeviceImages(split, data, 1, torch.device("cuda")), _recipe(**augment), 64, 0, "a:b")
    images = stream.images(0, torch.arange(64).split(8))
    next(images)
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert sum(len(batch) for batch in images) == 56
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_shards_see_the_images_of_one_process() -> None:
    resident = _resident(ImageSet(pictures(24, 12), np.arange(24)), 16, fit="resize")
    recipe = _recipe(12, **EVERYTHING | {"erasing": 0.0})

    def draw(replica: Replica) -> dict[int, torch.Tensor]:
        batches = DeviceStream(resident, recipe, 24, 0, "a:b", replica).epoch(1)
        return {int(i): image for images, batch in batches for image, i in zip(images, batch.index, strict=True)}

    whole, first, second = draw(Replica()), draw(Replica(0, 2)), draw(Replica(1, 2))
    assert len(first) == len(second) == 12
    for position, image in (first | second).items():
        assert torch.equal(image, whole.pop(position))
    assert not whole
