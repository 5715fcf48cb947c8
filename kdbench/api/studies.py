"""A results folder as data frames."""

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from kdbench.results.folder import Results
from kdbench.results.study import Study, load_study

if TYPE_CHECKING:
    import pandas as pd


class AnalysedStudy(Study):
    """The study in a results folder, with the gains and costs of its methods.

    Accuracies are in percent and gains in points of top-1. An interval `x` is three columns: `x`, `x_low` and `x_high`.
    """

    def gains(self, by: Literal["group", "pair", "seed"] = "group") -> "pd.DataFrame":
        """The gains of the methods over the control, and over the baseline.

        Args:
            by: one row for each method over a group of pairs (`kdbench.analysis.gains.GroupGain` says what its columns
                are), for each pair and method (`PairGain`), or for each pair, method and seed.
        """
        from kdbench.analysis.frames import gain_frame, gains_by_seed
        from kdbench.analysis.gains import group_gains, pair_gains

        if by == "group":
            return gain_frame(group_gains(self))
        if by == "pair":
            return gain_frame(pair_gains(self)).drop(columns="seed_gains")
        return gains_by_seed(self, pair_gains(self))

    def costs(self, by: Literal["group", "pair"] = "group") -> "pd.DataFrame":
        """The training throughput of the methods, as it is and relative to the control and the baseline.

        Args:
            by: one row for each method over a group of pairs (`kdbench.analysis.cost.GroupCost` says what its columns
                are), or for each pair and method (`PairCost`).
        """
        from kdbench.analysis.cost import group_costs, pair_costs
        from kdbench.analysis.frames import frame_of

        costs = pair_costs(self)
        return frame_of(group_costs(self, costs)) if by == "group" else frame_of(costs).drop(columns="ratios")


def load(folder: str | Path) -> AnalysedStudy:
    """Read the study in a results folder, finished or not.

    Raises:
        KdbenchError: there is no manifest, a record cannot be read, or records are of several protocols.
    """
    study = load_study(Results(Path(folder)))
    return AnalysedStudy(**{field.name: getattr(study, field.name) for field in fields(study)})
