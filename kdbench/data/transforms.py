"""From an image of any size to one of the suite's side, on the host: timm's and torchvision's own pieces."""

import math
from typing import Any

from PIL import Image
from timm.data.auto_augment import RandAugment, posterize, rand_augment_transform
from timm.data.transforms import RandomResizedCropAndInterpolation, str_to_pil_interp
from torchvision import transforms
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from kdbench.errors import KdbenchError
from kdbench.suites.schema import Augment, Data


def evaluation_transform(data: Data, eval_crop: float) -> transforms.Compose:
    """PIL image to PIL image of the suite's side, nothing drawn.

    With `fit="resize"` it is timm's: the shorter side to side / eval_crop, rounded down, then the centre crop.

    Raises:
        KdbenchError: a crop of images that are padded, not resized.
    """
    if data.fit == "pad":
        if eval_crop != 1:
            raise KdbenchError(f'eval_crop = {eval_crop} needs fit = "resize" under [data] of the suite')
        return transforms.Compose([_Pad(data.image_size)])
    mode = InterpolationMode(data.interpolation)
    scaled = math.floor(data.image_size / eval_crop)
    return transforms.Compose([transforms.Resize(scaled, mode), transforms.CenterCrop(data.image_size)])


def training_transform(data: Data, augment: Augment) -> transforms.Compose:
    """PIL image to PIL image of the suite's side, in timm's order: crop, flip, RandAugment or colour jitter.

    Draws come from the global generators of Python, numpy and torch, as timm's and torchvision's pieces have it.

    Raises:
        KdbenchError: a RandAugment policy that timm does not know.
    """
    side, steps = data.image_size, list[Any]()
    if augment.resized_crop:
        steps.append(
            RandomResizedCropAndInterpolation(side, augment.resized_crop, augment.ratio, augment.interpolation)
        )
    else:
        # All of the area in shape 1:1: the largest square in the middle.
        square = RandomResizedCropAndInterpolation(side, (1, 1), (1, 1), augment.interpolation)
        steps.append(_Pad(side) if data.fit == "pad" else square)
        if augment.shift:
            steps.append(transforms.RandomCrop(side, padding=augment.shift))
    if augment.flip:
        steps.append(transforms.RandomHorizontalFlip(augment.flip))
    if augment.randaugment:
        steps.append(_randaugment(data, augment))
    elif augment.colour_jitter:
        steps.append(transforms.ColorJitter(*[augment.colour_jitter] * 3))
    return transforms.Compose(steps)


def _randaugment(data: Data, augment: Augment) -> RandAugment:
    fill = tuple(min(255, round(255 * mean)) for mean in data.mean)
    settings: dict[str, Any] = {"img_mean": fill}
    if augment.interpolation != "random":
        settings["interpolation"] = str_to_pil_interp(augment.interpolation)
    try:
        policy = rand_augment_transform(augment.randaugment, settings)
    except (AssertionError, KeyError, ValueError) as error:
        raise KdbenchError(f"timm knows no randaugment policy {augment.randaugment!r}") from error
    for operation in policy.ops:
        if operation.aug_fn is posterize:
            operation.aug_fn = _posterize
    return policy


def _posterize(image: Image.Image, bits: int, **_: Any) -> Image.Image:
    # At full magnitude timm asks for 0 bits; Pillow 13 refuses that, and made the image black before.
    return posterize(image, bits) if bits > 0 else Image.new(image.mode, image.size)


class _Pad:
    """Zeros around an image, the same on all sides."""

    def __init__(self, side: int) -> None:
        self._side = side

    def __call__(self, image: Image.Image) -> Image.Image:
        width, height = image.size
        if max(width, height) > self._side:
            raise KdbenchError(f'an image of {width}x{height} px does not fit into {self._side}; set fit = "resize"')
        left, top = (self._side - width) // 2, (self._side - height) // 2
        return F.pad(image, [left, top, self._side - width - left, self._side - height - top])  # type: ignore[arg-type]
