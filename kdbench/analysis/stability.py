"""Trainings that exploded, or ended far from others of the same method: they say more of a recipe than of a method."""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from kdbench.results.schema import CellRecord
from kdbench.results.study import Study

LOSS_FACTOR = 10.0
"""A training has exploded when the loss of a step is more than so many times that of the first step (or than 1)."""
MOST_BELOW = 10.0
"""A training ended far from its siblings when it is more than so many points of top-1 below their median."""
SIBLINGS = 3
"""From so many seeds on there is a median that one of them can be far from."""


@dataclass(frozen=True)
class UnstableCell:
    """A finished training that cannot be trusted, and why.

    Attributes:
        why: the loss that exploded and its step, the distance from the median of the seeds, or both.
    """

    pair: str
    method: str
    seed: int
    why: str

    def __str__(self) -> str:
        return f"{self.method} on {self.pair} seed {self.seed}, {self.why}"


def unstable_cells(study: Study) -> list[UnstableCell]:
    """The finished cells whose loss exploded or that ended far below the other seeds of their pair and method."""
    cells = []
    for pair, method in study.planned:
        if method not in study.methods:
            continue
        done = study.done((pair, method))
        usual = median(record.get("top1", 0.0) for record in done.values()) if len(done) >= SIBLINGS else None
        for seed, record in done.items():
            if reasons := list(_reasons(record, usual)):
                cells.append(UnstableCell(pair, method, seed, ", ".join(reasons)))
    return cells


def _reasons(record: CellRecord, usual: float | None) -> Iterator[str]:
    extremes = record.get("extremes")
    if extremes and extremes["loss"] > LOSS_FACTOR * max(abs(extremes["first_loss"]), 1.0):
        first, loss, step = extremes["first_loss"], extremes["loss"], extremes["loss_step"]
        yield f"loss {loss:,.0f} at step {step:,} ({first:.1f} at the first)"
    if usual is not None and usual - record.get("top1", usual) > MOST_BELOW:
        yield f"{usual - record.get('top1', usual):.1f} points below the median of its seeds"
