"""Self-checking methods on pairs, for people: `kdbench verify`."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from kdbench.compute.device import Compute
from kdbench.compute.failures import ending
from kdbench.errors import KdbenchError
from kdbench.models.parameters import count_parameters
from kdbench.study.plan import MethodPlan
from kdbench.suites.schema import PairSpec, Suite
from kdbench.training.arena import Arena
from kdbench.training.selfcheck import Check, passed


@dataclass(frozen=True)
class SelfCheckVerdict:
    """What came of a method on a pair.

    Attributes:
        reason: why it was not checked.
        without_data: why noise and fresh weights took the place of data and trained teacher; None where they did not.
        parameters: of teacher, student and projectors.
    """

    method: str
    pair: str
    status: Literal["passed", "failed", "unsupported"]
    checks: tuple[Check, ...] = ()
    reason: str = ""
    without_data: str | None = None
    parameters: tuple[int, int, int] | None = None

    def as_dict(self) -> dict[str, Any]:
        """The verdict as a dict that JSON can hold."""
        return asdict(self)


def self_check_methods(
    suite: Suite, pairs: Sequence[PairSpec], methods: Sequence[MethodPlan], compute: Compute, data_root: Path
) -> Iterator[SelfCheckVerdict]:
    """The verdict of every method on every pair; it takes neither data nor trained teachers, but uses them if there."""
    for pair in pairs:
        without_data = None
        try:
            arena = Arena.enter(suite, pair, 0, "test", compute, data_root)
        except KdbenchError as missing:
            without_data = str(missing)
            arena = Arena.without_data(suite, pair, compute)
        for method in methods:
            try:
                # What a method does to its copy of the teacher, the next one does not see.
                stage = arena.with_own_teacher()
                contender = stage.contender(method.name, method.plugin.method, method.hyperparameters)
                teacher, student = count_parameters(arena.teacher), count_parameters(contender.student)
                parameters = (teacher, student, contender.extra_parameters)
                checks = tuple(stage.check(contender))
                status = "passed" if passed(list(checks)) else "failed"
                yield SelfCheckVerdict(method.name, pair.name, status, checks, "", without_data, parameters)
            except Exception as error:
                ended, reason = ending(error)
                status = "unsupported" if ended == "unsupported" else "failed"
                yield SelfCheckVerdict(method.name, pair.name, status, (), reason, without_data)
