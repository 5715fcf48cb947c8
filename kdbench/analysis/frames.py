"""Reading a results folder into one `Study`: every planned cell is a row, the missing ones too."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import pandas as pd

from kdbench.errors import KdbenchError
from kdbench.records import (
    CellRecord,
    Manifest,
    PlannedCell,
    Results,
    Role,
    Split,
    ThroughputRecord,
)

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
THROUGHPUT_COLUMNS = [
    *("pair", "method", "role", "status", "error", "environment", "batch_size"),
    *("blocks", "control_blocks", "baseline_blocks", "phases", "peak_memory", "extra_parameters"),
    *("flops", "matmul_flops"),
]


@dataclass(frozen=True)
class Study:
    """What a results folder holds of the study its manifest plans.

    Attributes:
        manifest: the plan.
        cells: one row a planned cell, by pair, method, seed (`CELL_COLUMNS`, then `seconds_<phase>`);
            accuracies in percent. A cell without a record has status "missing" and NaN elsewhere.
        throughput: one row a measured (pair, method), `THROUGHPUT_COLUMNS`; lists and dicts are the records'.
        curves: accuracy by epoch on `curve_split`: pair, method, seed, epoch, top1 (percent).
        environments: descriptions of the environments that the records above name, by id.
        pairs: in the manifest's order.
        methods: the control, the baseline, then the others in the manifest's order.
        roles: what each method is.
        groups: the pairs of each kind that has any.
        curve_split: what the learning curves are measured on.
        ignored: how many records of other settings or machines the folder holds beside those planned.
    """

    manifest: Manifest
    cells: pd.DataFrame
    throughput: pd.DataFrame
    curves: pd.DataFrame
    environments: dict[str, dict[str, Any]]
    pairs: list[str]
    methods: list[str]
    roles: dict[str, Role]
    groups: dict[Group, list[str]]
    curve_split: Split
    ignored: int

    @property
    def differs(self) -> dict[str, str]:
        """The methods of the open division, with what each does that the closed one fixes."""
        return {name: what for name, what in self.manifest.get("differs", {}).items() if name in self.methods}

    def only(self, methods: Collection[str]) -> "Study":
        """The same about some of the methods."""
        frames = (self.cells, self.throughput, self.curves)
        cells, throughput, curves = (frame[frame["method"].isin(methods)].reset_index(drop=True) for frame in frames)
        return replace(
            self,
            cells=cells,
            throughput=throughput,
            curves=curves,
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
    planned = {cell["key"]: cell for cell in manifest["cells"]}
    found = list(results.cells())
    records = {record["key"]: record for record in found if record["key"] in planned}
    planned_timings = {measurement["key"] for measurement in manifest["throughput"]}
    every_timing = list(results.throughput())
    timings = [record for record in every_timing if record["key"] in planned_timings]
    _refuse_mixture("protocol", [manifest["protocol"], *(record["protocol"] for record in records.values())])
    _refuse_mixture("split", [record["split"] for record in records.values() if record["status"] == "done"])
    _refuse_mixture("timing_protocol", [record["timing_protocol"] for record in timings])

    roles = manifest["roles"]
    methods = sorted(manifest["methods"], key=lambda method: ROLES.index(roles[method]))
    cells = _cell_frame(manifest, planned, records, roles)
    used = {record["environment"] for record in [*records.values(), *timings]}
    return Study(
        manifest=manifest,
        cells=_in_order(cells, manifest["pairs"], methods),
        throughput=_in_order(_throughput_frame(timings), manifest["pairs"], methods),
        curves=_in_order(_curve_frame(records.values()), manifest["pairs"], methods),
        environments={key: value for key, value in results.environments().items() if key in used},
        pairs=list(manifest["pairs"]),
        methods=methods,
        roles=roles,
        groups=_groups(manifest),
        curve_split=_curve_split(records.values()),
        ignored=len(found) - len(records) + len(every_timing) - len(timings),
    )


def _refuse_mixture(field: str, values: list[str]) -> None:
    different = sorted(set(values))
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


def _cell_frame(
    manifest: Manifest,
    planned: Mapping[str, PlannedCell],
    records: Mapping[str, CellRecord],
    roles: Mapping[str, Role],
) -> pd.DataFrame:
    rows = []
    phases: set[str] = set()
    for key, cell in planned.items():
        teacher, _, student = cell["pair"].partition(":")
        row: dict[str, Any] = {
            **cell,
            "suite": manifest["suite"],
            "protocol": manifest["protocol"],
            "teacher": teacher,
            "student": student,
            "role": roles[cell["method"]],
            "status": MISSING,
        }
        record = records.get(key)
        if record is not None:
            row = {name: value for name, value in record.items() if name in CELL_COLUMNS} | row
            row |= {
                "status": record["status"],
                "teacher": record["teacher"]["name"],
                "student": record["student"]["name"],
                "teacher_top1": record["teacher"]["top1"],
                "student_parameters": record["student"].get("parameters"),
            }
            seconds = record.get("seconds", {})
            row |= {f"seconds_{phase}": value for phase, value in seconds.items()}
            phases |= seconds.keys()
        rows.append(row)
    frame = pd.DataFrame(rows, columns=[*CELL_COLUMNS, *(f"seconds_{phase}" for phase in sorted(phases))])
    return frame.astype(dict.fromkeys(("top1", "top5", "best_top1", "teacher_top1"), "float64")).astype(
        dict.fromkeys(("student_parameters", "best_epoch", "evaluated", "extra_parameters"), "Int64")
    )


def _throughput_frame(records: list[ThroughputRecord]) -> pd.DataFrame:
    rows = [{name: record.get(name) for name in THROUGHPUT_COLUMNS} for record in records]
    return pd.DataFrame(rows, columns=THROUGHPUT_COLUMNS).astype(
        dict.fromkeys(("batch_size", "peak_memory", "extra_parameters"), "Int64")
    )


def _curve_frame(records: Iterable[CellRecord]) -> pd.DataFrame:
    rows = [
        (record["pair"], record["method"], record["seed"], epoch, top1)
        for record in records
        if record["status"] == "done" and "curves" in record
        for epoch, top1 in zip(record["curves"]["eval_epoch"], record["curves"]["eval_top1"], strict=True)
    ]
    return pd.DataFrame(rows, columns=["pair", "method", "seed", "epoch", "top1"])


def _curve_split(records: Iterable[CellRecord]) -> Split:
    """One for all: the keys of a plan do not mix them."""
    for record in records:
        if "curves" in record:
            return record["curves"].get("eval_split", record["split"])
    return "test"


def _in_order(frame: pd.DataFrame, pairs: list[str], methods: list[str]) -> pd.DataFrame:
    """Rows by pair, then method, in the order of the study; then by seed and epoch where there are such."""
    orders = {"pair": pairs, "method": methods}
    by = [name for name in ("pair", "method", "seed", "epoch") if name in frame.columns]
    ranked = frame[by].assign(**{name: frame[name].map(order.index) for name, order in orders.items()})
    return frame.loc[ranked.sort_values(by, kind="stable").index].reset_index(drop=True)
