"""What is done to the batches of an epoch after the crop: drawn and moved to the device once, then cut by step."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdbench.data.augment import colour, tone
from kdbench.data.augment.erasing import Noise, draw_erasing, erase
from kdbench.data.augment.members import EpochMembers, Order
from kdbench.data.augment.randaugment import Draws, Policy, enhancement, matrices, tables
from kdbench.data.augment.warp import warp

Interpolation = Literal["random", "bilinear", "bicubic"]
Step = Callable[[Tensor, int], Tensor]
"""Changes a batch (B, C, S, S), float in [0, 255], given its number; it may overwrite it and lay it out anew in memory.

Parameters are drawn for every image of the training set, so that what an image gets does not depend on the order.
"""
Operation = Callable[..., Tensor]
Columns = tuple[NDArray[Any], ...]


class Jitter:
    """Colour jitter of every image."""

    def __init__(self, strength: float, rng: np.random.Generator, order: Order) -> None:
        drawn = colour.draw_jitter(rng, order.count, strength)
        self._orders, self._factors = (
            torch.from_numpy(values[order.index]).to(order.device).split(order.batch) for values in drawn
        )

    def __call__(self, images: Tensor, step: int) -> Tensor:
        # Sums and means over channels are slow where those lie side by side.
        return colour.jitter(images.contiguous(), self._orders[step], self._factors[step])


class RandAugment:
    """Layers of random operations; in each, images with the same kind of operation are gathered and done together."""

    def __init__(
        self,
        policy: Policy,
        interpolation: Interpolation,
        mean: tuple[float, ...],
        side: int,
        rng: np.random.Generator,
        order: Order,
    ) -> None:
        """Args:
        interpolation: of the operations that warp.
        mean: (C,) of the data set, the colour that comes in where an image is warped away.
        side: of the images.
        """
        self._policy = policy
        self._interpolation = interpolation
        self._side = side
        self._fill = torch.tensor([min(255.0, round(255 * value)) for value in mean], device=order.device)
        draws = [policy.draw(rng, order.count) for _ in range(policy.layers)]
        self._layers = [self._layer(layer.take(order.index), order) for layer in draws]

    def __call__(self, images: Tensor, step: int) -> Tensor:
        images = images.contiguous()
        for layer in self._layers:
            for operation, members in layer:
                rows, *columns = members.of(step)
                if len(rows):
                    images.index_copy_(0, rows, operation(images.index_select(0, rows), *columns))
        return images

    def _layer(self, draws: Draws, order: Order) -> list[tuple[Operation, EpochMembers]]:
        """The operations, who gets each, and their arguments."""
        increasing = self._policy.increasing
        cubic = (
            draws.cubic if self._interpolation == "random" else np.full(len(draws), self._interpolation == "bicubic")
        )
        curved = draws.where("Invert", "Posterize", "Solarize", "SolarizeAdd", "Brightness")

        def nothing(_: Draws) -> Columns:
            return ()

        def factors(some: Draws) -> Columns:
            return (enhancement(some, increasing),)

        def kinds_and_factors(some: Draws) -> Columns:
            kinds = np.where(some.where("Color"), colour.SATURATION, colour.CONTRAST)
            return kinds, enhancement(some, increasing)

        def curves(some: Draws) -> Columns:
            return (tables(some, increasing)[:, None],)

        def maps(some: Draws) -> Columns:
            return (matrices(some, self._side),)

        operations: list[tuple[Operation, NDArray[np.bool_], Callable[[Draws], Columns]]] = [
            (tone.auto_contrast, draws.where("AutoContrast"), nothing),
            (tone.equalize, draws.where("Equalize"), nothing),
            (tone.apply_table, curved, curves),
            (tone.sharpen, draws.where("Sharpness"), factors),
            (colour.enhance, draws.where("Color", "Contrast"), kinds_and_factors),
        ]
        moves = {
            ("Rotate",): (True, True),
            ("ShearX", "TranslateXRel"): (True, False),
            ("ShearY", "TranslateYRel"): (False, True),
        }
        for names, (across, down) in moves.items():
            moved = partial(warp, fill=self._fill, across=across, down=down)
            warped = draws.where(*names)
            operations.append((partial(moved, cubic=False), warped & ~cubic, maps))
            operations.append((partial(moved, cubic=True), warped & cubic, maps))
        return [
            (operation, EpochMembers(positions, columns(draws.take(positions)), order))
            for operation, chosen, columns in operations
            for positions in [np.flatnonzero(chosen)]
        ]


class Erasing:
    """Random erasing: which pixels go is drawn with the image, the noise that comes with the batch."""

    def __init__(self, probability: float, noise: Noise, side: int, rng: np.random.Generator, order: Order) -> None:
        """Args:
        side: of the images.
        """
        chosen, boxes = draw_erasing(rng, order.count, side, probability)
        positions = np.flatnonzero(chosen[order.index])
        boxes = boxes[order.index[positions]]
        self._noise = noise
        self._areas = boxes[:, 2] * boxes[:, 3]
        self._members = EpochMembers(positions, (boxes,), order)

    def __call__(self, images: Tensor, step: int) -> Tensor:
        rows, boxes = self._members.of(step)
        erase(images, rows, boxes, int(self._areas[self._members.within(step)].sum()), self._noise)
        return images
