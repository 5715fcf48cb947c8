"""From the data of a suite to what is trained and evaluated on: arrays live on the device, files are streamed."""

from functools import lru_cache
from pathlib import Path
from typing import Literal

import torch

from kdbench.compute.device import Compute
from kdbench.data import sources
from kdbench.data.device_stream import DeviceImages, DeviceStream
from kdbench.data.host_stream import HostEvaluation, HostStream
from kdbench.data.sources import DataSet, FileSet, ImageSet
from kdbench.data.stream import Counted, TrainingStream
from kdbench.errors import KdbenchError
from kdbench.suites.schema import Data, Recipe

Part = Literal["train", "val", "test"]


MOST_UNTRAINED = 0.1
"""Share of the untrained weights that a moving average may hold at the end of a training."""


@lru_cache(maxsize=4)
def open_dataset(data: Data, root: Path) -> DataSet:
    """The data set of a suite, read once a process.

    Raises:
        KdbenchError: it is not there, not whole, or has other classes than the suite says.
    """
    dataset = sources.read_dataset(data.source, root)
    if data.classes not in (None, len(dataset.classes)):
        raise KdbenchError(f"{data.source} under {root} has {len(dataset.classes)} classes, the suite {data.classes}")
    return dataset


def open_split(data: Data, root: Path, part: Part, held_out: float) -> ImageSet | FileSet:
    """A part of the data set, cut down to its limit.

    Args:
        held_out: share of each class that goes from the training images to the validation images.
    """
    dataset = open_dataset(data, root)
    if part == "test":
        chosen = dataset.test
    else:
        kept, held = sources.split_holdout(dataset.train.labels, held_out)
        chosen = dataset.train.take(kept if part == "train" else held)
    limit = data.limit if part == "train" else data.test_limit
    return chosen if limit is None else chosen.take(sources.stratified_subset(chosen.labels, limit))


def fitted_recipe(recipe: Recipe, data: Data, root: Path, held_out: float) -> Recipe:
    """The recipe for the training images that there are: on a part of them the moving average keeps its share.

    Args:
        held_out: as in `split`.

    Raises:
        KdbenchError: the average would still hold much of the untrained weights at the end.
    """
    if not recipe.ema:
        return recipe
    whole, used = (
        max(1, len(open_split(part, root, "train", held_out)) // recipe.batch_size)
        for part in (data.model_copy(update={"limit": None}), data)
    )
    ema = recipe.ema if whole == used else recipe.ema ** (whole / used)
    steps = used * recipe.epochs
    if (untrained := ema**steps) > MOST_UNTRAINED:
        raise KdbenchError(
            f"the moving average (ema = {ema:g}) would still hold {untrained:.0%} of the untrained weights after this "
            f"training of {steps} steps; set ema to {MOST_UNTRAINED ** (1 / steps):.4g} or less, or train for longer"
        )
    return recipe.model_copy(update={"ema": ema})


def open_training(
    data: Data, root: Path, held_out: float, recipe: Recipe, compute: Compute, *, seed: int, pair: str
) -> TrainingStream:
    """The training batches of a (pair, seed).

    Raises:
        KdbenchError: the batch cannot be shared by the processes of a distributed run, or as `fitted_recipe`.
    """
    recipe = fitted_recipe(recipe, data, root, held_out)
    if compute.replica.world > 1 and recipe.batch_size % (2 * compute.replica.world):
        raise KdbenchError(
            f"a batch of {recipe.batch_size} images cannot be shared in equal pairs by "
            f"{compute.replica.world} processes"
        )
    classes = len(open_dataset(data, root).classes)
    # Room for the shift is padded; images that are resized are shifted by their crop.
    room = recipe.augment.shift if data.fit == "pad" else 0
    images = _opened(data, root, "train", held_out, room, compute.device)
    if isinstance(images, FileSet):
        return HostStream(
            images,
            data,
            recipe,
            classes,
            seed=seed,
            pair=pair,
            device=compute.device,
            workers=compute.loaders,
            replica=compute.replica,
        )
    return DeviceStream(images, recipe, classes, seed, pair, compute.replica)


def open_evaluation(data: Data, root: Path, part: Part, held_out: float, eval_crop: float, compute: Compute) -> Counted:
    """A part of the data to be evaluated on."""
    images = _opened(data, root, part, held_out, 0, compute.device)
    if isinstance(images, FileSet):
        return Counted(part, HostEvaluation(images, data, eval_crop, compute.device, compute.loaders))
    return Counted(part, images.evaluation(eval_crop))


@lru_cache(maxsize=8)
def _opened(
    data: Data, root: Path, part: Part, held_out: float, room: int, device: torch.device
) -> DeviceImages | FileSet:
    """A part of the data set: arrays are put on the device, with `room` pixels around them, and files stay files."""
    images = open_split(data, root, part, held_out)
    return images if isinstance(images, FileSet) else DeviceImages(images, data, room, device)
