"""Checkpoints of trainings that are not finished: one file for each cell, so that it goes on in any company.

New files are written whole before old ones are removed.
"""

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import torch

from kdbench.errors import KdbenchError
from kdbench.files import write_bytes
from kdbench.results.checkpoints import START, Place, Spot, discard, path_of, taken
from kdbench.results.consistency import unequal_curves
from kdbench.results.records import Curves, Results
from kdbench.study.plan import Cell
from kdbench.values import misfit
from kdbench.weights.files import unpickled


def together(results: Results, cells: Sequence[Cell]) -> list[tuple[Spot, tuple[Cell, ...]]]:
    """Cells that go on from one spot together, the furthest first; those without a checkpoint begin.

    Where all that have checkpoints share a spot it is that, as a group that was interrupted while it wrote leaves some
    cells a spot ahead.
    """
    spots = [set(taken(results, cell.place)) for cell in cells]
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
        # In memory first: torch.save hides what is wrong with a disk.
        torch.save(state, content := BytesIO())
        write_bytes(path_of(results, cell.place, spot), content.getvalue())
    for cell, _ in states:
        discard(results, cell.place, but=spot)


def load(results: Results, cell: Cell, spot: Spot) -> dict[str, Any]:
    """The state that was saved, on the host; no code in the file is run.

    Raises:
        KdbenchError: the file is broken.
    """
    path = path_of(results, cell.place, spot)
    try:
        return unpickled(path)
    except Exception as error:
        raise KdbenchError(
            f"{path} is broken ({type(error).__name__}); the same command starts the cell anew"
        ) from error


def unfinished_curves(results: Results, place: Place) -> Curves | None:
    """The curves up to the last checkpoint of a cell; None where there is none that can be read.

    Weights stay on the disk. The training may replace the file at any moment.
    """
    spots = taken(results, place)
    if not spots:
        return None
    try:
        state = torch.load(spots[max(spots)], map_location="cpu", mmap=True, weights_only=True)
        contender, (eval_epochs, eval_top1) = state["contender"], state["curve"]
        curves = Curves(
            epoch=list(range(1, len(contender["lr"]) + 1)),
            lr=contender["lr"],
            loss=contender["losses"],
            eval_epoch=eval_epochs,
            eval_top1=eval_top1,
            # Before the last epoch no other split is read than the one that the curve is of.
            eval_split="test" if state["reads"].get("test") else "val",
        )
    except Exception:
        # What reads it to go on from there tells what is wrong with it.
        return None
    return None if misfit(Curves, curves) or unequal_curves(curves) else curves
