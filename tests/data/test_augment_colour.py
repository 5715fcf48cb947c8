"""Colour jitter: PIL's pixels, torchvision's distribution."""

import numpy as np
import pytest
import torch
from PIL import ImageEnhance
from scipy import stats
from torchvision import transforms

from kdbench.data.augment import colour
from tests.support.images import as_batch, as_pil, pictures

ENHANCERS = {
    colour.BRIGHTNESS: ImageEnhance.Brightness,
    colour.CONTRAST: ImageEnhance.Contrast,
    colour.SATURATION: ImageEnhance.Color,
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ENHANCERS)
def test_enhancements_are_those_of_pil(kind: int, channels: int) -> None:
    images = [as_pil(picture) for picture in pictures(8, 33, channels)]
    factors = torch.tensor([0.0, 0.1, 0.63, 0.999, 1.0, 1.37, 1.9, 4.0])
    ours = colour.enhance(as_batch(images), torch.full((8,), kind), factors)
    theirs = as_batch([ENHANCERS[kind](image).enhance(float(f)) for image, f in zip(images, factors, strict=True)])
    assert (ours - theirs).abs().max() <= 1
    assert (ours != theirs).float().mean() < 0.001


def test_grey_is_that_of_pil() -> None:
    ramp = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    theirs = as_batch([as_pil(ramp[0]).convert("L")])
    assert torch.equal(colour.grey(as_batch([as_pil(ramp[0])])), theirs)


def test_jitter_is_distributed_as_that_of_torchvision() -> None:
    """Of one image, the means and spreads over many jittered copies."""
    image = as_pil(pictures(2, 16)[1])
    count = 3000
    orders, factors = colour.draw_jitter(np.random.default_rng(0), count, 0.4)
    batch = as_batch([image]).expand(count, -1, -1, -1)
    ours = colour.jitter(batch, torch.from_numpy(orders), torch.from_numpy(factors))
    torch.manual_seed(0)
    theirs = as_batch([transforms.ColorJitter(0.4, 0.4, 0.4)(image) for _ in range(count)])
    assert stats.ks_2samp(ours.mean((1, 2, 3)), theirs.mean((1, 2, 3))).pvalue > 0.01
    assert stats.ks_2samp(ours.std((1, 2, 3)), theirs.std((1, 2, 3))).pvalue > 0.01
    saturation = [(images.amax(1) - images.amin(1)).mean((1, 2)) for images in (ours, theirs)]
    assert stats.ks_2samp(*saturation).pvalue > 0.01
    # Orders of the kinds come out alike often: chi-square over six.
    _, often = np.unique(orders, axis=0, return_counts=True)
    assert len(often) == 6
    assert stats.chisquare(often).pvalue > 0.01


def test_factors_are_never_negative() -> None:
    _, factors = colour.draw_jitter(np.random.default_rng(0), 1000, 1.5)
    assert factors.min() >= 0
    assert factors.max() > 2.4


def test_the_jittered_image_of_a_batch_is_that_of_it_alone() -> None:
    images = as_batch([as_pil(picture) for picture in pictures(6, 8)])
    orders, factors = (torch.from_numpy(values) for values in colour.draw_jitter(np.random.default_rng(3), 6, 0.4))
    together = colour.jitter(images, orders, factors)
    assert together.is_contiguous(memory_format=torch.channels_last)
    for row in range(6):
        one = slice(row, row + 1)
        assert torch.equal(colour.jitter(images[one], orders[one], factors[one]), together[one])
