"""Everything a report says, computed once: the study and the rows of the analysis."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

from kdbench.analysis.choice import MethodChoice, choices
from kdbench.analysis.comparison import Comparison, compare_with_published
from kdbench.analysis.cost import GroupCost, PairCost, group_costs, pair_costs
from kdbench.analysis.equal_time import EqualTime, GroupEqualTime, group_equal_times, pair_equal_times
from kdbench.analysis.gains import GroupGain, PairGain, Sensitivity, group_gains, pair_gains, sensitivities
from kdbench.analysis.profile import Profile, profiles
from kdbench.analysis.ranking import Ranking, rankings
from kdbench.analysis.teachers import TeacherGain, teacher_gains
from kdbench.results.study import Group, Study

BALANCED = 0.01
"""Points between top-1 and the mean over classes from which on classes differ in size."""


class Gap(NamedTuple):
    """A cell or a measurement that is not done; a measurement has no seed, and what is missing no error."""

    pair: str
    method: str
    seed: int | None
    status: str
    error: str


@dataclass(frozen=True)
class Content:
    """A study with its gains and costs; the mappings are in the order of pairs (or groups), then methods.

    Attributes:
        published: the numbers of the literature for the pairs and methods of the study, comparable or not.
        equal_times, group_equal_times: gains over the control trained for as long; empty where not asked for.
        class_gains: gains of the mean and of the worst accuracy of a class, by column of the cells, group and method;
            of the mean only where classes differ in size, since it is top-1 elsewhere.
        teachers: what each teacher gave, of students that have several.
        open: the methods of the open division beside control and baseline, None without any; all else is about the
            closed division, whose tests and ranks do not know them.
    """

    study: Study
    gains: dict[tuple[str, str], PairGain]
    group_gains: dict[tuple[Group, str], GroupGain]
    costs: dict[tuple[str, str], PairCost]
    group_costs: dict[tuple[Group, str], GroupCost]
    published: list[Comparison]
    sensitivities: dict[Group, Sensitivity]
    rankings: list[Ranking]
    profiles: list[Profile]
    equal_times: list[EqualTime]
    group_equal_times: list[GroupEqualTime]
    choices: dict[Group, MethodChoice]
    class_gains: dict[tuple[str, Group, str], GroupGain]
    teachers: list[TeacherGain]
    open: "Content | None" = None

    @property
    def own_published(self) -> list[Comparison]:
        """Those of `published` that belong to the protocol which the study follows."""
        return [row for row in self.published if row.own_protocol]

    @property
    def has_accuracy(self) -> bool:
        """Whether the study set out to train anything; `kdbench bench` measures throughput alone."""
        return len(self.study.cells) > 0

    @cached_property
    def has_gains(self) -> bool:
        """Whether any method has a gain over the control, be it of a single seed."""
        return any(row.seed_gains for row in self.gains.values() if row.role != "control")

    def by_gain(self, group: Group) -> list[str]:
        """The methods by mean gain over the group, largest first; the control is at 0, those without a mean come last.

        The order of every table and figure. Without any means it is that of the study.
        """
        gains = {method: self.group_gains[group, method].gain.value for method in self.study.methods}
        return sorted(gains, key=lambda method: math.inf if math.isnan(gains[method]) else -gains[method])

    @cached_property
    def order(self) -> list[str]:
        """The methods `by_gain` over the first group, for what is about the pairs of several."""
        return self.by_gain(next(iter(self.study.groups)))

    def group_of(self, pair: str) -> Group:
        """The group that a pair is in."""
        return next(group for group, pairs in self.study.groups.items() if pair in pairs)

    @cached_property
    def statuses(self) -> list[str]:
        """Those of all planned cells, of both divisions; of a study of finished blocks, those of the whole study."""
        if self.study.whole is not None:
            return self.study.whole.cells["status"].tolist()
        closed = self.study.cells["status"].tolist()
        if self.open is None:
            return closed
        cells = self.open.study.cells
        return closed + cells.loc[cells["method"].isin(list(self.open.study.differs)), "status"].tolist()

    @cached_property
    def times(self) -> Mapping[tuple[Group, str], float]:
        """Time of a training step over the control's, by group and method; NaN where it is not known."""
        return {place: 1 / cost.to_control for place, cost in self.group_costs.items()}

    @cached_property
    def phases(self) -> list[str]:
        """The phases of a step, in the order the records first name them."""
        return list(dict.fromkeys(phase for cost in self.costs.values() for phase in cost.phases))

    @cached_property
    def cell_gaps(self) -> list[Gap]:
        """The planned cells that are not done."""
        cells = self.study.cells.loc[self.study.cells["status"] != "done", list(Gap._fields)]
        return [
            Gap(*fields) for fields in cells.astype({"error": object}).fillna({"error": ""}).itertuples(index=False)
        ]

    @cached_property
    def timing_gaps(self) -> list[Gap]:
        """The pairs and methods whose throughput is not measured."""
        errors = self.study.throughput.set_index(["pair", "method"])["error"].dropna().to_dict()
        costs = [(place, cost.status) for place, cost in self.costs.items() if cost.status != "done"]
        return [Gap(*place, None, status, errors.get(place, "")) for place, status in costs]

    @cached_property
    def has_throughput(self) -> bool:
        """Whether any throughput was measured."""
        return any(cost.status == "done" for cost in self.costs.values())


def collect(study: Study) -> Content:
    """Analyse the study."""
    if differs := study.differs:
        references = [method for method in study.methods if study.roles[method] != "method"]
        closed = _collect(study.only(set(study.methods) - set(differs)))
        return replace(closed, open=_collect(study.only({*references, *differs})))
    return _collect(study)


def _collect(study: Study) -> Content:
    costs, equal_times = pair_costs(study), pair_equal_times(study)
    over_pairs = group_costs(study, costs)
    gains = {(row.pair, row.method): row for row in pair_gains(study)}
    return Content(
        study=study,
        gains=gains,
        group_gains={(row.group, row.method): row for row in group_gains(study)},
        costs={(row.pair, row.method): row for row in costs},
        group_costs={(row.group, row.method): row for row in over_pairs},
        published=compare_with_published(study),
        sensitivities={row.group: row for row in sensitivities(study)},
        rankings=rankings(study) if len(study.cells) else [],
        profiles=profiles(gains, study.groups),
        equal_times=equal_times,
        group_equal_times=group_equal_times(study, equal_times),
        choices={row.group: row for row in choices(study, over_pairs)},
        class_gains={
            (metric, row.group, row.method): row
            for metric in _class_metrics(study)
            for row in group_gains(study, metric)
        },
        teachers=teacher_gains(study),
    )


def _class_metrics(study: Study) -> list[str]:
    """The columns of the cells that say something of classes which top-1 does not."""
    cells = study.cells
    done = cells[cells["status"] == "done"]
    if done.empty or done["worst_class_top1"].isna().any():
        return []
    is_balanced = bool((done["macro_top1"] - done["top1"]).abs().max() < BALANCED)
    return ["worst_class_top1"] if is_balanced else ["macro_top1", "worst_class_top1"]
