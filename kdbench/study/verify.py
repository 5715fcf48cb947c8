"""Self-checking methods on pairs, for people: `kdbench verify`."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from kdbench.analysis.published import numbers
from kdbench.compute.device import Compute
from kdbench.compute.failures import ending
from kdbench.errors import KdbenchError, unknown_name
from kdbench.hyperparameters import validate
from kdbench.method import Method
from kdbench.models.parameters import count_parameters
from kdbench.registry import Plugin
from kdbench.study.plan import MethodPlan
from kdbench.suites.loading import available, load_suite
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


def declarations(plugin: Plugin, suite: Suite) -> Check:
    """Whether what a method says of itself means something here; what it leaves to Python alone is told."""
    method, name = plugin.method, "what it says of itself"
    presets = {suite.preset, *(load_suite(known).preset for known in available())}
    try:
        for preset, values in method.presets.items():
            near = get_close_matches(preset, presets, 1)
            if preset not in presets and near:
                return Check(name, False, f"no suite has the preset '{preset}'; did you mean {near[0]}?")
            validate(f"preset '{preset}'", plugin.hyperparameters, values)
        known = {row.method for row in numbers()}
        if method.published and not known.intersection(method.published):
            raise unknown_name("published method", method.published[0], known)
    except KdbenchError as error:
        return Check(name, False, str(error))
    constants = [
        attribute
        for attribute, value in vars(method).items()
        if isinstance(value, bool | int | float | str | tuple)
        and not attribute.startswith("_")
        and attribute not in {*dir(Method), *plugin.hyperparameters.model_fields}
    ]
    told = f"without annotation, and so no hyperparameter: {', '.join(constants)}" if constants else "known names"
    return Check(name, True, told)


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
                checks = (*stage.check(contender), declarations(method.plugin, suite))
                status = "passed" if passed(list(checks)) else "failed"
                yield SelfCheckVerdict(method.name, pair.name, status, checks, "", without_data, parameters)
            except Exception as error:
                ended, reason = ending(error)
                status = "unsupported" if ended == "unsupported" else "failed"
                yield SelfCheckVerdict(method.name, pair.name, status, (), reason, without_data)
