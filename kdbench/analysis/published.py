"""The published numbers that come with kdbench: reading and asking; light enough for a listing.

`baselines/published.csv` holds one number a row, `baselines/protocols.toml` what each protocol is. `comparison` holds a
study against them.
"""

import csv
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

import kdbench
from kdbench.errors import unknown_name

Epoch = Literal["best", "last", "unknown"]
"""Whose top-1 a source reports: that of the best epoch on the test split, or of the last one."""

Control = Literal["own", "borrowed", "unknown"]
"""Whose training without a teacher a source's gains are over: one of its own, or one that another source published."""


@dataclass(frozen=True)
class Number:
    """One row of the table (accuracies in percent, None where the source does not say).

    Attributes:
        teacher: empty where there is none: training from scratch, or a teacher's own accuracy.
        teacher_arch, student_arch: `cnn`, `vit`, `mlp` or `mamba`.
        scratch_top1: of the student trained without a teacher, as the same source tells it.
        source: where it was published, its short name first.
        note: what else must be known of it; a conflict with another row begins with "conflict:".
    """

    dataset: str
    protocol: str
    teacher: str
    student: str
    teacher_arch: str
    student_arch: str
    method: str
    top1: float
    teacher_top1: float | None
    scratch_top1: float | None
    source: str
    address: str
    note: str

    @property
    def gain(self) -> float | None:
        """Points of top-1 over the published student without a teacher."""
        return None if self.scratch_top1 is None else round(self.top1 - self.scratch_top1, 3)

    @property
    def origin(self) -> str:
        """The short name of the source."""
        return self.source.partition(" (")[0].partition(",")[0]

    @property
    def epoch(self) -> Epoch:
        """The epoch that the top-1 is of: the last or the best one."""
        protocol = protocols()[self.protocol]
        return protocol.epoch_of.get(self.source, protocol.epoch)

    @property
    def control(self) -> Control:
        """Whose training without a teacher its gain is over."""
        protocol = protocols()[self.protocol]
        return protocol.control_of.get(self.source, protocol.control)


@dataclass(frozen=True)
class Protocol:
    """What a protocol of the table is.

    Attributes:
        epoch: which epoch's top-1 its sources report, but for those in `epoch_of`.
        basis: how that is known; empty where it is not.
        control: whose training without a teacher its sources' gains are over, but for those in `control_of`.
        control_basis: how that is known; empty where it is not.
    """

    dataset: str
    summary: str
    epoch: Epoch
    basis: str = ""
    epoch_of: dict[str, Epoch] = field(default_factory=dict)
    control: Control = "unknown"
    control_basis: str = ""
    control_of: dict[str, Control] = field(default_factory=dict)


def baselines_folder() -> Path:
    """What results are held against: in the package when installed, beside it in a source tree."""
    package = Path(kdbench.__file__).parent
    installed = package / "baselines"
    return installed if installed.is_dir() else package.parent / "baselines"


@cache
def numbers() -> tuple[Number, ...]:
    """Every published number, in the order of the file."""
    with (baselines_folder() / "published.csv").open(encoding="utf-8", newline="") as file:
        return tuple(
            Number(
                *(row[name] for name in ("dataset", "protocol", "teacher", "student")),
                *(row[name] for name in ("teacher_arch", "student_arch", "method")),
                top1=float(row["top1"]),
                teacher_top1=_number(row["teacher_top1"]),
                scratch_top1=_number(row["student_scratch_top1"]),
                source=row["source"],
                address=row["source_address"],
                note=row["note"],
            )
            for row in csv.DictReader(file)
        )


def _number(text: str) -> float | None:
    return float(text) if text else None


@cache
def protocols() -> dict[str, Protocol]:
    """Every protocol of the table, by name."""
    content = tomllib.loads((baselines_folder() / "protocols.toml").read_text(encoding="utf-8"))
    return {name: Protocol(**table) for name, table in content.items()}


def find_published(
    *,
    protocol: str | None = None,
    pairs: Iterable[tuple[str, str]] | None = None,
    methods: Iterable[str] | None = None,
) -> list[Number]:
    """The numbers of a protocol, of (teacher, student) pairs and of methods, all by their published names."""
    wanted_pairs = None if pairs is None else set(pairs)
    wanted_methods = None if methods is None else set(methods)
    return [
        row
        for row in numbers()
        if (protocol is None or row.protocol == protocol)
        and (wanted_pairs is None or (row.teacher, row.student) in wanted_pairs)
        and (wanted_methods is None or row.method in wanted_methods)
    ]


def published_name(what: str, name: str, names: Iterable[str]) -> str:
    """The one of the `known` names that `name` is, in whatever case.

    Raises:
        KdbenchError: none is; the near ones are told.
    """
    by_case = {word.casefold(): word for word in names if word}
    if name.casefold() not in by_case:
        raise unknown_name(what, name, by_case.values())
    return by_case[name.casefold()]
