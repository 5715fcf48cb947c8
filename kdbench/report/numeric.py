"""The numbers behind a report as tables, for its CSV files and report.json."""

from typing import Any

import pandas as pd

from kdbench.analysis.comparison import Match
from kdbench.analysis.gains import GroupGain, PairGain, finding
from kdbench.analysis.stats import Interval
from kdbench.report.content import Content


def numeric_tables(content: Content) -> dict[str, pd.DataFrame]:
    """Every table by the name of its file, without a suffix; an interval is three columns."""
    tables: dict[str, pd.DataFrame] = {}
    if content.has_accuracy:
        tables["cells"] = content.study.cells
        tables["curves"] = content.study.curves
        tables["gains"] = _with_findings(list(content.gains.values())).drop(columns="seed_gains")
        tables["gains_by_seed"] = _gains_by_seed(content)
        groups = content.study.groups
        ordered = [content.group_gains[group, method] for group in groups for method in content.by_gain(group)]
        tables["gains_by_group"] = _with_findings(ordered)
    if content.has_throughput:
        tables["throughput"] = _numeric(list(content.costs.values())).drop(columns="ratios")
        tables["throughput_by_group"] = _numeric(list(content.group_costs.values()))
    if content.equal_times:
        tables["equal_time"] = _numeric(content.equal_times).drop(columns="seed_gains")
        tables["equal_time_by_group"] = _numeric(content.group_equal_times)
    if content.published:
        tables["published"] = _numeric(content.published)
    if content.open is not None:
        tables |= {f"open_{name}": table for name, table in numeric_tables(content.open).items()}
    return tables


def _gains_by_seed(content: Content) -> pd.DataFrame:
    """One row a planned cell of every method but the control; no gain where it or its control is not done."""
    cells = content.study.cells
    cells = cells.loc[cells["role"] != "control", ["pair", "method", "seed", "status"]]
    gains = [(row.pair, row.method, *both) for row in content.gains.values() for both in row.seed_gains]
    known = pd.DataFrame(gains, columns=["pair", "method", "seed", "gain"])
    return cells.merge(known, how="left", on=["pair", "method", "seed"])


def _with_findings(rows: list[PairGain] | list[GroupGain]) -> pd.DataFrame:
    """The numbers, and what the tables say of them."""
    table = _numeric(list(rows))
    table["against_control"] = [finding(row.gain_holm) for row in rows]
    table["against_baseline"] = [finding(row.gain_baseline_holm) for row in rows]
    return table


def _numeric(rows: list[Any]) -> pd.DataFrame:
    """A frame of dataclass rows: an `Interval` gives name, name_low, name_high, a dict one name_key a key."""
    return pd.DataFrame([_flat(vars(row)) for row in rows])


def _flat(fields: dict[str, Any]) -> dict[str, Any]:
    cells: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, Interval):
            cells |= {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}
        elif isinstance(value, Match):
            cells |= {f"{name}_{key}": part for key, part in _flat(vars(value)).items()}
        elif isinstance(value, dict):
            cells |= {f"{name}_{key}": part for key, part in value.items()}
        else:
            cells[name] = "; ".join(value) if name in ("sources", "unclean") else value
    return cells
