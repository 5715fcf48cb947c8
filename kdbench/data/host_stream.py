"""Images that are decoded and augmented by worker processes while the device trains."""

import random
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import Compose

from kdbench.compute.distributed import ALONE, Replica
from kdbench.data.augment.members import Order
from kdbench.data.sources import FileSet, ImageSet
from kdbench.data.stream import TrainingStream
from kdbench.data.transforms import evaluation_transform, training_transform
from kdbench.errors import KdbenchError
from kdbench.suites.schema import Data, Recipe

PIECE = 32
"""Images that a worker decodes at a time: less than a batch, so that all workers share the first batch of an epoch."""

PREFETCH = 2
"""Pieces that each worker prepares ahead."""


class HostStream(TrainingStream):
    """Training batches whose images are read, decoded and augmented on the host.

    Each image's augmentation is seeded by (seed, pair, epoch, position), so that batches depend neither on the number
    of workers nor on the replica.
    """

    def __init__(
        self,
        split: FileSet | ImageSet,
        data: Data,
        recipe: Recipe,
        num_classes: int,
        *,
        seed: int,
        pair: str,
        device: torch.device,
        workers: int,
        replica: Replica = ALONE,
    ) -> None:
        """Args:
        workers: processes that read; 0 reads in this one.
        """
        super().__init__(torch.from_numpy(split.labels).to(device), recipe, num_classes, seed, pair, replica)
        self._split = split
        self._data = data
        self._transform = training_transform(data, recipe.augment)
        self._workers = workers
        self.ahead = workers * PREFETCH * PIECE

    def with_recipe(self, recipe: Recipe) -> "HostStream":
        device, workers = self.labels.device, self._workers
        return HostStream(
            self._split,
            self._data,
            recipe,
            self.num_classes,
            seed=self.seed,
            pair=self.pair,
            device=device,
            workers=workers,
            replica=self.replica,
        )

    def images(self, epoch: int, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        seed_of = partial(self.seed_of, "augment", epoch)
        pieces = _Pieces(self._split, _mode(self._data), self._transform, seed_of)
        order = Order(torch.cat(list(batches)).numpy(), len(batches[0]), len(self), self.labels.device)
        erasing = self.erasing(epoch, self._data, order)
        for step, images in enumerate(_loaded(pieces, batches, self.labels.device, self._workers)):
            yield erasing(images, step) if erasing else images


class HostEvaluation:
    """A split whose images are read and decoded on the host, as timm evaluates: resized, centre crop."""

    def __init__(
        self, split: FileSet | ImageSet, data: Data, eval_crop: float, device: torch.device, workers: int
    ) -> None:
        """Args:
        eval_crop: side of the crop over the side that the image is resized to.
        workers: processes that read; 0 reads in this one.
        """
        self._pieces = _Pieces(split, _mode(data), evaluation_transform(data, eval_crop), None)
        self._labels = torch.from_numpy(split.labels).to(device)
        self._workers = workers

    def __len__(self) -> int:
        return len(self._labels)

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Images (B, C, side, side), float in [0, 255], and labels (B,), in the order of the split."""
        batches = torch.arange(len(self)).split(size)
        images = _loaded(self._pieces, batches, self._labels.device, self._workers)
        yield from zip(images, self._labels.split(size), strict=True)


class _Pieces(Dataset[Tensor | KdbenchError]):
    """Pieces of batches, transformed: uint8 (B, H, W, C), or what is wrong with an image of the piece.

    The error is handed over as a value: raised in a worker process it would arrive as a page of text.
    """

    def __init__(
        self,
        split: FileSet | ImageSet,
        mode: str,
        transform: Compose,
        seed_of: Callable[[int], int] | None,
    ) -> None:
        """Args:
        mode: PIL mode of the images.
        seed_of: seed of the augmentation of the image at a position; None where nothing is drawn.
        """
        self._split = split
        self._mode = mode
        self._transform = transform
        self._seed_of = seed_of

    def __getitem__(self, piece: list[int]) -> Tensor | KdbenchError:
        with _own_randomness():
            try:
                return torch.from_numpy(np.stack([self._image(i) for i in piece]))
            except KdbenchError as error:
                return error

    def _image(self, i: int) -> np.ndarray:
        if self._seed_of is not None:
            _seed_all(self._seed_of(i))
        image = self._split.load(i)
        image = self._transform(image if image.mode == self._mode else image.convert(self._mode))
        return np.asarray(image).reshape(image.height, image.width, -1)


def _mode(data: Data) -> str:
    return "L" if len(data.mean) == 1 else "RGB"


def _seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed([seed & 0xFFFFFFFF, seed >> 32])  # noqa: NPY002  (timm draws from the global generator)
    # Not torch.manual_seed: that would seed the devices too.
    torch.default_generator.manual_seed(seed)


@contextmanager
def _own_randomness() -> Iterator[None]:
    """Leave the global generators as they were."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])


def _loaded(pieces: _Pieces, batches: Sequence[Tensor], device: torch.device, workers: int) -> Iterator[Tensor]:
    """Each of `batches` (positions, on the host) as float (B, C, H, W) on the device, channels last in memory.

    Raises:
        KdbenchError: an image cannot be read.
    """
    pieces_of = [[piece.tolist() for piece in batch.split(PIECE)] for batch in batches]
    loader = DataLoader(
        pieces,
        batch_size=None,
        sampler=[piece for batch in pieces_of for piece in batch],
        num_workers=workers,
        prefetch_factor=PREFETCH if workers else None,
        pin_memory=device.type == "cuda",
        # A generator of its own: the loader would draw a seed from the global one.
        generator=torch.Generator(),
        # Cheap enough for every epoch, and the workers never touch the device.
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
    )
    move = _Mover(device)
    loaded = iter(loader)
    try:
        for batch in pieces_of:
            ready = list(islice(loaded, len(batch)))
            for piece in ready:
                if isinstance(piece, KdbenchError):
                    raise piece
            yield move(ready).permute(0, 3, 1, 2).float()
    finally:
        # Ends the workers, now and not when the traceback that holds this frame is forgotten.
        del loaded


class _Mover:
    """Joins the pieces of a batch on the device.

    On CUDA they are copied from pinned memory on a stream of their own: while the device is busy with a batch that the
    consumer has queued, the next one is already on its way.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._side = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, pieces: list[Tensor]) -> Tensor:
        if self._side is None:
            return torch.cat(pieces).to(self._device)
        with torch.cuda.stream(self._side):
            batch = torch.cat([piece.to(self._device, non_blocking=True) for piece in pieces])
        current = torch.cuda.current_stream(self._device)
        current.wait_stream(self._side)
        # Its memory is the side stream's, which must not use it again before the consumer's kernels are done with it.
        batch.record_stream(current)
        return batch
