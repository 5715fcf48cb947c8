"""The numbers behind a report as tables, for its CSV files and report.json."""

import pandas as pd

from kdbench.analysis.frames import frame_of, gain_frame, gains_by_seed
from kdbench.report.content import Content


def numeric_tables(content: Content) -> dict[str, pd.DataFrame]:
    """Every table by the name of its file, without a suffix; an interval is three columns."""
    tables: dict[str, pd.DataFrame] = {}
    if content.has_accuracy:
        tables["cells"] = content.study.cells
        tables["curves"] = content.study.curves
        tables["gains"] = gain_frame(list(content.gains.values())).drop(columns="seed_gains")
        tables["gains_by_seed"] = gains_by_seed(content.study, content.gains.values())
        groups = content.study.groups
        ordered = [content.group_gains[group, method] for group in groups for method in content.by_gain(group)]
        tables["gains_by_group"] = gain_frame(ordered)
    if content.has_throughput:
        tables["throughput"] = frame_of(list(content.costs.values())).drop(columns="ratios")
        tables["throughput_by_group"] = frame_of(list(content.group_costs.values()))
    if content.equal_times:
        tables["equal_time"] = frame_of(content.equal_times).drop(columns="seed_gains")
        tables["equal_time_by_group"] = frame_of(content.group_equal_times)
    if content.published:
        tables["published"] = frame_of(content.published)
    if content.open is not None:
        tables |= {f"open_{name}": table for name, table in numeric_tables(content.open).items()}
    return tables
