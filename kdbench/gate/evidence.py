"""What a results folder holds for the gate: the records that its manifest plans, by (pair, method) and seed."""

from dataclasses import dataclass
from typing import Any

from kdbench.results.consistency import is_planned
from kdbench.results.records import CellRecord, Manifest, Results, ThroughputRecord

Place = tuple[str, str]
"""(pair, method)."""

MACHINE = ("device", "torch", "timm", "threads", "compile", "precision")
"""What of an environment must agree for results to be the same to the last bit."""


@dataclass(frozen=True)
class Evidence:
    """The records of a results folder.

    Attributes:
        planned: seeds planned for each (pair, method), in order.
        cells: the records there are of those, by seed.
        timings: throughput records, of those planned.
        environments: descriptions by id.
    """

    manifest: Manifest
    planned: dict[Place, list[int]]
    cells: dict[Place, dict[int, CellRecord]]
    timings: dict[Place, ThroughputRecord]
    environments: dict[str, dict[str, Any]]

    @property
    def control(self) -> str | None:
        """The method trained without a teacher."""
        return next((name for name, role in self.manifest["roles"].items() if role == "control"), None)

    def done(self, place: Place) -> dict[int, CellRecord]:
        """The finished records of a place, by seed, in order; none for a place that was not planned."""
        return {
            seed: record for seed, record in sorted(self.cells.get(place, {}).items()) if record["status"] == "done"
        }

    def unsupported(self, place: Place) -> bool:
        """Whether the method has said of the pair, in every record there is, that it does not support it."""
        return {record["status"] for record in self.cells.get(place, {}).values()} == {"unsupported"}

    def machine(self, record: CellRecord) -> dict[str, Any]:
        """What of the environment of a record its numbers depend on."""
        return machine(self.environments.get(record["environment"], {}))


def read(results: Results) -> Evidence:
    """Read the records that the manifest of `results` plans.

    Raises:
        KdbenchError: no manifest, or a record that cannot be read.
    """
    manifest = results.manifest()
    keys = {cell["key"]: cell for cell in manifest["cells"]}
    timed = {measurement["key"]: measurement for measurement in manifest["throughput"]}
    planned: dict[Place, list[int]] = {}
    for cell in manifest["cells"]:
        planned.setdefault((cell["pair"], cell["method"]), []).append(cell["seed"])
    cells: dict[Place, dict[int, CellRecord]] = {place: {} for place in planned}
    for record in results.cells():
        if is_planned(record, keys):
            cells[record["pair"], record["method"]][record["seed"]] = record
    timings = {(one["pair"], one["method"]): one for one in results.throughput() if is_planned(one, timed)}
    return Evidence(
        manifest=manifest,
        planned={place: sorted(seeds) for place, seeds in planned.items()},
        cells=cells,
        timings=timings,
        environments=results.environments(),
    )


def machine(environment: dict[str, Any]) -> dict[str, Any]:
    """The part of an environment's description that decides whether results are the same to the last bit."""
    return {name: environment.get(name) for name in MACHINE}


def last_losses(record: CellRecord) -> dict[str, float]:
    """Every loss term in the last epoch of a finished record."""
    return {term: values[-1] for term, values in record.get("curves", {}).get("loss", {}).items()}
