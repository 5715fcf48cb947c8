"""Rows of dataclasses as data frames of numbers."""

from collections.abc import Iterable, Sequence
from dataclasses import is_dataclass
from typing import TYPE_CHECKING, Any

from kdbench.analysis.gains import GroupGain, PairGain, finding
from kdbench.analysis.stats import Interval

if TYPE_CHECKING:
    import pandas as pd

    from kdbench.results.study import Study

LISTS_OF_TEXT = ("sources", "unclean")
"""Fields whose texts are joined into one."""


def frame_of(rows: Sequence[Any]) -> "pd.DataFrame":
    """A frame of dataclass rows.

    An `Interval` gives the columns name, name_low and name_high, a dict or another dataclass one name_key for each key.
    """
    import pandas as pd

    return pd.DataFrame([_flat(vars(row)) for row in rows])


def gain_frame(rows: "Sequence[PairGain] | Sequence[GroupGain]") -> "pd.DataFrame":
    """The numbers of gains, and what the tables say of them."""
    table = frame_of(rows)
    table["against_control"] = [finding(row.gain_holm) for row in rows]
    table["against_baseline"] = [finding(row.gain_baseline_holm) for row in rows]
    return table


def gains_by_seed(study: "Study", gains: "Iterable[PairGain]") -> "pd.DataFrame":
    """One row a planned cell of every method but the control; no gain where it or its control is not done."""
    import pandas as pd

    cells = study.cells
    cells = cells.loc[cells["role"] != "control", ["pair", "method", "seed", "status"]]
    known = [(row.pair, row.method, *both) for row in gains for both in row.seed_gains]
    frame = pd.DataFrame(known, columns=["pair", "method", "seed", "gain"])
    return cells.merge(frame, how="left", on=["pair", "method", "seed"])


def _flat(fields: dict[str, Any]) -> dict[str, Any]:
    cells: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, Interval):
            cells |= {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}
        elif is_dataclass(value):
            cells |= {f"{name}_{key}": part for key, part in _flat(vars(value)).items()}
        elif isinstance(value, dict):
            cells |= {f"{name}_{key}": part for key, part in value.items()}
        else:
            cells[name] = "; ".join(value) if name in LISTS_OF_TEXT else value
    return cells
