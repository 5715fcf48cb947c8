"""The frozen baseline: one JSON file of numbers that later results are held against.

It keeps what the tests of the gate need and no more: of every (pair, method) the last-epoch top-1 and losses by seed,
the losses of every epoch for the first seeds, and the throughput ratios to the control. The gain over the control is
the difference of two of its columns and is not kept.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from shlex import quote
from statistics import mean, median, stdev
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kdbench.analysis.published import baselines_folder
from kdbench.analysis.stability import MOST_BELOW
from kdbench.analysis.stats import stratified_p
from kdbench.errors import KdbenchError
from kdbench.files import canonical_json, read_json, write_bytes
from kdbench.gate.decision import pooled_p
from kdbench.names import plural
from kdbench.results.schema import TIMING_PROTOCOL, CellRecord, Environment, Role
from kdbench.results.study import PairMethod, Study
from kdbench.values import (
    Amount,
    Count,
    Line,
    Name,
    Number,
    Percent,
    Rate,
    Title,
    first_problem,
    misfit,
    unequal,
)

SCHEMA = 1
LEAST_SEEDS = 20
"""Fewer seeds make a baseline provisional: its own noise would decide what is found."""
TRACED_SEEDS = 3
"""Seeds whose losses are kept for every epoch."""
MOST_SPREAD = 3.0
"""Points of top-1: a cell whose seeds have a larger standard deviation cannot show what a bug costs."""
DIGITS = 6
"""Significant digits of a loss; training is chaotic, so traces that agree so far in every epoch are the same."""


MACHINE = ("device", "torch", "timm", "threads", "compile", "precision")
"""What of an environment must agree for results to be the same to the last bit."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BaselineCell(_Strict):
    """One (pair, method) of a baseline.

    Attributes:
        seconds: to train one seed, its share of the lockstep group; None where the records do not tell.
        top1: last-epoch top-1 in percent by seed, in the order of the baseline's seeds.
        losses: every loss term in the last epoch, likewise.
        traces: every loss term by epoch, of the first seeds.
        ratios: images/s over those of the control, by round; empty where not measured.
    """

    pair: Title
    method: Name
    seconds: Amount | None
    top1: list[Percent]
    losses: dict[Line, list[Number]]
    traces: list[dict[Line, list[Number]]]
    ratios: list[Rate]

    @property
    def pair_method(self) -> PairMethod:
        return self.pair, self.method


class Baseline(_Strict):
    """A baseline file.

    Attributes:
        version: of the layout of the file.
        provisional: it was accepted with fewer seeds or from a changed tree; not fit to judge others by.
        command: what made the records.
        roles, hyperparameters: by method.
        teachers: SHA-256 of the teacher's weights by pair.
        environments: descriptions by id; all of one machine.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, ignored_types=(cached_property,))

    version: Literal[1] = Field(alias="schema")
    suite: Name
    protocol: Line
    timing_protocol: Line
    split: Literal["test", "val"]
    provisional: bool
    command: str
    seeds: Annotated[list[Count], Field(min_length=1)]
    roles: dict[Name, Role]
    hyperparameters: dict[str, dict[str, Any]]
    teachers: dict[Title, Line]
    environments: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
    cells: Annotated[list[BaselineCell], Field(min_length=1)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if list(self.roles.values()).count("control") != 1:
            raise ValueError("not one of the methods is the control")
        if len(self.by_pair_method) < len(self.cells) or len(set(self.seeds)) < len(self.seeds):
            raise ValueError("a cell or a seed is there twice")
        for environment in self.environments.values():
            if problem := misfit(Environment, environment):
                raise ValueError(f"an environment is broken: {problem}")
        for cell in self.cells:
            where = f"{cell.method} on {cell.pair}"
            if cell.method not in self.roles or cell.pair not in self.teachers:
                raise ValueError(f"{where}: the method has no role, or the pair no teacher")
            if cell.method not in self.hyperparameters or (cell.pair, self.control) not in self.by_pair_method:
                raise ValueError(f"{where}: the hyperparameters or the control are missing")
            by_seed = {"seeds": self.seeds, "top1": cell.top1, **cell.losses}
            if problem := unequal(by_seed) or next(filter(None, map(unequal, cell.traces)), None):
                raise ValueError(f"{where}: {problem}")
            if len(cell.traces) > len(self.seeds) or any(trace.keys() != cell.losses.keys() for trace in cell.traces):
                raise ValueError(f"{where}: the traces are not those of the losses")
        return self

    @cached_property
    def by_pair_method(self) -> dict[PairMethod, BaselineCell]:
        return {cell.pair_method: cell for cell in self.cells}

    @property
    def control(self) -> str:
        return next(method for method, role in self.roles.items() if role == "control")

    @property
    def pairs(self) -> list[str]:
        return list(self.teachers)

    @property
    def machine(self) -> dict[str, Any]:
        """What of the environment its numbers depend on to the last bit."""
        return machine_of(next(iter(self.environments.values())))

    def gains(self, pair_method: PairMethod) -> list[float]:
        """Top-1 over the control by seed."""
        control = self.by_pair_method[pair_method[0], self.control].top1
        return [
            top1 - top1_of_control
            for top1, top1_of_control in zip(self.by_pair_method[pair_method].top1, control, strict=True)
        ]

    def write(self, path: Path) -> None:
        """Write the file, a cell a line, so that a change shows which cells it touches.

        Raises:
            KdbenchError: the folder cannot be written.
        """
        head = canonical_json(self.model_dump(exclude={"cells"}, by_alias=True))
        lines = ",\n".join(canonical_json(cell.model_dump()) for cell in self.cells)
        write_bytes(path, f'{head[:-1]},"cells":[\n{lines}\n]}}\n'.encode())


def machine_of(environment: Mapping[str, Any]) -> dict[str, Any]:
    """The part of an environment's description that decides whether results are the same to the last bit."""
    return {name: environment.get(name) for name in MACHINE}


def machine(study: Study, record: CellRecord) -> dict[str, Any]:
    """What of the environment of a record its numbers depend on."""
    return machine_of(study.environments.get(record["environment"], {}))


def last_losses(record: CellRecord) -> dict[str, float]:
    """Every loss term in the last epoch of a finished record."""
    return {term: values[-1] for term, values in record.get("curves", {}).get("loss", {}).items()}


def default_path(suite: str) -> Path:
    """Where the baseline of a suite lies."""
    return baselines_folder() / f"{suite}.json"


def load_baseline(path: Path) -> Baseline:
    """Read a baseline file.

    Raises:
        KdbenchError: there is none, or it is of another schema.
    """
    if not path.is_file():
        make = f"kdbench baseline update RESULTS --out {quote(str(path))}"
        raise KdbenchError(f"MISSING_BASELINE: no {path}; make it with `{make}`")
    try:
        return Baseline.model_validate(read_json(path))
    except ValidationError as error:
        raise KdbenchError(
            f"STALE_PROTOCOL: {path} is no baseline of schema {SCHEMA} ({first_problem(error)}); "
            "make it anew with `kdbench baseline update`"
        ) from error


def make_baseline(study: Study) -> Baseline:
    """The baseline of a results folder; provisional where there is `doubt` about it.

    Raises:
        KdbenchError: cells are missing or failed, or records are of several machines or settings.
    """
    manifest = study.manifest
    seeds = sorted(manifest["seeds"])
    pair_methods = [
        (pair, method)
        for pair in manifest["pairs"]
        for method in manifest["methods"]
        if not study.unsupported((pair, method))
    ]
    _refuse_gaps(study, pair_methods, seeds)
    records = [record for pair_method in pair_methods for record in study.done(pair_method).values()]
    if study.control is None:
        raise KdbenchError("a baseline needs the control; run `kdbench run` with --methods all")
    environments = {record["environment"]: study.environments.get(record["environment"], {}) for record in records}
    _refuse_mixture(study, records)
    seconds = _seconds(study, pair_methods)
    try:
        return Baseline(
            schema=SCHEMA,
            suite=manifest["suite"],
            protocol=manifest["protocol"],
            timing_protocol=TIMING_PROTOCOL,
            split=records[0]["split"],
            provisional=doubt(seeds, environments) is not None,
            command=manifest["command"],
            seeds=seeds,
            roles={method: manifest["roles"][method] for method in manifest["methods"]},
            hyperparameters={record["method"]: record["hyperparameters"] for record in records},
            teachers={record["pair"]: record["teacher"]["sha256"] for record in records},
            environments=environments,
            cells=[_cell(study, pair_method, seconds.get(pair_method)) for pair_method in pair_methods],
        )
    except ValidationError as error:
        raise KdbenchError(f"these results make no baseline: {first_problem(error)}") from error


def doubt(seeds: Sequence[int], environments: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Why a baseline of these seeds and environments is provisional, and what to do; None where it is not."""
    if len(seeds) < LEAST_SEEDS:
        few = f"{plural(len(seeds), 'seed')} {'is' if len(seeds) == 1 else 'are'}"
        return f"{few} too few for a baseline; run with --seeds {LEAST_SEEDS}, or accept them with --provisional"
    for name, one in sorted(environments.items()):
        dirty = one.get("git", {}).get("dirty")
        if dirty is not False:
            what = (
                "a tree with uncommitted changes"
                if dirty
                else "a tree whose revision git does not tell (installed, no git, or another owner)"
            )
            return (
                f"environment {name} is {what}, so nobody can repeat it; commit and run into another folder, or accept "
                "it with --provisional"
            )
    return None


@dataclass(frozen=True)
class Scattered:
    """A cell whose seeds lie too far apart to judge by.

    Attributes:
        spread: standard deviation of its top-1 over the seeds, in points.
        seed: the worst one.
        below: how far that is below the median, in points.
    """

    pair: str
    method: str
    spread: float
    seed: int
    below: float


def scattered(baseline: Baseline) -> list[Scattered]:
    """The cells that spread by more than `MOST_SPREAD`, or have a seed more than `MOST_BELOW` under their median."""
    wide = []
    for cell in baseline.cells:
        spread = stdev(cell.top1) if len(cell.top1) > 1 else 0.0
        worst = min(range(len(cell.top1)), key=cell.top1.__getitem__)
        below = median(cell.top1) - cell.top1[worst]
        if spread > MOST_SPREAD or below > MOST_BELOW:
            wide.append(Scattered(cell.pair, cell.method, spread, baseline.seeds[worst], below))
    return wide


def _cell(study: Study, pair_method: PairMethod, seconds: float | None) -> BaselineCell:
    done = list(study.done(pair_method).values())
    terms = list(last_losses(done[0]))
    if any(last_losses(record).keys() != set(terms) for record in done):
        raise KdbenchError(
            f"{pair_method[1]} on {pair_method[0]} has other loss terms from seed to seed; run into another folder"
        )
    return BaselineCell(
        pair=pair_method[0],
        method=pair_method[1],
        seconds=None if seconds is None else rounded(seconds, 3),
        top1=[record.get("top1", math.nan) for record in done],
        losses={term: [rounded(last_losses(record)[term]) for record in done] for term in terms},
        traces=[trace(record) for record in done[:TRACED_SEEDS]],
        ratios=[rounded(ratio, 5) for ratio in ratios(study, pair_method)],
    )


def trace(record: CellRecord) -> dict[str, list[float]]:
    """The losses of every epoch as a baseline keeps them."""
    losses = record.get("curves", {}).get("loss", {})
    return {term: [rounded(value) for value in values] for term, values in losses.items()}


def ratios(study: Study, pair_method: PairMethod) -> list[float]:
    """Images/s over those of the control in the same round; empty where they were not measured."""
    record = study.measurements.get(pair_method)
    if record is None or record["status"] != "done":
        return []
    images_per_second, control = record.get("blocks", []), record.get("control_blocks", [])
    return [a / b for a, b in zip(images_per_second, control, strict=True)] if control else []


def rounded(value: float, digits: int = DIGITS) -> float:
    """`value` to so many significant digits."""
    return float(f"{value:.{digits}g}")


def _refuse_gaps(study: Study, pair_methods: Sequence[PairMethod], seeds: Sequence[int]) -> None:
    short = [pair_method for pair_method in pair_methods if list(study.done(pair_method)) != seeds]
    if short:
        (pair, method), count = short[0], len(study.done(short[0]))
        raise KdbenchError(
            f"{len(short)} of {len(pair_methods)} cells are not done for every seed ({method} on {pair}: {count} of "
            f"{len(seeds)}); run the same command again"
        )
    if not pair_methods:
        raise KdbenchError("no cell of these results is done; run the same command again")


def _refuse_mixture(study: Study, records: Sequence[CellRecord]) -> None:
    kinds = {
        "split": [record["split"] for record in records],
        "protocol": [study.manifest["protocol"], *(record["protocol"] for record in records)],
        f"machine ({', '.join(MACHINE)})": [canonical_json(machine(study, record)) for record in records],
    }
    for what, values in kinds.items():
        if len(set(values)) > 1:
            raise KdbenchError(
                f"the records are of {len(set(values))} kinds of {what}; run again into another folder with --out"
            )


def _seconds(study: Study, pair_methods: Sequence[PairMethod]) -> dict[PairMethod, float]:
    """Seconds to train a seed: the median share of its lockstep groups, by the cost of a step where it was measured."""
    cost = {
        pair_method: 1 / median(speeds) if (speeds := ratios(study, pair_method)) else 1.0
        for pair_method in pair_methods
    }
    groups: dict[tuple[str, int, float], list[PairMethod]] = {}
    for pair_method in pair_methods:
        for seed, record in study.done(pair_method).items():
            # Those trained together have the same time to the last digit.
            if "group" in record.get("seconds", {}):
                groups.setdefault((pair_method[0], seed, record.get("seconds", {})["group"]), []).append(pair_method)
    shares: dict[PairMethod, list[float]] = {}
    for (_, _, seconds), members in groups.items():
        for pair_method in members:
            shares.setdefault(pair_method, []).append(
                seconds * cost[pair_method] / sum(cost[other] for other in members)
            )
    return {pair_method: median(values) for pair_method, values in shares.items()}


@dataclass(frozen=True)
class BaselineChange:
    """A cell of a new baseline against the old one.

    Attributes:
        old, new: mean top-1 in percent; NaN where only the other has the cell.
        p: paired where the seeds are the same, else pooled; NaN where no test can be made.
    """

    pair: str
    method: str
    old: float
    new: float
    p: float


def changes(old: Baseline, new: Baseline) -> list[BaselineChange]:
    """Every cell of either, in the order of the new one."""
    rows = []
    for pair_method in dict.fromkeys([*new.by_pair_method, *old.by_pair_method]):
        before, after = (
            one.by_pair_method[pair_method].top1 if pair_method in one.by_pair_method else [] for one in (old, new)
        )
        p = math.nan
        if before and after and old.seeds == new.seeds:
            p = stratified_p([[b - a for a, b in zip(before, after, strict=True)]])
        elif before and after:
            p = pooled_p(before, after)
        means = [mean(values) if values else math.nan for values in (before, after)]
        rows.append(BaselineChange(*pair_method, *means, p=p))
    return rows
