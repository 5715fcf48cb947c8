"""Checkpoints of trainings that are not finished: one file for each cell, so that it goes on in any company.

The name of a file says where in the training it was taken. New files are written whole before old ones are removed.
"""

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from kdbench.errors import KdbenchError
from kdbench.records import Results, replacing
from kdbench.study.plan import Cell

Spot = tuple[int, int]
"""Where in a training: finished epochs, and finished steps of the next one."""
START: Spot = (0, 0)

_NAME = re.compile(r".*@(\d+)\.(\d+)\.pt")


def taken(results: Results, cell: Cell) -> dict[Spot, Path]:
    """The checkpoints of a cell."""
    lock = results.lock_path(*cell.place)
    found = {}
    for path in lock.parent.glob(f"{lock.stem}@*.pt"):
        if match := _NAME.fullmatch(path.name):
            found[int(match[1]), int(match[2])] = path
    return found


def together(results: Results, cells: Sequence[Cell]) -> list[tuple[Spot, tuple[Cell, ...]]]:
    """Cells that go on from one spot together, the furthest first; those without a checkpoint begin.

    Where all that have checkpoints share a spot it is that, as a group that was interrupted while it wrote leaves some
    cells a spot ahead.
    """
    spots = [set(taken(results, cell)) for cell in cells]
    shared = set.intersection(*filter(None, spots)) if any(spots) else set()
    by_spot: dict[Spot, list[Cell]] = {}
    for cell, own in zip(cells, spots, strict=True):
        by_spot.setdefault(max(own & shared or own, default=START), []).append(cell)
    return [(spot, tuple(by_spot[spot])) for spot in sorted(by_spot, reverse=True)]


def save(results: Results, states: Sequence[tuple[Cell, Any]], spot: Spot) -> None:
    """Write a checkpoint of each cell, then remove the older ones.

    Raises:
        KdbenchError: the folder cannot be written; what was there before is still there.
    """
    for cell, state in states:
        with replacing(_path(results, cell, spot)) as file:
            torch.save(state, file)
    for cell, _ in states:
        discard(results, cell, but=spot)


def load(results: Results, cell: Cell, spot: Spot) -> dict[str, Any]:
    """The state that was saved, on the host; no code in the file is run.

    Raises:
        KdbenchError: the file is broken.
    """
    path = _path(results, cell, spot)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise KdbenchError(
            f"{path} is broken ({type(error).__name__}); the same command starts the cell anew"
        ) from error


def discard(results: Results, cell: Cell, but: Spot | None = None) -> None:
    """Remove the checkpoints of a cell, except that of one spot."""
    for spot, path in taken(results, cell).items():
        if spot != but:
            # One that stays is in nobody's way, and the next run removes it.
            with suppress(OSError):
                path.unlink()


def _path(results: Results, cell: Cell, spot: Spot) -> Path:
    lock = results.lock_path(*cell.place)
    return lock.with_name(f"{lock.stem}@{spot[0]}.{spot[1]}.pt")
