"""A plan frozen in a file before anything is trained (pre-registration), and whether a run keeps to it."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from kdbench.analysis.stats import ALPHA
from kdbench.errors import KdbenchError
from kdbench.files import canonical_json, content_key, read_json, write_json
from kdbench.results.schema import FrozenNote, Split
from kdbench.study.plan import Plan
from kdbench.values import first_problem

RULE = (
    "Top-1 of the last epoch on the split of the plan. The gain of a method is its top-1 less that of the control, "
    "paired by pair and seed; the mean over the pairs of a kind has equal weights. A method is called better or worse "
    f"than the control, or than the baseline, if and only if the two-sided t-test at {ALPHA:.0%}, corrected by Holm "
    "for all methods, says so. What is missing gives no mean."
)
"""How a report decides."""


class _Method(BaseModel):
    model_config = ConfigDict(extra="forbid")
    role: str
    hyperparameters: dict[str, Any]
    source_sha256: str


class FrozenPlan(BaseModel):
    """What is to be run, and how it will be judged.

    Attributes:
        created: when it was frozen (UTC, ISO 8601).
        request: the options of the command line by group, from which a run makes the plan again.
        pairs: a hash of data, teacher, student and recipe of each pair.
        rule: how results are judged.
        sha256: of everything else.
    """

    model_config = ConfigDict(extra="forbid")
    version: Literal[1] = 1
    created: str
    request: dict[str, dict[str, Any]]
    suite: str
    protocol: str
    split: Split
    best: bool
    methods: dict[str, _Method]
    pairs: dict[str, str]
    seeds: list[int]
    rule: str = RULE
    sha256: str = ""

    @property
    def own_sha256(self) -> str:
        """The hash that the file should have."""
        return content_key(self.model_dump(mode="json", exclude={"sha256"}))


def freeze(plan: Plan, request: dict[str, dict[str, Any]], path: Path) -> FrozenPlan:
    """Write a plan into a file.

    Args:
        request: the options that made the plan, by group.

    Raises:
        KdbenchError: the file is there.
    """
    if path.exists():
        raise KdbenchError(f"{path} is there, and a frozen plan is never changed; choose another name")
    frozen = _described(plan, request, datetime.now(UTC).isoformat(timespec="seconds"))
    frozen.sha256 = frozen.own_sha256
    write_json(path, frozen.model_dump(mode="json"))
    return frozen


def read_frozen(path: Path) -> FrozenPlan:
    """The plan in a file.

    Raises:
        KdbenchError: it is not there, is no plan, or was changed after it was frozen.
    """
    if not path.is_file():
        raise KdbenchError(f"there is no plan {path}; freeze one with `kdbench plan --freeze {path}`")
    try:
        frozen = FrozenPlan.model_validate(read_json(path))
    except ValidationError as error:
        raise KdbenchError(f"{path} is no frozen plan: {first_problem(error)}") from error
    if frozen.sha256 != frozen.own_sha256:
        raise KdbenchError(f"{path} was changed after it was frozen; freeze a plan anew, under another name")
    return frozen


def keep_to(frozen: FrozenPlan, plan: Plan, path: Path) -> FrozenNote:
    """Look whether a plan is the frozen one, for the manifest of its run.

    Raises:
        KdbenchError: something has changed since.
    """
    today = _described(plan, frozen.request, frozen.created)
    names = ("suite", "protocol", "split", "best", "seeds")
    changed = [name for name in names if getattr(frozen, name) != getattr(today, name)]
    for what, then, now in (("method", frozen.methods, today.methods), ("pair", frozen.pairs, today.pairs)):
        changed += [f"{what} {name}" for name in dict.fromkeys([*then, *now]) if then.get(name) != now.get(name)]
    if changed:
        raise KdbenchError(
            f"since {path} was frozen on {frozen.created} these have changed: {', '.join(changed)}; go back to the "
            "code and data of that day, or freeze a new plan"
        )
    return FrozenNote(file=path.name, sha256=frozen.sha256, created=frozen.created)


def _described(plan: Plan, request: dict[str, dict[str, Any]], created: str) -> FrozenPlan:
    methods = {
        method.name: _Method(
            role=method.role,
            hyperparameters=json.loads(canonical_json(method.hyperparameters)),
            source_sha256=method.plugin.source_sha256,
        )
        for method in plan.methods
    }
    return FrozenPlan(
        created=created,
        request=request,
        suite=plan.suite.name,
        protocol=plan.suite.protocol,
        split=plan.split,
        best=plan.best,
        methods=methods,
        pairs={name: content_key(identity) for name, identity in plan.identities.items()},
        seeds=list(plan.seeds),
    )
