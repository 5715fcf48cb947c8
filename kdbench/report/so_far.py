"""What a run says before its end: the methods by mean gain over the blocks that all of them have finished."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from kdbench.analysis.gains import GroupGain, group_gains
from kdbench.errors import KdbenchError
from kdbench.report import text
from kdbench.results.folder import Results
from kdbench.results.study import Study, read_study

ENDS = 5
"""How many of the best and of the worst methods a table on the terminal shows."""
PATIENCE = 30
"""Reading takes time from the run: it is done again after so many times what it took."""


@dataclass(frozen=True)
class FirstAnswers:
    """The mean gains over the finished blocks.

    Attributes:
        study: of the finished blocks alone.
        rows: the methods that have a mean gain over the first group of pairs, the largest first, the control at 0.
    """

    study: Study
    rows: list[GroupGain]

    @property
    def blocks(self) -> str:
        """`So far: seed 0 on 4 of 6 pairs. ...`, or over what the means of a finished run are."""
        over = text.plural(self.rows[0].pairs, f"{self.rows[0].group} pair")
        return text.so_far(self.study) or f"Mean over {over}, {text.seeds(self.study)}."

    @property
    def line(self) -> str:
        """`so far, over 4 of 18 blocks: srd +1.68, dist +1.62, ...; last: at -5.30`."""
        count = sum(map(len, self.study.blocks.values()))
        of = sum(map(len, (self.study.whole or self.study).blocks.values()))
        named = [f"{row.method} {text.signed(row.gain.value)}" for row in self.rows if row.role != "control"]
        last = f"; last: {named[-1]}" if len(named) > ENDS else ""
        return f"so far, mean gain over {count} of {of} blocks: {', '.join(named[:ENDS])}{last}"

    def table(self) -> RenderableType:
        """The best and the worst methods, or all where they are few."""
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("method")
        table.add_column("gain over training alone", justify="right")
        few = len(self.rows) <= 2 * ENDS + 1
        for row in self.rows if few else self.rows[:ENDS]:
            table.add_row(row.method, text.gain(row))
        if not few:
            table.add_row(f"{len(self.rows) - 2 * ENDS} more", "")
            for row in self.rows[-ENDS:]:
                table.add_row(row.method, text.gain(row))
        return Group(Text(self.blocks), table)


def first_answers(study: Study) -> FirstAnswers | None:
    """What the finished blocks of a study say of the closed division; None where there is no gain yet."""
    finished = study.finished()
    if finished is None or finished.control is None or not finished.manifest["cells"]:
        return None
    closed = finished.only(set(finished.methods) - set(finished.differs))
    first = next(iter(closed.groups))
    rows = [row for row in group_gains(closed) if row.group == first and row.gain.value == row.gain.value]
    rows.sort(key=lambda row: -row.gain.value)
    return FirstAnswers(closed, rows) if len(rows) > 1 else None


def reader(results: Results) -> Callable[[], FirstAnswers | None]:
    """What gives the first answers of a folder, read anew when that is worth its time."""
    answers: FirstAnswers | None = None
    again = 0.0

    def read() -> FirstAnswers | None:
        nonlocal answers, again
        began = time.monotonic()
        if began >= again:
            # A folder that cannot be read now is no reason to end what runs.
            with suppress(KdbenchError):
                answers = first_answers(read_study(results))
            now = time.monotonic()
            again = now + PATIENCE * (now - began)
        return answers

    return read
