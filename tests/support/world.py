"""Results folders for the gate: invented numbers whose truth is known, the same for the same seed."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kdbench.files import content_key
from kdbench.results.folder import CellId, Results
from kdbench.results.schema import SCHEMA, TIMING_PROTOCOL, Role
from tests.support.synthetic import ENVIRONMENT, Plan, cell_key, cell_record, environment, timing_key

PAIRS = ["vit-t:resnet-s", "mixer-t:resnet-s"]
METHODS = ["scratch", "kd", "ofa"]
SIGMA = 0.5
EPOCHS = 16
LOSS_SIGMA = 0.02


def write_json(path: Path, value: Any) -> None:
    """As `kdbench.files.write_json` writes it, without waiting for the disk: there are many."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


@dataclass
class World:
    """What is true, and what is recorded of it.

    Attributes:
        shift: points of top-1 by method, on every pair.
        loss_shift: of the last cross-entropy by method.
        speed: images/s over the control's.
        numerics: another number gives other noise to the same seeds, as another order of additions would.
        changed: fields to put over a record, by (pair, method, seed).
        missing: records that are planned and not there.
    """

    seeds: Sequence[int] = tuple(range(20))
    methods: Sequence[str] = tuple(METHODS)
    pairs: Sequence[str] = tuple(PAIRS)
    shift: dict[str, float] = field(default_factory=dict)
    loss_shift: dict[str, float] = field(default_factory=dict)
    speed: dict[str, float] = field(default_factory=dict)
    numerics: int = 0
    protocol: str = "proxy/1"
    changed: dict[tuple[str, str, int], dict[str, Any]] = field(default_factory=dict)
    missing: Sequence[tuple[str, str, int]] = ()
    throughput: bool = True
    dirty: bool = False

    def role(self, method: str) -> Role:
        roles: dict[str, Role] = {"scratch": "control", "kd": "baseline"}
        return roles.get(method, "method")

    def top1(self, pair: str, method: str, seed: int) -> float:
        """Accuracy of a cell: half of its variance is shared with the other methods of the seed."""
        shared, own = self._noise(pair, seed), self._noise(pair, seed, method)
        return 75 + self.shift.get(method, 0.0) + SIGMA * (shared + own) / np.sqrt(2)

    def losses(self, pair: str, method: str, seed: int) -> dict[str, list[float]]:
        """Loss terms by epoch: they fall, and end at their level with some noise."""
        last = 0.5 + self.loss_shift.get(method, 0.0) + LOSS_SIGMA * self._noise(pair, seed, method, "loss")
        terms = {"ce": np.linspace(2.0, last, EPOCHS).tolist()}
        return terms if method == "scratch" else terms | {"kd": np.linspace(1.0, last / 2, EPOCHS).tolist()}

    def _noise(self, *what: object) -> float:
        return np.random.default_rng(int(content_key([self.numerics, *what])[:12], 16)).normal()

    def write(self, folder: Path) -> Results:
        """Write manifest, cells, throughput and environment."""
        results = Results(folder)
        write_json(
            results.environment_path(ENVIRONMENT), environment() | {"git": {"revision": "0" * 40, "dirty": self.dirty}}
        )
        places = [(pair, method) for pair in self.pairs for method in self.methods]
        manifest = {
            "schema": SCHEMA,
            "suite": "proxy",
            "protocol": self.protocol,
            "command": "kdbench run",
            "methods": list(self.methods),
            "pairs": list(self.pairs),
            "seeds": list(self.seeds),
            "roles": {method: self.role(method) for method in self.methods},
            "hetero": list(self.pairs),
            "cells": [
                {"key": cell_key(*place, seed), "pair": place[0], "method": place[1], "seed": seed}
                for place in places
                for seed in self.seeds
            ],
            "throughput": [
                {"key": timing_key(*place), "pair": place[0], "method": place[1]} for place in places if self.throughput
            ],
        }
        write_json(results.manifest_path, manifest)
        for pair, method in places:
            for seed in self.seeds:
                if (pair, method, seed) not in self.missing:
                    record = self._cell(pair, method, seed)
                    write_json(results.record_path(CellId(pair, method, seed, record["key"])), record)
            if self.throughput:
                record = self._timing(pair, method)
                write_json(results.throughput_path(pair, method, record["key"]), record)
        return results

    def _cell(self, pair: str, method: str, seed: int) -> dict[str, Any]:
        plan = Plan(protocol=self.protocol)
        top1, epochs = self.top1(pair, method, seed), list(range(1, EPOCHS + 1))
        record = cell_record(plan, (pair, method, seed)) | {
            "hyperparameters": {} if method == "scratch" else {"temperature": 1.0},
            "top1": top1,
            "best_top1": top1,
            "best_epoch": EPOCHS,
            "correct": "f" * 336,
            "evaluated": 2000,
            "curves": {
                "epoch": epochs,
                "lr": [0.1] * EPOCHS,
                "loss": self.losses(pair, method, seed),
                "eval_epoch": [EPOCHS],
                "eval_top1": [top1],
                "eval_split": "test",
            },
            "seconds": {"setup": 0.5, "group": 30.0},
        }
        return record | self.changed.get((pair, method, seed), {})

    def _timing(self, pair: str, method: str) -> dict[str, Any]:
        random = np.random.default_rng(int(content_key([self.numerics, pair, method, "timing"])[:12], 16))
        control = 1000 * random.uniform(0.8, 1.2, 12)
        factor = self.speed.get(method, 1.0 if method == "scratch" else 0.6)
        own = control * factor * random.normal(1, 0.03, 12)
        return {
            "schema": SCHEMA,
            "key": timing_key(pair, method),
            "timing_protocol": TIMING_PROTOCOL,
            "suite": "proxy",
            "pair": pair,
            "method": method,
            "role": self.role(method),
            "status": "done",
            "error": None,
            "environment": ENVIRONMENT,
            "batch_size": 25,
            "blocks": own.tolist(),
            "control_blocks": control.tolist(),
        }
