"""Checkpoints of trainings that are not finished: one file for each cell, so that it goes on in any company.

New files are written whole before old ones are removed.
"""

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import torch

from kdbench.errors import KdbenchError
from kdbench.files import write_bytes
from kdbench.results.folder import START, CellId, Position, Results
from kdbench.results.schema import Curves, unequal_curves
from kdbench.values import misfit
from kdbench.weights.files import unpickled


def group_by_position(results: Results, cells: Sequence[CellId]) -> list[tuple[Position, tuple[CellId, ...]]]:
    """The cells that go on from one position together, the furthest first; those without a checkpoint start anew.

    A group that was interrupted while it wrote checkpoints has some cells ahead of the others. Where all cells that
    have checkpoints share a position, they go on from that one.
    """
    positions = [set(results.checkpoints(cell)) for cell in cells]
    shared = set.intersection(*filter(None, positions)) if any(positions) else set()
    cells_at: dict[Position, list[CellId]] = {}
    for cell, of_cell in zip(cells, positions, strict=True):
        cells_at.setdefault(max(of_cell & shared or of_cell, default=START), []).append(cell)
    return [(position, tuple(cells_at[position])) for position in sorted(cells_at, reverse=True)]


def save_checkpoints(results: Results, states: Sequence[tuple[CellId, Any]], position: Position) -> None:
    """Write a checkpoint of each cell, then remove the older ones.

    Raises:
        KdbenchError: the folder cannot be written; what was there before is still there.
    """
    for cell, state in states:
        # In memory first: torch.save hides what is wrong with a disk.
        torch.save(state, content := BytesIO())
        write_bytes(results.checkpoint_path(cell, position), content.getvalue())
    for cell, _ in states:
        results.remove_checkpoints(cell, keep=position)


def load_checkpoint(results: Results, cell: CellId, position: Position) -> dict[str, Any]:
    """The state that was saved, on the host; no code in the file is run.

    Raises:
        KdbenchError: the file is broken.
    """
    path = results.checkpoint_path(cell, position)
    try:
        return unpickled(path)
    except Exception as error:
        raise KdbenchError(
            f"{path} is broken ({type(error).__name__}); the same command starts the cell anew"
        ) from error


def unfinished_curves(results: Results, cell: CellId) -> Curves | None:
    """The curves up to the last checkpoint of a cell; None where there is none that can be read.

    Weights stay on the disk. The training may replace the file at any moment.
    """
    checkpoints = results.checkpoints(cell)
    if not checkpoints:
        return None
    try:
        state = torch.load(checkpoints[max(checkpoints)], map_location="cpu", mmap=True, weights_only=True)
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
