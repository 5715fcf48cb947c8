"""RandAugment: timm's levels and frequencies, PIL's pixels."""

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import auto_augment as timm_augment

from kdbench.data.augment.members import Order
from kdbench.data.augment.randaugment import NOTHING, OPERATIONS, Draws, Policy, enhancement, matrices, tables
from kdbench.data.augment.steps import RandAugment
from kdbench.errors import KdbenchError
from tests.support.images import as_batch, as_pil, pictures

CPU = torch.device("cpu")
MEAN = (0.5, 0.25, 0.75)
POLICY = Policy.parse("rand-m9-mstd0.5-inc1")
INCREASING = ("Posterize", "Solarize", "Color", "Contrast", "Brightness", "Sharpness")
SIGNED = ("Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel")
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


class Fixed(Policy):
    """A policy that draws what it is told."""

    draws: Draws

    def draw(self, rng: np.random.Generator, count: int) -> Draws:
        return self.draws


def _draws(operation: str, levels: list[float], sign: float = 1.0) -> Draws:
    count = len(levels)
    number = OPERATIONS.index(operation)
    return Draws(np.full(count, number), np.array(levels), np.full(count, sign), np.zeros(count, dtype=bool))


def _ours(draws: Draws, images: list[Image.Image], interpolation: str = "bilinear", increasing: bool = True):
    policy = Fixed(layers=1, increasing=increasing)
    object.__setattr__(policy, "draws", draws)
    batch = as_batch(images)
    order = Order(np.arange(len(images)), len(images), len(images), CPU)
    mean = MEAN[: batch.shape[1]]
    rng = np.random.default_rng(0)
    step = RandAugment(policy, interpolation, mean, images[0].width, rng, order)  # type: ignore[arg-type]
    return step(batch, 0)


def _theirs(draws: Draws, images: list[Image.Image], interpolation: str = "bilinear", increasing: bool = True):
    """What timm's operation makes of the images; the sign is ours, timm draws its own."""
    operation = OPERATIONS[draws.operation[0]]
    name = operation + "Increasing" if increasing and operation in INCREASING else operation
    fill = tuple(round(255 * value) for value in MEAN[: len(images[0].getbands())])
    result = []
    for image, level, sign in zip(images, draws.level, draws.sign, strict=True):
        to_argument = timm_augment.LEVEL_TO_ARG[name]
        arguments = ()
        if to_argument:
            drawn = [to_argument(level, {}) for _ in range(64)]
            arguments = max(drawn) if sign > 0 else min(drawn)
        if operation == "Posterize" and arguments[0] < 1:
            # Without any bits the image is black; Pillow does so up to 12 and refuses it from 13 on.
            result.append(image.point(lambda _: 0))
            continue
        function = timm_augment.NAME_TO_OP[name]
        result.append(function(image, *arguments, fillcolor=fill, resample=FILTERS[interpolation]))
    return as_batch(result)


LEVELS = [0.0, 1.3, 3.0, 5.5, 7.77, 9.0, 9.42, 10.0]


@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("increasing", [False, True], ids=["plain", "increasing"])
@pytest.mark.parametrize("operation", [name for name in OPERATIONS if name not in SIGNED])
def test_pointwise_operations_are_those_of_timm(operation: str, increasing: bool, channels: int, sign: float) -> None:
    images = [as_pil(picture) for picture in pictures(len(LEVELS), 40, channels)]
    draws = _draws(operation, LEVELS, sign)
    ours, theirs = (make(draws, images, increasing=increasing) for make in (_ours, _theirs))
    assert (ours - theirs).abs().max() <= 1
    assert (ours != theirs).float().mean() < 0.001


@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("operation", SIGNED)
def test_warps_are_those_of_timm(operation: str, interpolation: str, channels: int, sign: float) -> None:
    images = [as_pil(picture) for picture in pictures(len(LEVELS), 40, channels)]
    draws = _draws(operation, LEVELS, sign)
    ours, theirs = _ours(draws, images, interpolation), _theirs(draws, images, interpolation)
    # Where a sum is a whole number but for the last bit, a level is lost by cutting it; a pixel may fall out.
    differ = (ours - theirs).abs()
    assert (differ > 1).float().mean() < 0.001
    assert differ.mean() < 0.02


def test_degenerate_images() -> None:
    """Constant, black and two-valued pictures, where histograms have few bins."""
    pixels = np.zeros((4, 20, 20, 3), dtype=np.uint8)
    pixels[1:] = 77
    pixels[2, :, :10] = 200
    pixels[3, 0, 0] = 255
    images = [as_pil(picture) for picture in pixels]
    for operation in ("AutoContrast", "Equalize"):
        draws = _draws(operation, [9.0] * 4)
        assert torch.equal(_ours(draws, images), _theirs(draws, images))


def test_notation_is_that_of_timm() -> None:
    for text in ("rand-m9-mstd0.5-inc1", "rand-m7-mstd0.5", "rand", "rand-n3-p0.25-m12-mmax20", "rand-m5-mstd101"):
        theirs = timm_augment.rand_augment_transform(text, {})
        operation = theirs.ops[4]
        ours = Policy.parse(text)
        assert ours.layers == theirs.num_layers
        assert ours.magnitude == operation.magnitude
        assert ours.probability == operation.prob
        assert ours.deviation == operation.magnitude_std
        assert ours.ceiling == (operation.magnitude_max or 10)
        names = [op.name.removesuffix("Increasing") for op in theirs.ops]
        assert tuple(names) == OPERATIONS
        assert ours.increasing == operation.name.endswith("Increasing")


@pytest.mark.parametrize(
    "text", ["rand-m9-w0", "rand-m9-tweights", "augmix-m3", "original", "rand-m9.5", "rand-inc", "-m9"]
)
def test_what_is_not_supported_is_refused(text: str) -> None:
    with pytest.raises(KdbenchError, match="not supported"):
        Policy.parse(text)


def test_draws_have_the_frequencies_of_timm() -> None:
    count = 30_000
    draws = POLICY.draw(np.random.default_rng(0), count)
    often = Counter(draws.operation.tolist())
    assert abs(often.pop(NOTHING) / count - 0.5) < 4 * 0.5 / count**0.5
    expected = 0.5 / len(OPERATIONS)
    assert sorted(often) == list(range(len(OPERATIONS)))
    for number in often.values():
        assert abs(number / count - expected) < 4 * (expected / count) ** 0.5
    # Levels: normal about 9 with deviation .5, cut off at 10 (two deviations: 2.3 % of them).
    assert abs((draws.level == 10).mean() - 0.0228) < 0.004
    assert abs(np.median(draws.level) - 9) < 0.02
    assert abs(draws.sign.mean()) < 4 / count**0.5
    assert abs(draws.cubic.mean() - 0.5) < 4 * 0.5 / count**0.5
    uniform = replace(POLICY, deviation=float("inf")).draw(np.random.default_rng(0), count).level
    assert abs(uniform.mean() - 4.5) < 0.1
    assert uniform.max() <= 9


def test_magnitudes_beyond_the_scale() -> None:
    """With a ceiling above 10, as timm: nothing wraps around."""
    images = [as_pil(picture) for picture in pictures(3, 24)]
    for operation in ("Posterize", "Solarize", "SolarizeAdd", "Brightness"):
        for increasing in (False, True):
            draws = _draws(operation, [12.0, 17.0, 25.0])
            ours, theirs = (make(draws, images, increasing=increasing) for make in (_ours, _theirs))
            assert (ours - theirs).abs().max() <= 1, operation


def test_a_batch_of_all_operations_looks_like_that_of_timm() -> None:
    """Mean brightness and contrast of many copies of some pictures, both ways through the whole policy."""
    images = [as_pil(picture) for picture in pictures(4, 32, seed=5)[1:]] * 700
    order = Order(np.arange(len(images)), len(images), len(images), CPU)
    policy = "rand-m8-mstd0.3-inc1"
    ours = RandAugment(Policy.parse(policy), "random", MEAN, 32, np.random.default_rng(0), order)(as_batch(images), 0)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002, what timm draws from
    settings = {"img_mean": tuple(round(255 * value) for value in MEAN), "translate_const": 14}
    transform = timm_augment.rand_augment_transform(policy, settings)
    theirs = as_batch([transform(image) for image in images])
    for statistic in (
        lambda x: x.mean((1, 2, 3)),
        lambda x: x.std((1, 2, 3)),
        lambda x: (x.amax(1) - x.amin(1)).mean((1, 2)),
    ):
        one, other = statistic(ours), statistic(theirs)
        spread = (one.var() / len(one) + other.var() / len(other)).sqrt()
        assert (one.mean() - other.mean()).abs() < 4 * spread
        assert abs(one.std() / other.std() - 1) < 0.1


def test_what_an_image_gets_does_not_depend_on_its_batch() -> None:
    pixels = pictures(24, 16)
    images = as_batch([as_pil(picture) for picture in pixels])

    def run(index: np.ndarray, batch: int) -> torch.Tensor:
        step = RandAugment(POLICY, "random", MEAN, 16, np.random.default_rng(1), Order(index, batch, 24, CPU))
        parts = torch.from_numpy(index).split(batch)
        done = torch.cat([step(images[part], number) for number, part in enumerate(parts)])
        return done[torch.from_numpy(index).argsort()]

    together = run(np.arange(24), 24)
    assert not torch.equal(together, images)
    assert torch.equal(together, run(np.random.default_rng(9).permutation(24), 6))


def test_arguments_of_other_operations_stay_out() -> None:
    """Tables and matrices are those of the operation of each image."""
    draws = Draws(
        np.array([OPERATIONS.index("Invert"), OPERATIONS.index("ShearY")]),
        np.full(2, 9.0),
        np.ones(2),
        np.zeros(2, bool),
    )
    assert (tables(draws, True)[0] == 255 - np.arange(256)).all()
    assert matrices(draws, 32)[1].tolist() == pytest.approx([1, 0, 0, 0.27, 1, 0])
    assert enhancement(draws, True).tolist() == pytest.approx([1.81, 1.81])
