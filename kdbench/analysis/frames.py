"""Reading a results folder into one `Study`: every planned cell is a row, the missing ones too."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Any, Literal

import numpy as np
import pandas as pd

from kdbench.errors import KdbenchError
from kdbench.files import content_key
from kdbench.results.consistency import is_planned
from kdbench.results.records import CellRecord, Manifest, Results, Role, Split, ThroughputRecord

MISSING = "missing"
"""Status of a planned cell without a record."""

ROLES: tuple[Role, ...] = ("control", "baseline", "method")
"""In the order of the tables."""
Group = Literal["heterogeneous", "homogeneous"]

CELL_COLUMNS = [
    *(
        "key",
        "suite",
        "protocol",
        "pair",
        "teacher",
        "student",
        "hetero",
        "teacher_top1",
        "student_parameters",
    ),
    *("method", "role", "seed", "split", "status", "error", "environment"),
    *("top1", "top5", "best_top1", "best_epoch", "evaluated", "extra_parameters"),
]
_OWN_COLUMNS = (
    *("hetero", "split", "status", "error", "environment"),
    *("top1", "top5", "best_top1", "best_epoch", "evaluated", "extra_parameters"),
)
"""Those that a cell's record holds as they are; the plan says the others."""
THROUGHPUT_COLUMNS = [
    *("pair", "method", "role", "timing_protocol", "status", "error", "environment", "batch_size"),
    *("blocks", "control_blocks", "baseline_blocks", "phases", "phases_to_step", "peak_memory"),
    *("extra_parameters", "inference_parameters", "flops", "matmul_flops", "clean", "unclean", "repeated"),
]
EQUAL_TIME_COLUMNS = ["pair", "method", "epochs", "seed", "top1"]


@dataclass(frozen=True)
class Study:
    """What a results folder holds of the study its manifest plans.

    Attributes:
        manifest: the plan.
        cells: one row a planned cell, by pair, method, seed (`CELL_COLUMNS`, then `seconds_<phase>`);
            accuracies in percent. A cell without a record has status "missing" and NaN elsewhere.
        throughput: one row a measured (pair, method), `THROUGHPUT_COLUMNS`; lists and dicts are the records'.
        curves: accuracy by epoch on `curve_split`: pair, method, seed, epoch, top1 (percent).
        equal_time: top-1 of the control trained for as long as a method takes, `EQUAL_TIME_COLUMNS`, one row a planned
            cell of the method; NaN where the control is not done. Empty unless the run asked for it.
        environments: descriptions of the environments that the records above name, by id.
        pairs: in the manifest's order.
        methods: the control, the baseline, then the others in the manifest's order.
        roles: what each method is.
        groups: the pairs of each kind that has any.
        curve_split: what the learning curves are measured on.
        ignored: how many records of other settings or machines the folder holds beside those planned.
        dates: first and last day (UTC, ISO 8601) on which the records above were made, where they tell.
    """

    manifest: Manifest
    cells: pd.DataFrame
    throughput: pd.DataFrame
    curves: pd.DataFrame
    equal_time: pd.DataFrame
    environments: dict[str, dict[str, Any]]
    pairs: list[str]
    methods: list[str]
    roles: dict[str, Role]
    groups: dict[Group, list[str]]
    curve_split: Split
    ignored: int
    dates: tuple[str, ...] = ()

    @cached_property
    def run_id(self) -> str:
        """Names what was run: all that determines the planned cells and measurements is in their keys."""
        planned = [*self.manifest["cells"], *self.manifest["throughput"]]
        return content_key(sorted(place["key"] for place in planned))[:12]

    @property
    def differs(self) -> dict[str, str]:
        """The methods of the open division, with what each does that the closed one fixes."""
        return {name: what for name, what in self.manifest.get("differs", {}).items() if name in self.methods}

    def only(self, methods: Collection[str]) -> "Study":
        """The same about some of the methods."""
        frames = (self.cells, self.throughput, self.curves, self.equal_time)
        own = (frame[frame["method"].isin(methods)].reset_index(drop=True) for frame in frames)
        cells, throughput, curves, equal_time = own
        return replace(
            self,
            cells=cells,
            throughput=throughput,
            curves=curves,
            equal_time=equal_time,
            methods=[method for method in self.methods if method in methods],
            roles={method: role for method, role in self.roles.items() if method in methods},
        )

    @property
    def control(self) -> str | None:
        """The method trained without a teacher, if the study has one."""
        return _with_role(self.roles, "control")

    @property
    def baseline(self) -> str | None:
        """The method every other is also compared with, if the study has one."""
        return _with_role(self.roles, "baseline")


def load(results: Results) -> Study:
    """Read the manifest and the records that belong to it.

    Raises:
        KdbenchError: no manifest, or records of different protocols, which no table may mix.
    """
    manifest = results.manifest()
    roles = manifest["roles"]
    methods = sorted(manifest["methods"], key=lambda method: ROLES.index(roles[method]))
    reading = _Reading(manifest)
    for record in results.cells():
        reading.add(record)
    planned = {measurement["key"]: measurement for measurement in manifest["throughput"]}
    every_timing = list(results.throughput())
    timings = [record for record in every_timing if is_planned(record, planned)]
    _refuse_mixture("protocol", {manifest["protocol"], *reading.protocols})
    _refuse_mixture("split", reading.splits)
    _refuse_mixture("timing_protocol", {record["timing_protocol"] for record in timings})
    cells = _in_order(reading.cell_frame(roles), manifest["pairs"], methods)
    used = reading.environments | {record["environment"] for record in timings}
    return Study(
        manifest=manifest,
        cells=cells,
        throughput=_in_order(_throughput_frame(timings), manifest["pairs"], methods),
        curves=reading.curve_frame(manifest["pairs"], methods),
        equal_time=_equal_time_frame(results, manifest, cells),
        environments={key: value for key, value in results.environments().items() if key in used},
        pairs=list(manifest["pairs"]),
        methods=methods,
        roles=roles,
        groups=_groups(manifest),
        curve_split=reading.curve_split,
        ignored=reading.ignored + len(every_timing) - len(timings),
        dates=_span(reading.dates | {record["date"] for record in timings if "date" in record}),
    )


def _span(days: set[str]) -> tuple[str, ...]:
    return (min(days), max(days)) if days else ()


def _refuse_mixture(field: str, values: set[str]) -> None:
    different = sorted(values)
    if len(different) > 1:
        raise KdbenchError(
            f"the records mix {field} {' and '.join(different)}, which cannot be compared; "
            "run again into another folder with --out"
        )


def _with_role(roles: Mapping[str, Role], role: Role) -> str | None:
    return next((method for method, its in roles.items() if its == role), None)


def _groups(manifest: Manifest) -> dict[Group, list[str]]:
    hetero = set(manifest["hetero"])
    kinds: list[tuple[Group, list[str]]] = [
        ("heterogeneous", [pair for pair in manifest["pairs"] if pair in hetero]),
        ("homogeneous", [pair for pair in manifest["pairs"] if pair not in hetero]),
    ]
    return {group: pairs for group, pairs in kinds if pairs}


class _Reading:
    """What is kept of the cell records: they are read one by one, because thousands of them do not fit in memory."""

    def __init__(self, manifest: Manifest) -> None:
        self.protocols: set[str] = set()
        self.splits: set[str] = set()
        self.environments: set[str] = set()
        self.dates: set[str] = set()
        self.curve_split: Split = "test"
        """One for all: the keys of a plan do not mix them."""
        self.ignored = 0
        self._manifest = manifest
        self._planned = {cell["key"]: cell for cell in manifest["cells"]}
        self._rows: dict[str, dict[str, Any]] = {}
        self._curves: dict[str, tuple[list[int], list[float]]] = {}

    def add(self, record: CellRecord) -> None:
        """Keep what the frames hold of `record`, if it is planned."""
        key = record["key"]
        if not is_planned(record, self._planned):
            self.ignored += 1
            return
        self.protocols.add(record["protocol"])
        self.environments.add(record["environment"])
        self.dates |= {record["date"]} if "date" in record else set()
        row = {name: record[name] for name in _OWN_COLUMNS if name in record}
        row |= {
            "teacher": record["teacher"]["name"],
            "student": record["student"]["name"],
            "teacher_top1": record["teacher"]["top1"],
            "student_parameters": record["student"].get("parameters"),
        }
        row |= {f"seconds_{phase}": value for phase, value in record.get("seconds", {}).items()}
        self._rows[key] = row
        if record["status"] == "done":
            self.splits.add(record["split"])
            if "curves" in record:
                self._curves[key] = record["curves"]["eval_epoch"], record["curves"]["eval_top1"]
                self.curve_split = record["curves"]["eval_split"]

    def cell_frame(self, roles: Mapping[str, Role]) -> pd.DataFrame:
        """One row a planned cell (`CELL_COLUMNS`, then `seconds_<phase>`)."""
        rows = []
        for key, cell in self._planned.items():
            teacher, _, student = cell["pair"].partition(":")
            missing = {"teacher": teacher, "student": student, "status": MISSING}
            rows.append(
                (self._rows.get(key) or missing)
                | cell
                | {
                    "suite": self._manifest["suite"],
                    "protocol": self._manifest["protocol"],
                    "role": roles[cell["method"]],
                }
            )
        phases = sorted(set().union(*self._rows.values()) - set(CELL_COLUMNS))
        frame = pd.DataFrame(rows, columns=[*CELL_COLUMNS, *phases])
        return frame.astype(dict.fromkeys(("top1", "top5", "best_top1", "teacher_top1"), "float64")).astype(
            dict.fromkeys(("student_parameters", "best_epoch", "evaluated", "extra_parameters"), "Int64")
        )

    def curve_frame(self, pairs: Sequence[str], methods: Sequence[str]) -> pd.DataFrame:
        """Every evaluation of the learning curves, in the order of the study; pair and method are categorical."""
        pair_order, method_order = ({name: i for i, name in enumerate(names)} for names in (pairs, methods))
        cells = [self._planned[key] for key in self._curves]
        places = np.array(
            [(pair_order[cell["pair"]], method_order[cell["method"]], cell["seed"]) for cell in cells], dtype=np.int64
        ).reshape(-1, 3)
        order = np.lexsort(places.T[::-1])
        curves = list(self._curves.values())
        curves = [curves[i] for i in order]
        repeated = np.repeat(places[order], [len(epochs) for epochs, _ in curves], axis=0)
        return pd.DataFrame(
            {
                "pair": pd.Categorical.from_codes(repeated[:, 0], categories=pd.Index(pairs)),
                "method": pd.Categorical.from_codes(repeated[:, 1], categories=pd.Index(methods)),
                "seed": repeated[:, 2],
                "epoch": np.fromiter(chain.from_iterable(epochs for epochs, _ in curves), np.int64),
                "top1": np.fromiter(chain.from_iterable(top1 for _, top1 in curves), np.float64),
            }
        )


def _throughput_frame(records: list[ThroughputRecord]) -> pd.DataFrame:
    rows = [{name: record.get(name) for name in THROUGHPUT_COLUMNS} for record in records]
    return pd.DataFrame(rows, columns=THROUGHPUT_COLUMNS).astype(
        dict.fromkeys(("batch_size", "peak_memory", "extra_parameters", "inference_parameters"), "Int64")
    )


def _equal_time_frame(results: Results, manifest: Manifest, cells: pd.DataFrame) -> pd.DataFrame:
    worth = manifest.get("equal_time", {})
    control = _with_role(manifest["roles"], "control") or ""
    own = _top1(cells, control)
    longer = {
        epochs: _top1(load(folder).cells, control)
        for epochs in {count for by_method in worth.values() for count in by_method.values()}
        if (folder := results.at_epochs(epochs)).manifest_path.is_file()
    }
    rows = []
    for pair, by_method in worth.items():
        for method, epochs in by_method.items():
            # Where a method takes no longer than the control does, that is the control itself.
            top1 = own if epochs == by_method[control] else longer.get(epochs, {})
            if method != control:
                rows += [(pair, method, epochs, seed, top1.get((pair, seed), math.nan)) for seed in manifest["seeds"]]
    return pd.DataFrame(rows, columns=EQUAL_TIME_COLUMNS)


def _top1(cells: pd.DataFrame, method: str) -> dict[tuple[str, int], float]:
    """Top-1 of a method's finished cells, by pair and seed."""
    done = cells[(cells["method"] == method) & (cells["status"] == "done")]
    return dict(zip(zip(done["pair"], done["seed"], strict=True), done["top1"], strict=True))


def _in_order(frame: pd.DataFrame, pairs: list[str], methods: list[str]) -> pd.DataFrame:
    """Rows by pair, then method, in the order of the study; then by seed where there is one."""
    codes = [
        pd.Categorical(frame[name], categories=order).codes for name, order in (("pair", pairs), ("method", methods))
    ]
    seeds = [frame["seed"].to_numpy()] if "seed" in frame else []
    return frame.iloc[np.lexsort([*seeds, *codes[::-1]])].reset_index(drop=True)
