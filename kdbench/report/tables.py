"""The tables of a report: display tables for the console and Markdown (all text), numeric ones for CSV."""

import math
from typing import Any

import pandas as pd

from kdbench.analysis.comparison import Match
from kdbench.analysis.stats import Interval
from kdbench.report import text
from kdbench.report.content import Content
from kdbench.report.escape import cell
from kdbench.results.study import Group


def headline(content: Content, group: Group, full: bool) -> pd.DataFrame:
    """One row a method over the pairs of the group; `full` adds tests and more of the baseline."""
    study = content.study
    baseline = study.baseline
    rows = []
    for method in study.methods:
        row, cost = content.group_gains[group, method], content.group_costs[group, method]
        cells = {"method": method, "gain": text.gain(row)}
        if baseline and full:
            cells[f"over {baseline}"] = text.difference(row.gain_baseline)
        if full:
            cells[f"p {study.control or 'control'}"] = text.p_value(row.p_control)
        if baseline:
            if full:
                cells[f"p {baseline}"] = text.p_value(row.p_baseline)
            cells[f"beats {baseline}"] = text.spread(row.improvement, 2) if full else text.fixed(row.improvement.value)
        cells["rank"] = text.spread(row.rank) if full else text.fixed(row.rank.value, 1)
        if content.has_throughput:
            measured = cost.measured == cost.pairs
            speed = text.ratio(cost.to_control) if measured else text.runs(cost.measured, cost.pairs)
            cells[f"speed/{study.control or 'control'}"] = speed
            if baseline and full:
                cells[f"speed/{baseline}"] = text.ratio(cost.to_baseline) if measured else text.NONE
        rows.append(cells)
    return pd.DataFrame(rows)


def of_open_division(content: Content, rows: pd.DataFrame) -> pd.DataFrame:
    """Those of `rows` that are about methods of the open division, with what each does that the closed one fixes."""
    differs = content.study.differs
    return rows[rows["method"].isin(list(differs))].assign(differs=lambda own: own["method"].map(differs))


def gain_matrix(content: Content, pairs: list[str], ends: bool) -> pd.DataFrame:
    """Gain of every method (rows) on each of the `pairs` (columns); the row of the control is its top-1."""
    study = content.study
    rows = []
    for method in study.methods:
        if method == study.control:
            cells = {pair: text.accuracy(content.gains[pair, method]).split(" ±")[0] for pair in pairs}
            rows.append({"method": f"{method} top-1", **cells})
        else:
            rows.append({"method": method} | {pair: text.gain(content.gains[pair, method], ends) for pair in pairs})
    return pd.DataFrame(rows)


def speed_matrix(content: Content, pairs: list[str]) -> pd.DataFrame:
    """Throughput of every method (rows) on each of the `pairs` (columns), relative to the control."""
    study = content.study
    rows = []
    for method in study.methods:
        costs = {pair: content.costs[pair, method] for pair in pairs}
        rows.append({"method": method} | {pair: text.speed(cost) for pair, cost in costs.items()})
    return pd.DataFrame(rows)


def equal_time_matrix(content: Content, group: Group, ends: bool) -> pd.DataFrame:
    """Gain of every method (rows) over the control trained for as long, on average and on each pair; may be empty."""
    by_place = {(row.pair, row.method): row for row in content.equal_times}
    rows = []
    for row in content.group_equal_times:
        if row.group == group:
            own = {pair: by_place[pair, row.method] for pair in content.study.groups[group]}
            mean = {"gain": text.equal_time(row), "p": text.p_value(row.p)}
            rows.append({"method": row.method} | mean | {pair: text.equal_time(on, ends) for pair, on in own.items()})
    return pd.DataFrame(rows)


def published_matrix(content: Content, pairs: list[str], of_gain: bool) -> pd.DataFrame:
    """Top-1 or gain as published under the study's protocol, by method and source (rows) and pair; may be empty."""
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for row in content.own_published:
        match = row.gain if of_gain else row.top1
        if row.pair in pairs and not math.isnan(match.published):
            line = cells.setdefault((row.method, row.sources[0]), {})
            line[row.pair] = text.published(match, sign=of_gain)
    shown = [pair for pair in pairs if any(pair in line for line in cells.values())]
    return pd.DataFrame(
        [
            {"method": f"{method} ({source})"} | {pair: line.get(pair, text.NONE) for pair in shown}
            for (method, source), line in sorted(
                cells.items(), key=lambda item: content.study.methods.index(item[0][0])
            )
        ]
    )


def published_table(content: Content, pair: str) -> pd.DataFrame:
    """One row a published number for the pair, ours beside it; may be empty."""
    return pd.DataFrame(
        [
            {
                "method": row.method,
                "as": row.label,
                "published": text.fixed(row.top1.published),
                "ours": text.fixed(row.top1.ours.value),
                "difference": text.deviation(row.top1),
                "verdict": text.verdict(row, row.top1),
                "published gain": text.signed(row.gain.published),
                "our gain": text.signed(row.gain.ours.value),
                "gain difference": text.deviation(row.gain),
                "gain verdict": text.NONE if row.reason else text.verdict(row, row.gain),
                "epoch": row.epoch,
                "source": ", ".join(row.sources),
            }
            for row in content.published
            if row.pair == pair
        ]
    )


def accuracy_table(content: Content, pair: str) -> pd.DataFrame:
    """One row a method on the pair: accuracies, gain, individual seeds and tests.

    The best epoch on the test split has a column where that was read for it.
    """
    study = content.study
    has_best = any(not math.isnan(row.best_top1) for row in content.gains.values())
    rows = []
    for method in study.methods:
        row = content.gains[pair, method]
        cells = {
            "method": method,
            "n": f"{row.done}/{row.planned}",
            "top-1": text.accuracy(row),
            **({"best epoch": text.fixed(row.best_top1)} if has_best else {}),
            "gain": text.gain(row),
            "gain by seed": " ".join(text.signed(gain) for _, gain in row.seed_gains) or text.NONE,
            f"p {study.control or 'control'}": text.p_value(row.p_control),
        }
        if row.role == "control":
            cells["gain by seed"] = text.NONE
        if study.baseline:
            cells[f"p {study.baseline}"] = text.p_value(row.p_baseline)
        rows.append(cells)
    return pd.DataFrame(rows)


def cost_table(content: Content, pair: str) -> pd.DataFrame:
    """One row a method on the pair: throughput, ratios, memory, parameters and floating-point operations."""
    study = content.study
    names = phases(content)
    rows = []
    for method in study.methods:
        cost = content.costs[pair, method]
        cells = {
            "method": method,
            "images/s (p10 to p90)": text.images(cost),
            "blocks": str(cost.blocks),
            f"speed/{study.control or 'control'}": text.ratio_spread(cost.to_control),
        }
        if study.baseline:
            cells[f"speed/{study.baseline}"] = text.ratio_spread(cost.to_baseline)
        step = sum(cost.phases.values())
        cells["step ms"] = text.fixed(step, 1) if cost.phases else text.NONE
        cells |= {
            f"{phase} %": text.fixed(100 * cost.phases[phase] / step, 0) if step else text.NONE
            for phase in names
            if phase in cost.phases or not cost.phases
        }
        cells["extra parameters"] = text.count(cost.extra_parameters)
        if any(other.inference_parameters for other in content.costs.values()):
            cells["kept at inference"] = text.count(cost.inference_parameters)
        cells["peak memory"] = text.size(cost.peak_memory)
        flops = cost.flops.get("train")
        cells["MFLOP/image"] = text.NONE if flops is None else f"{flops / 1e6:,.1f}"
        if not math.isnan(cost.utilisation):
            cells["utilisation %"] = text.fixed(100 * cost.utilisation, 1)
        cells["clean"] = text.answer(cost.clean)
        rows.append(cells)
    return pd.DataFrame(rows).fillna(text.NONE)


def phases(content: Content) -> list[str]:
    """The phases of a step, in the order the records first name them."""
    return list(dict.fromkeys(phase for cost in content.costs.values() for phase in cost.phases))


def csv_tables(content: Content) -> dict[str, pd.DataFrame]:
    """Numbers behind the report, by file name without its suffix; an interval is three columns."""
    tables: dict[str, pd.DataFrame] = {}
    if content.has_accuracy:
        tables["cells"] = content.study.cells
        tables["curves"] = content.study.curves
        tables["gains"] = _numeric(list(content.gains.values())).drop(columns="seed_gains")
        tables["gains_by_seed"] = _gains_by_seed(content)
        tables["gains_by_group"] = _numeric(list(content.group_gains.values()))
    if content.has_throughput:
        tables["throughput"] = _numeric(list(content.costs.values())).drop(columns="ratios")
        tables["throughput_by_group"] = _numeric(list(content.group_costs.values()))
    if content.equal_times:
        tables["equal_time"] = _numeric(content.equal_times).drop(columns="seed_gains")
        tables["equal_time_by_group"] = _numeric(content.group_equal_times)
    if content.published:
        tables["published"] = _numeric(content.published)
    if content.open is not None:
        tables |= {f"open_{name}": table for name, table in csv_tables(content.open).items()}
    return tables


def _gains_by_seed(content: Content) -> pd.DataFrame:
    """One row a planned cell of every method but the control; no gain where it or its control is not done."""
    cells = content.study.cells
    cells = cells.loc[cells["role"] != "control", ["pair", "method", "seed", "status"]]
    gains = [(row.pair, row.method, *both) for row in content.gains.values() for both in row.seed_gains]
    known = pd.DataFrame(gains, columns=["pair", "method", "seed", "gain"])
    return cells.merge(known, how="left", on=["pair", "method", "seed"])


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


def markdown(table: pd.DataFrame) -> str:
    """A Markdown table of a text frame: the first column to the left, the others to the right."""
    names = [str(name) for name in table.columns]
    lines = [names, [":--", *["--:"] * (len(names) - 1)], *table.astype(str).to_numpy().tolist()]
    return "\n".join("| " + " | ".join(cell(text) for text in line) + " |" for line in lines)
