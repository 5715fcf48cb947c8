"""What lies in a results folder of trainings that are not finished; imports neither torch nor timm.

A checkpoint's name says where in the training it was taken.
"""

import re
from contextlib import suppress
from pathlib import Path

from kdbench.files import PART
from kdbench.results.records import Results

Place = tuple[str, str, int, str]
"""Pair, method, seed and key of a cell."""
Spot = tuple[int, int]
"""Where in a training: finished epochs, and finished steps of the next one."""
START: Spot = (0, 0)

_NAME = re.compile(r".*@(\d+)\.(\d+)\.pt")


def taken(results: Results, place: Place) -> dict[Spot, Path]:
    """The checkpoints of a cell."""
    lock = results.lock_path(*place)
    found = {}
    for path in lock.parent.glob(f"{lock.stem}@*.pt"):
        if match := _NAME.fullmatch(path.name):
            found[int(match[1]), int(match[2])] = path
    return found


def path_of(results: Results, place: Place, spot: Spot) -> Path:
    """Where a checkpoint belongs."""
    lock = results.lock_path(*place)
    return lock.with_name(f"{lock.stem}@{spot[0]}.{spot[1]}.pt")


def discard(results: Results, place: Place, but: Spot | None = None) -> None:
    """Remove the checkpoints of a cell, except that of one spot, and files of it that a killed process was writing."""
    useless = [path for spot, path in taken(results, place).items() if spot != but]
    for home in (results.lock_path(*place), results.cell_path(*place), results.checkpoint_path(*place)):
        useless += home.parent.glob(f".{home.stem}*{PART}")
    for path in useless:
        # One that stays is in nobody's way.
        with suppress(OSError):
            path.unlink()
