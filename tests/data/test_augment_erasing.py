"""Random erasing: timm's boxes in distribution, noise of the data set's mean and spread."""

import random

import numpy as np
import torch
from scipy import stats
from timm.data.random_erasing import RandomErasing

from kdbench.data.augment.erasing import Noise, draw_erasing, erase
from kdbench.data.augment.members import Order
from kdbench.data.augment.steps import Erasing

MEAN, STD = torch.tensor([0.2, 0.5, 0.8]), torch.tensor([0.1, 0.2, 0.3])


def _noise(seed: int = 0) -> Noise:
    return Noise(MEAN, STD, torch.Generator().manual_seed(seed))


def _gone(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    return (before != after).all(1)


def test_exactly_the_boxes_are_erased() -> None:
    images = torch.full((5, 3, 12, 10), 300.0).contiguous(memory_format=torch.channels_last)
    rows, boxes = torch.tensor([1, 4]), torch.tensor([[2, 3, 5, 4], [0, 0, 1, 9]])
    before = images.clone()
    erase(images, rows, boxes, 20 + 9, _noise())
    expected = torch.zeros(5, 12, 10, dtype=torch.bool)
    expected[1, 2:7, 3:7] = True
    expected[4, 0, :9] = True
    assert torch.equal(_gone(before, images), expected)
    assert torch.equal((before == images).all(1), ~expected)
    erase(images, rows[:0], boxes[:0], 0, _noise())


def test_noise_is_normal_in_normalised_space_and_repeats() -> None:
    images = torch.zeros(4, 3, 100, 100).contiguous(memory_format=torch.channels_last)
    rows, boxes = torch.arange(4), torch.tensor([[0, 0, 100, 100]]).expand(4, -1)
    erase(images, rows, boxes, 40_000, _noise())
    normalised = (images / 255 - MEAN.view(3, 1, 1)) / STD.view(3, 1, 1)
    for channel in normalised.unbind(1):
        assert stats.kstest(channel.flatten()[:20_000].numpy(), "norm").pvalue > 0.01
    again = torch.zeros_like(images)
    erase(again, rows, boxes, 40_000, _noise())
    assert torch.equal(images, again)
    erase(again, rows, boxes, 40_000, _noise(1))
    assert not torch.equal(images, again)


def test_boxes_are_distributed_as_those_of_timm() -> None:
    count, side = 4000, 32
    chosen, boxes = draw_erasing(np.random.default_rng(0), count, side, 0.25)
    ours = boxes[chosen]
    random.seed(0)
    theirs = RandomErasing(probability=0.25, mode="pixel", device="cpu")
    found = []
    for _ in range(count):
        erased = theirs(torch.zeros(1, side, side))[0] != 0
        if erased.any():
            ys, xs = (axis.nonzero()[[0, -1], 0] for axis in (erased.any(1), erased.any(0)))
            found.append([int(ys[0]), int(xs[0]), int(ys[1] - ys[0]) + 1, int(xs[1] - xs[0]) + 1])
    other = np.array(found)
    # Two binomials of 4,000 at a quarter: four standard errors of their difference.
    assert abs(len(ours) - len(other)) < 4 * (2 * count * 0.25 * 0.75) ** 0.5
    for column in range(4):
        assert stats.ks_2samp(ours[:, column], other[:, column]).pvalue > 0.01
    assert stats.ks_2samp(ours[:, 2] * ours[:, 3], other[:, 2] * other[:, 3]).pvalue > 0.01


def test_what_is_erased_does_not_depend_on_the_batch() -> None:
    images = torch.full((24, 3, 16, 16), 300.0).contiguous(memory_format=torch.channels_last)

    def run(index: np.ndarray, batch: int) -> torch.Tensor:
        step = Erasing(0.5, _noise(), 16, np.random.default_rng(2), Order(index, batch, 24, torch.device("cpu")))
        parts = torch.from_numpy(index).split(batch)
        done = torch.cat([_gone(images[part], step(images[part], number)) for number, part in enumerate(parts)])
        return done[torch.from_numpy(index).argsort()]

    together = run(np.arange(24), 24)
    assert 5 < int(together.flatten(1).any(1).sum()) < 19
    assert torch.equal(together, run(np.random.default_rng(9).permutation(24), 6))
