"""Self-checking methods on pairs, for people: `kdbench verify`."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from kdbench.errors import UnsupportedPair, describe
from kdbench.study.plan import Plan
from kdbench.training.arena import Arena
from kdbench.training.device import Compute
from kdbench.training.selfcheck import Check, passed


@dataclass(frozen=True)
class Verdict:
    """What came of a method on a pair; `reason` says why it was not checked."""

    method: str
    pair: str
    status: Literal["passed", "failed", "unsupported"]
    checks: tuple[Check, ...] = ()
    reason: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def verify(plan: Plan, compute: Compute, data_root: Path) -> Iterator[Verdict]:
    """The verdict of every method of a plan on every pair of it."""
    for pair in plan.pairs:
        arena = Arena.enter(plan.suite, pair, 0, plan.split, compute, data_root)
        for method in plan.methods:
            try:
                contender = arena.contender(method.name, method.plugin.method, method.hyperparameters)
                checks = tuple(arena.check(contender))
                status = "passed" if passed(list(checks)) else "failed"
                yield Verdict(method.name, pair.name, status, checks)
            except UnsupportedPair as reason:
                yield Verdict(method.name, pair.name, "unsupported", reason=str(reason))
            except Exception as error:
                yield Verdict(method.name, pair.name, "failed", reason=describe(error))
