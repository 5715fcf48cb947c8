"""Crops: the boxes of torchvision in distribution, the pixels of PIL."""

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision import transforms
from torchvision.transforms import functional as F

from kdbench.data.augment.boxes import random_boxes, resized_crop_boxes
from kdbench.data.augment.resample import resample, resize_weights
from tests.support.images import as_batch, as_pil, pictures

INTERPOLATION = {False: F.InterpolationMode.BILINEAR, True: F.InterpolationMode.BICUBIC}


@pytest.mark.parametrize("cubic", [False, True], ids=["bilinear", "bicubic"])
@pytest.mark.parametrize(("source", "side"), [(32, 224), (40, 32), (200, 64), (24, 24)])
def test_resized_crops_are_those_of_pil(source: int, side: int, cubic: bool) -> None:
    pixels = pictures(12, source)
    boxes = resized_crop_boxes(np.random.default_rng(1), 12, source, source, (0.08, 1.0), (3 / 4, 4 / 3))
    boxes[:2] = [[0, 0, source, source], [3, 5, 1, 2]]
    top, left, height, width = torch.from_numpy(boxes).unbind(1)
    place, filters = torch.arange(side).expand(12, -1), torch.full((12,), cubic)
    ours = resample(
        torch.from_numpy(pixels),
        resize_weights(top, height, side, place, source, filters),
        resize_weights(left, width, side, place, source, filters),
    )
    assert ours.is_contiguous(memory_format=torch.channels_last)
    of_pil = as_batch(
        [F.resized_crop(as_pil(p), *b, [side, side], INTERPOLATION[cubic]) for p, b in zip(pixels, boxes, strict=True)]
    )
    assert (ours - of_pil).abs().max() <= 1
    # A level apart where a sum lies at a half.
    assert (ours != of_pil).float().mean() < 0.05
    of_tensors = torch.cat(
        [
            F.resized_crop(as_batch([as_pil(p)]).byte(), *b, [side, side], INTERPOLATION[cubic], antialias=True)
            for p, b in zip(pixels, boxes, strict=True)
        ]
    )
    # On tensors torchvision does not clip between the two passes; where that shows, PIL is as far from it.
    assert (ours - of_tensors).abs().max() <= (of_pil - of_tensors).abs().max() + 1
    assert (ours - of_tensors).abs().mean() < 0.5
    if not cubic:
        assert (ours - of_tensors).abs().max() <= 2


def test_filters_are_those_of_the_image_and_shifted_out_is_black() -> None:
    pixels = torch.from_numpy(pictures(2, 16))
    start, length, both = torch.zeros(2, dtype=torch.int64), torch.full((2,), 16), torch.tensor([False, True])
    place = torch.arange(32) + torch.tensor([[5], [-40]])
    rows = resize_weights(start, length, 32, torch.arange(32).expand(2, -1), 16, both)
    columns = resize_weights(start, length, 32, place, 16, both)
    ours = resample(pixels, rows, columns)
    first = as_batch([as_pil(pixels[0].numpy()).resize((32, 32), 2)])[0]
    assert (ours[0, :, :, :27] - first[:, :, 5:]).abs().max() <= 1
    assert not ours[0, :, :, 27:].any()
    assert not ours[1].any()


@pytest.mark.parametrize(("height", "width"), [(32, 32), (20, 45)])
def test_boxes_are_distributed_as_those_of_torchvision(height: int, width: int) -> None:
    count, area, ratio = 3000, (0.2, 1.0), (3 / 4, 4 / 3)
    ours = resized_crop_boxes(np.random.default_rng(0), count, height, width, area, ratio)
    torch.manual_seed(0)
    image = torch.zeros(3, height, width)
    theirs = np.array([transforms.RandomResizedCrop.get_params(image, area, ratio) for _ in range(count)])
    for column in range(4):
        assert stats.ks_2samp(ours[:, column], theirs[:, column]).pvalue > 0.01
    for measure in (lambda box: box[:, 2] * box[:, 3], lambda box: box[:, 2] / box[:, 3]):
        assert stats.ks_2samp(measure(ours), measure(theirs)).pvalue > 0.01
    assert (ours[:, :2] >= 0).all()
    assert (ours[:, :2] + ours[:, 2:] <= (height, width)).all()


@pytest.mark.parametrize(("height", "width"), [(10, 100), (100, 10), (30, 30)])
def test_without_a_fitting_box_the_centre_is_taken(height: int, width: int) -> None:
    # A whole image's area in a shape that does not fit.
    ratio = (3 / 4, 4 / 3) if height != width else (2.0, 3.0)
    boxes = resized_crop_boxes(np.random.default_rng(0), 3, height, width, (1.0, 1.0), ratio)
    theirs = transforms.RandomResizedCrop.get_params(torch.zeros(3, height, width), [1.0, 1.0], list(ratio))
    assert (boxes == theirs).all()


def test_images_may_differ_in_size() -> None:
    height, width = np.array([8, 300, 40]), np.array([90, 20, 40])
    boxes = resized_crop_boxes(np.random.default_rng(0), 3, height, width, (0.5, 1.0), (3 / 4, 4 / 3))
    assert (boxes[:, 2] <= height).all()
    assert (boxes[:, 3] <= width).all()
    assert (boxes[2, 2:].prod() >= 0.5 * 1600 - 40) and (boxes[:, 2:] > 0).all()


def test_a_margin_keeps_boxes_smaller_than_the_image() -> None:
    boxes, found = random_boxes(np.random.default_rng(0), 2000, 16, 16, (0.5, 1.0), (0.5, 2.0), margin=1)
    assert boxes[found, 2:].max() == 15
    assert 0.9 < found.mean() < 1
