"""What dashboards show of a cell: configuration, curves and final metrics, as far as it is."""

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from kdbench.analysis.cost import PairCost, pair_costs
from kdbench.analysis.gains import Accuracies
from kdbench.results.folder import CellId, Results, read_record
from kdbench.results.locks import is_claimed
from kdbench.results.schema import FINISHED, CellRecord, Curves, PlannedCell
from kdbench.results.status import BEGUN, RUNNING
from kdbench.results.study import Study, load_study

Points = list[tuple[int, float]]
"""A value after so many epochs each."""

_FACTS = ("hetero", "method", "role", "differs", "preset", "tuned", "seed", "status", "error", "date")
_METRICS = ("top1", "top5", "best_top1", "best_epoch", "extra_parameters", "inference_parameters")
_MIB = 2**20


@dataclass(frozen=True)
class TrackedCell:
    """A cell that has begun, or ended.

    Attributes:
        key: of the cell, see `kdbench.results.folder.CellId`.
        status: of its record; `running` or `begun` where there is none to speak of.
        config: what was run, and on what; `hyperparameters` and `environment` are dictionaries.
        curves: by name: `loss` (the sum), `loss/TERM`, `lr`, `top1/SPLIT` in percent.
        final: by name, for a cell that is done: accuracies in percent, `final/gain` and `final/gain_over_baseline` in
            points over the same pair and seed, and what was measured of its method on its pair.
    """

    key: str
    pair: str
    method: str
    seed: int
    status: str
    config: dict[str, Any]
    curves: dict[str, Points] = field(default_factory=dict)
    final: dict[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.pair}/{self.method}/{self.seed}"

    @property
    def epochs(self) -> int:
        """The number of finished epochs."""
        return max((points[-1][0] for points in self.curves.values() if points), default=0)

    @property
    def failed(self) -> bool:
        """Whether it ended without an accuracy."""
        return self.status not in ("done", RUNNING, BEGUN)

    @property
    def fingerprint(self) -> str:
        """Changes with anything that is shown."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Tracking:
    """A results folder at one moment.

    Attributes:
        cells: those that there is something of, in the order of the plan.
        waiting: number of planned cells and throughput measurements without a record.
    """

    cells: Iterator[TrackedCell]
    waiting: int


def tracked(results: Results) -> Tracking:
    """What there is to show of a run, also while it is at work.

    Raises:
        KdbenchError: the folder holds no run, or a file of it is broken.
    """
    study = load_study(results)
    measured = {(row.pair, row.method) for row in study.throughput.itertuples()}
    to_measure = {(one["pair"], one["method"]) for one in study.manifest["throughput"]}
    waiting = int((study.cells["status"] == "missing").sum()) + len(to_measure - measured)
    return Tracking(_cells(results, study), waiting)


def _cells(results: Results, study: Study) -> Iterator[TrackedCell]:
    accuracies = Accuracies(study)
    costs = {(cost.pair, cost.method): cost for cost in pair_costs(study)}
    for planned in study.manifest["cells"]:
        cell = CellId(**planned)
        path = results.record_path(cell)
        record = read_record(path) if path.is_file() else None
        busy = is_claimed(results.lock_path(cell))
        if record is None or (busy and record["status"] not in FINISHED):
            curves = _curves_so_far(results, cell)
            if curves is not None:
                yield _begun(planned, study, curves, RUNNING if busy else BEGUN)
                continue
        if record is not None:
            environment = study.environments.get(record["environment"], {})
            final = _final(record, study, accuracies, costs[record["pair"], record["method"]])
            yield _ended(record, environment, study.manifest["command"], final)


def _curves_so_far(results: Results, cell: CellId) -> Curves | None:
    if not results.checkpoints(cell):
        return None
    # Reads with torch, which a run without checkpoints does not need.
    from kdbench.training.checkpoint import unfinished_curves

    return unfinished_curves(results, cell)


def _begun(planned: PlannedCell, study: Study, curves: Curves, status: str) -> TrackedCell:
    """A cell of which there is a checkpoint, and no more is known than the plan and the curves so far."""
    manifest, method = study.manifest, planned["method"]
    config = {"suite": manifest["suite"], "protocol": manifest["protocol"], "role": study.roles[method]}
    config |= {"command": manifest["command"], "status": status, **planned}
    return TrackedCell(**planned, status=status, config=config, curves=_named(curves))


def _ended(record: CellRecord, environment: dict[str, Any], command: str, final: dict[str, float]) -> TrackedCell:
    fields: dict[str, Any] = {**record}
    config = {name: fields[name] for name in ("suite", "protocol", "split", "pair")}
    for end in ("teacher", "student"):
        config |= {end: fields[end]["name"], **{f"{end}_{fact}": fields[end][fact] for fact in ("timm", "kind")}}
    config |= {f"teacher_{fact}": fields["teacher"][fact] for fact in ("top1", "sha256")}
    config |= {fact: fields[fact] for fact in _FACTS if fields.get(fact) is not None}
    config |= {"hyperparameters": record["hyperparameters"], "environment": environment}
    config |= {"command": command, "key": record["key"]}
    curves = _named(record["curves"]) if "curves" in record else {}
    cell_id = record["key"], record["pair"], record["method"], record["seed"]
    return TrackedCell(*cell_id, status=record["status"], config=config, curves=curves, final=final)


def _named(curves: Curves) -> dict[str, Points]:
    """The curves as dashboards call them."""
    epochs, terms, named = curves["epoch"], curves["loss"], {}
    if terms:
        named["loss"] = list(zip(epochs, map(sum, zip(*terms.values(), strict=True)), strict=True))
    named |= {f"loss/{term}": list(zip(epochs, values, strict=True)) for term, values in terms.items()}
    named["lr"] = list(zip(epochs, curves["lr"], strict=True))
    named[f"top1/{curves['eval_split']}"] = list(zip(curves["eval_epoch"], curves["eval_top1"], strict=True))
    return {name: points for name, points in named.items() if points}


def _final(record: CellRecord, study: Study, accuracies: Accuracies, cost: PairCost) -> dict[str, float]:
    if record["status"] != "done":
        return {}
    fields: dict[str, Any] = {**record}
    pair, method, seed = record["pair"], record["method"], record["seed"]
    values = {name: fields.get(name) for name in _METRICS} | {
        "gain": accuracies.differences(pair, method, study.control).get(seed),
        "throughput_ratio": cost.to_control.value,
        "images_per_second": cost.images,
        "peak_memory_mib": None if cost.peak_memory is None else cost.peak_memory / _MIB,
    }
    if record["role"] == "method":
        values["gain_over_baseline"] = accuracies.differences(pair, method, study.baseline).get(seed)
    return {f"final/{name}": value for name, value in values.items() if value is not None and math.isfinite(value)}
