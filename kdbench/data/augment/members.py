"""Which images of which batch get something: known on the host, moved to the device once an epoch."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Order:
    """The batches of an epoch.

    Attributes:
        index: (steps * batch,) positions in the training set, batch after batch.
        batch: images in every batch.
        count: images of the training set.
        device: where the batches are.
    """

    index: NDArray[np.int64]
    batch: int
    count: int
    device: torch.device


class EpochMembers:
    """Some images of an epoch and what each of them gets, cut by step without asking the device anything."""

    def __init__(self, positions: NDArray[np.int64], columns: tuple[NDArray[np.generic], ...], order: Order) -> None:
        """Args:
        positions: ascending positions in the epoch's order.
        columns: what each of them gets, first axis as long as `positions`.
        """
        self._positions = positions
        self._batch = order.batch
        rows = positions % order.batch
        self._tensors = tuple(
            torch.from_numpy(np.ascontiguousarray(values)).to(order.device) for values in (rows, *columns)
        )

    def within(self, step: int) -> slice:
        """Which members lie in the batch of `step`."""
        first, last = np.searchsorted(self._positions, (step * self._batch, (step + 1) * self._batch))
        return slice(int(first), int(last))

    def of(self, step: int) -> tuple[Tensor, ...]:
        """Rows of the batch of `step` (int64) and their columns."""
        part = self.within(step)
        return tuple(tensor[part] for tensor in self._tensors)
