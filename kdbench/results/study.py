"""The study in a results folder: the records that its manifest plans, and the tables that are made of them."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from kdbench.errors import KdbenchError
from kdbench.files import content_key
from kdbench.names import pair_ends
from kdbench.results.folder import Results
from kdbench.results.schema import CellRecord, Manifest, PlannedCell, Role, Split, ThroughputRecord, is_planned

if TYPE_CHECKING:
    import pandas as pd

MISSING = "missing"
"""Status of a planned cell without a record."""

ROLES: tuple[Role, ...] = ("control", "baseline", "method")
"""In the order of the tables."""
Group = Literal["heterogeneous", "homogeneous"]
PairMethod = tuple[str, str]
"""A pair and a method, by their names."""
CellKey = tuple[str, str, int]
"""A pair, a method and a seed."""

CELL_COLUMNS = [
    "key",
    "suite",
    "protocol",
    "pair",
    "teacher",
    "student",
    "hetero",
    "teacher_top1",
    "student_parameters",
    "method",
    "role",
    "seed",
    "split",
    "status",
    "error",
    "environment",
    "top1",
    "top5",
    "best_top1",
    "best_epoch",
    "evaluated",
    "majority",
    "macro_top1",
    "worst_class_top1",
    "extra_parameters",
]
CLASS_COLUMNS = ("majority", "macro_top1", "worst_class_top1")
"""What the classes say: top-1 of always the largest class, mean top-1 of the classes, and that of the worst class."""
_OWN_COLUMNS = [
    "hetero",
    "split",
    "status",
    "error",
    "environment",
    "top1",
    "top5",
    "best_top1",
    "best_epoch",
    "evaluated",
    "majority",
    "extra_parameters",
]
"""Those that a cell's record holds as they are; the plan has the others."""
THROUGHPUT_COLUMNS = [
    "pair",
    "method",
    "role",
    "timing_protocol",
    "status",
    "error",
    "environment",
    "batch_size",
    "blocks",
    "control_blocks",
    "baseline_blocks",
    "phases",
    "phases_to_step",
    "peak_memory",
    "extra_parameters",
    "inference_parameters",
    "flops",
    "matmul_flops",
    "clean",
    "unclean",
    "repeated",
]
EQUAL_TIME_COLUMNS = ["pair", "method", "epochs", "seed", "top1"]


@dataclass(frozen=True)
class Study:
    """What a results folder holds of the study that its manifest plans.

    Attributes:
        manifest: the plan.
        records: those of planned cells, without the hits by image (`correct`).
        measurements: the records of planned throughput measurements.
        longer: the control trained for as long as a method takes, by its epochs; empty unless the run asked for it.
        environments: descriptions of the environments by id.
        methods: the control, the baseline, then the others in the manifest's order.
        ignored: how many records of other settings or machines the folder holds beside those planned.
        whole: the study whose finished blocks this one is (see `finished`); None for a study by itself.
    """

    manifest: Manifest
    records: Mapping[CellKey, CellRecord]
    measurements: Mapping[PairMethod, ThroughputRecord]
    longer: Mapping[int, "Study"]
    environments: dict[str, dict[str, Any]]
    methods: list[str]
    ignored: int = 0
    whole: "Study | None" = None

    @property
    def pairs(self) -> list[str]:
        """The pairs, in the order of the manifest."""
        return list(self.manifest["pairs"])

    @cached_property
    def roles(self) -> dict[str, Role]:
        """What each method is."""
        return {method: self.manifest["roles"][method] for method in self.methods}

    @cached_property
    def groups(self) -> dict[Group, list[str]]:
        """The pairs of each kind that has any."""
        hetero = set(self.manifest["hetero"])
        kinds: list[tuple[Group, list[str]]] = [
            ("heterogeneous", [pair for pair in self.pairs if pair in hetero]),
            ("homogeneous", [pair for pair in self.pairs if pair not in hetero]),
        ]
        return {group: pairs for group, pairs in kinds if pairs}

    @property
    def control(self) -> str | None:
        """The method trained without a teacher, if the study has one."""
        return self._with_role("control")

    @property
    def baseline(self) -> str | None:
        """The method every other is also compared with, if the study has one."""
        return self._with_role("baseline")

    def _with_role(self, role: Role) -> str | None:
        return next((method for method, its in self.roles.items() if its == role), None)

    @property
    def differs(self) -> dict[str, str]:
        """The methods of the open division, with what each does that the closed one fixes."""
        return {name: what for name, what in self.manifest.get("differs", {}).items() if name in self.methods}

    @cached_property
    def run_id(self) -> str:
        """Names what was run: all that determines the planned cells and measurements is in their keys."""
        planned = [*self.manifest["cells"], *self.manifest["throughput"]]
        return content_key(sorted(entry["key"] for entry in planned))[:12]

    @cached_property
    def curve_split(self) -> Split:
        """What the learning curves are measured on: one split for all, as the keys of a plan do not mix them."""
        splits: list[Split] = [r["curves"]["eval_split"] for r in self.records.values() if "curves" in r]
        return splits[0] if splits else "test"

    @cached_property
    def dates(self) -> tuple[str, ...]:
        """First and last day (UTC, ISO 8601) on which the records were made, where they tell."""
        every = [*self.records.values(), *self.measurements.values()]
        days = {record["date"] for record in every if "date" in record}
        return (min(days), max(days)) if days else ()

    @cached_property
    def planned(self) -> dict[PairMethod, list[int]]:
        """The planned seeds of each pair and method, sorted."""
        seeds: dict[PairMethod, list[int]] = {}
        for cell in self.manifest["cells"]:
            seeds.setdefault((cell["pair"], cell["method"]), []).append(cell["seed"])
        return {pair_method: sorted(of_pair_method) for pair_method, of_pair_method in seeds.items()}

    @cached_property
    def _by_seed(self) -> dict[PairMethod, dict[int, CellRecord]]:
        by_seed: dict[PairMethod, dict[int, CellRecord]] = {pair_method: {} for pair_method in self.planned}
        for (pair, method, seed), record in sorted(self.records.items()):
            by_seed[pair, method][seed] = record
        return by_seed

    def by_seed(self, pair_method: PairMethod) -> dict[int, CellRecord]:
        """The records of a pair and method by seed, in order; none where it is not planned."""
        return self._by_seed.get(pair_method, {})

    def done(self, pair_method: PairMethod) -> dict[int, CellRecord]:
        """The finished records of a pair and method by seed, in order."""
        return {seed: record for seed, record in self.by_seed(pair_method).items() if record["status"] == "done"}

    def unsupported(self, pair_method: PairMethod) -> bool:
        """Whether every record there is of a pair and method says that the method does not support the pair."""
        return {record["status"] for record in self.by_seed(pair_method).values()} == {"unsupported"}

    @cached_property
    def blocks(self) -> dict[str, list[int]]:
        """The planned seeds of each pair, sorted; a pair and a seed are a block."""
        seeds: dict[str, set[int]] = {}
        for cell in self.manifest["cells"]:
            seeds.setdefault(cell["pair"], set()).add(cell["seed"])
        return {pair: sorted(seeds[pair]) for pair in self.pairs if pair in seeds}

    @property
    def seed_counts(self) -> tuple[int, int]:
        """The smallest and the largest number of seeds of a pair; they differ in a study of finished blocks alone."""
        counts = [len(seeds) for seeds in self.blocks.values()] or [len(self.manifest["seeds"])]
        return min(counts), max(counts)

    def finished(self) -> "Study | None":
        """The study of the blocks in which every planned cell has a record, so that all methods share their blocks.

        The study itself where most methods have all their cells: what a few others lack is then told of these alone.
        None where no block is finished.
        """
        cells, manifest = self.manifest["cells"], self.manifest
        missing = [cell for cell in cells if (cell["pair"], cell["method"], cell["seed"]) not in self.records]
        if 2 * len({cell["method"] for cell in missing}) < len(self.methods):
            return self
        left = {(cell["pair"], cell["seed"]) for cell in missing}
        kept = [cell for cell in cells if (cell["pair"], cell["seed"]) not in left]
        if not kept:
            return None
        pairs = [pair for pair in self.pairs if any(cell["pair"] == pair for cell in kept)]
        plan: Manifest = {
            **manifest,
            "pairs": pairs,
            "hetero": [pair for pair in manifest["hetero"] if pair in pairs],
            "seeds": sorted({cell["seed"] for cell in kept}),
            "cells": kept,
            "throughput": [entry for entry in manifest["throughput"] if entry["pair"] in pairs],
        }
        return replace(
            self,
            manifest=plan,
            records={key: record for key, record in self.records.items() if (key[0], key[2]) not in left},
            measurements={key: record for key, record in self.measurements.items() if key[0] in pairs},
            whole=self,
        )

    def only(self, methods: Collection[str]) -> "Study":
        """The study of some of the methods."""
        return replace(
            self,
            records={key: record for key, record in self.records.items() if key[1] in methods},
            measurements={
                pair_method: record for pair_method, record in self.measurements.items() if pair_method[1] in methods
            },
            methods=[method for method in self.methods if method in methods],
        )

    @cached_property
    def cells(self) -> "pd.DataFrame":
        """One row a planned cell, by pair, method, seed: `CELL_COLUMNS`, then `seconds_<phase>`.

        Accuracies are in percent. A cell without a record has the status "missing" and NaN elsewhere.
        """
        import pandas as pd

        rows = [self._cell_row(cell) for cell in self.manifest["cells"] if cell["method"] in self.methods]
        phases = sorted({name for row in rows for name in row if name.startswith("seconds_")})
        frame = pd.DataFrame(rows, columns=[*CELL_COLUMNS, *phases])
        frame = frame.astype(
            dict.fromkeys(("top1", "top5", "best_top1", "teacher_top1", *CLASS_COLUMNS), "float64")
        ).astype(dict.fromkeys(("student_parameters", "best_epoch", "evaluated", "extra_parameters"), "Int64"))
        return self._in_order(frame)

    def _cell_row(self, cell: PlannedCell) -> dict[str, Any]:
        record = self.records.get((cell["pair"], cell["method"], cell["seed"]))
        plan = {
            **cell,
            "suite": self.manifest["suite"],
            "protocol": self.manifest["protocol"],
            "role": self.roles[cell["method"]],
        }
        if record is None:
            teacher, student = pair_ends(cell["pair"])
            return {"teacher": teacher, "student": student, "status": MISSING, **plan}
        return {
            **{name: record[name] for name in _OWN_COLUMNS if name in record},
            **_by_class(record),
            "teacher": record["teacher"]["name"],
            "student": record["student"]["name"],
            "teacher_top1": record["teacher"]["top1"],
            "student_parameters": record["student"].get("parameters"),
            **{f"seconds_{phase}": value for phase, value in record.get("seconds", {}).items()},
            **plan,
        }

    @cached_property
    def throughput(self) -> "pd.DataFrame":
        """One row a measured (pair, method), `THROUGHPUT_COLUMNS`; lists and dicts are the records'."""
        import pandas as pd

        rows = [{name: record.get(name) for name in THROUGHPUT_COLUMNS} for record in self.measurements.values()]
        frame = pd.DataFrame(rows, columns=THROUGHPUT_COLUMNS)
        counts = ("batch_size", "peak_memory", "extra_parameters", "inference_parameters")
        return self._in_order(frame.astype(dict.fromkeys(counts, "Int64")))

    @cached_property
    def curves(self) -> "pd.DataFrame":
        """Accuracy by epoch on `curve_split`: pair, method (both categorical), seed, epoch, top1 (percent)."""
        import pandas as pd

        pair_order, method_order = ({name: i for i, name in enumerate(names)} for names in (self.pairs, self.methods))
        with_curves = [(key, record["curves"]) for key, record in self.records.items() if "curves" in record]
        with_curves.sort(key=lambda entry: (pair_order[entry[0][0]], method_order[entry[0][1]], entry[0][2]))
        codes = np.array([(pair_order[p], method_order[m], seed) for (p, m, seed), _ in with_curves], np.int64).reshape(
            -1, 3
        )
        repeated = np.repeat(codes, [len(curves["eval_epoch"]) for _, curves in with_curves], axis=0)
        return pd.DataFrame(
            {
                "pair": pd.Categorical.from_codes(repeated[:, 0], categories=pd.Index(self.pairs)),
                "method": pd.Categorical.from_codes(repeated[:, 1], categories=pd.Index(self.methods)),
                "seed": repeated[:, 2],
                "epoch": np.fromiter(chain.from_iterable(curves["eval_epoch"] for _, curves in with_curves), np.int64),
                "top1": np.fromiter(chain.from_iterable(curves["eval_top1"] for _, curves in with_curves), np.float64),
            }
        )

    @cached_property
    def equal_time(self) -> "pd.DataFrame":
        """Top-1 of the control trained for as long as a method takes, `EQUAL_TIME_COLUMNS`.

        One row a planned cell of the method; NaN where the control is not done. Empty unless the run asked for it.
        """
        import pandas as pd

        control = next((name for name, role in self.manifest["roles"].items() if role == "control"), "")
        usual = self._top1(control)
        longer = {epochs: study._top1(control) for epochs, study in self.longer.items()}
        rows = []
        for pair, by_method in self.manifest.get("equal_time", {}).items():
            for method, epochs in by_method.items():
                # Where a method takes no longer than the control does, that is the control itself.
                top1 = usual if epochs == by_method[control] else longer.get(epochs, {})
                if method != control and method in self.methods:
                    rows += [
                        (pair, method, epochs, seed, top1.get((pair, seed), math.nan))
                        for seed in self.manifest["seeds"]
                    ]
        return pd.DataFrame(rows, columns=EQUAL_TIME_COLUMNS)

    def _top1(self, method: str) -> dict[tuple[str, int], float]:
        """Top-1 of a method's finished cells, by pair and seed."""
        return {
            (pair, seed): record["top1"]
            for (pair, name, seed), record in self.records.items()
            if name == method and "top1" in record
        }

    def _in_order(self, frame: "pd.DataFrame") -> "pd.DataFrame":
        """Rows by pair, then method, in the order of the study; then by seed where there is one."""
        import pandas as pd

        codes = [
            pd.Categorical(frame[name], categories=order).codes
            for name, order in (("pair", self.pairs), ("method", self.methods))
        ]
        seeds = [frame["seed"].to_numpy()] if "seed" in frame else []
        return frame.iloc[np.lexsort([*seeds, *codes[::-1]])].reset_index(drop=True)


def _by_class(record: CellRecord) -> dict[str, float]:
    """Mean and worst accuracy of the classes in percent, where the record tells it; a class without images is none."""
    counts = zip(record.get("class_hits", []), record.get("class_images", []), strict=True)
    shares = [100 * hits / images for hits, images in counts if images]
    return {"macro_top1": sum(shares) / len(shares), "worst_class_top1": min(shares)} if shares else {}


def load_study(results: Results) -> Study:
    """Read the manifest and the records that belong to it.

    Raises:
        KdbenchError: no manifest, a record that cannot be read, or records of several protocols, which no table may
            mix.
    """
    study = read_study(results)
    records, measurements = study.records.values(), study.measurements.values()
    done = [record for record in records if record["status"] == "done"]
    _refuse_mixture("protocol", {study.manifest["protocol"], *(record["protocol"] for record in records)})
    _refuse_mixture("split", {record["split"] for record in done})
    _refuse_mixture("timing_protocol", {record["timing_protocol"] for record in measurements})
    return study


def read_study(results: Results) -> Study:
    """The same, with whatever protocols the records are of.

    Raises:
        KdbenchError: no manifest, or a record that cannot be read.
    """
    manifest = results.manifest()
    planned = {cell["key"]: cell for cell in manifest["cells"]}
    records: dict[CellKey, CellRecord] = {}
    ignored = 0
    for record in results.cells():
        if is_planned(record, planned):
            # Thousands of records fit in memory without the hits by image.
            record.pop("correct", None)
            records[record["pair"], record["method"], record["seed"]] = record
        else:
            ignored += 1
    timed = {measurement["key"]: measurement for measurement in manifest["throughput"]}
    measurements: dict[PairMethod, ThroughputRecord] = {}
    for measurement in results.throughput():
        if is_planned(measurement, timed):
            measurements[measurement["pair"], measurement["method"]] = measurement
        else:
            ignored += 1
    used = {record["environment"] for record in (*records.values(), *measurements.values())}
    return Study(
        manifest=manifest,
        records=records,
        measurements=measurements,
        longer=_longer(results, manifest),
        environments={key: value for key, value in results.environments().items() if key in used},
        methods=sorted(manifest["methods"], key=lambda method: ROLES.index(manifest["roles"][method])),
        ignored=ignored,
    )


def _longer(results: Results, manifest: Manifest) -> dict[int, Study]:
    """The control at other epochs than its recipe's."""
    worth = manifest.get("equal_time", {})
    epochs = {count for by_method in worth.values() for count in by_method.values()}
    folders = {count: results.at_epochs(count) for count in epochs}
    return {count: load_study(folder) for count, folder in folders.items() if folder.manifest_path.is_file()}


def _refuse_mixture(field: str, values: Collection[str]) -> None:
    different = sorted(values)
    if len(different) > 1:
        raise KdbenchError(
            f"the records mix {field} {' and '.join(different)}, which cannot be compared; "
            "run again into another folder with --out"
        )
