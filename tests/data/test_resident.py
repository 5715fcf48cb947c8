"""Batches on the device: exact pixels, and draws that depend on seed, pair and epoch alone."""

import numpy as np
import torch

from kdbench.data.normalise import normalise
from kdbench.data.resident import ResidentImages, ResidentStream
from kdbench.data.sources import ImageSet
from kdbench.suites.schema import Augment, Recipe

CPU = torch.device("cpu")


def _images(count: int = 20, side: int = 6, channels: int = 3) -> ImageSet:
    generator = np.random.default_rng(0)
    return ImageSet(
        generator.integers(0, 256, (count, side, side, channels), dtype=np.uint8),
        generator.integers(0, 4, count).astype(np.int64),
    )


def _recipe(**augment: float) -> Recipe:
    return Recipe(epochs=2, batch_size=8, optimizer="sgd", lr=0.1, augment=Augment(**augment))  # type: ignore[arg-type]


def test_centred_images_are_zero_padded() -> None:
    split = _images()
    resident = ResidentImages(split, 8, 2, CPU)
    _, (batch, _), *_ = resident.batches(4)
    assert batch.shape == (4, 3, 8, 8)
    expected = np.pad(split.images[4:8], ((0, 0), (1, 1), (1, 1), (0, 0))).transpose(0, 3, 1, 2)
    assert torch.equal(batch, torch.from_numpy(expected).float())


def test_shift_and_flip_are_exact() -> None:
    split = _images()
    resident = ResidentImages(split, 8, 2, CPU)
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
    assert torch.equal(still, next(resident.batches(3))[0])
    assert still.is_contiguous(memory_format=torch.channels_last)


def test_stream_is_a_function_of_seed_pair_and_epoch() -> None:
    resident = ResidentImages(_images(), 8, 2, CPU)

    def draw(seed: int, pair: str, epoch: int) -> torch.Tensor:
        stream = ResidentStream(resident, _recipe(shift=2, flip=0.5), 4, seed, pair)
        return torch.cat([images for images, _ in stream.epoch(epoch)])

    first = draw(0, "a:b", 0)
    assert torch.equal(first, draw(0, "a:b", 0))
    for other in (draw(1, "a:b", 0), draw(0, "a:c", 0), draw(0, "a:b", 1)):
        assert not torch.equal(first, other)


def test_an_epoch_shows_every_image_once_and_drops_the_rest() -> None:
    resident = ResidentImages(_images(), 8, 0, CPU)
    stream = ResidentStream(resident, _recipe(), 4, 0, "a:b")
    batches = [batch for _, batch in stream.epoch(0)]
    index = torch.cat([batch.index for batch in batches])
    assert len(batches) == stream.steps_per_epoch == 2
    assert len(index.unique()) == 16
    assert torch.equal(torch.cat([batch.labels for batch in batches]), resident.labels[index])
    assert [batch.progress for batch in batches] == [0.0, 0.25]


def test_flip_and_shift_have_the_right_frequencies() -> None:
    split = _images(count=4000, side=2, channels=1)
    split.images[:] = np.array([[0, 1], [2, 3]], dtype=np.uint8)[None, ..., None]
    stream = ResidentStream(ResidentImages(split, 2, 0, CPU), _recipe(flip=0.3), 4, 0, "a:b")
    flipped = torch.cat([images[:, 0, 0, 0] == 1 for images, _ in stream.epoch(0)]).float().mean()
    # Four standard errors of a Bernoulli(.3) over 4,000 draws.
    assert abs(flipped - 0.3) < 4 * (0.3 * 0.7 / 4000) ** 0.5


def test_normalisation() -> None:
    images = torch.rand(2, 3, 4, 4) * 255
    mean, std = (0.1, 0.5, 0.9), (0.2, 0.3, 0.4)
    expected = (images / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(normalise(images, (mean, std)), expected, rtol=1e-5, atol=1e-5)
