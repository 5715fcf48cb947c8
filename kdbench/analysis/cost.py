"""Cost: training throughput of each method on each pair, as it is and relative to control and baseline."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np
import pandas as pd

from kdbench.analysis.stats import Interval, geometric_mean, median_interval
from kdbench.results.schema import Role
from kdbench.results.study import MISSING, Group, Study

Known = TypeVar("Known")
Otherwise = TypeVar("Otherwise")


SPEED_MARGIN = 0.05
"""Medians of a ratio agree within this from run to run on one loaded machine; a smaller change is not told."""


@dataclass(frozen=True)
class PairCost:
    """One method on one pair; NaN or None where it was not measured.

    Attributes:
        status: of the throughput record, or "missing".
        blocks: blocks of steps measured.
        images: median training images/s over blocks; `images_p10`, `images_p90`: percentiles of the blocks,
            the spread on this machine rather than an interval of the median.
        to_control, to_baseline: median of the ratios of images/s taken round by round (above 1 is faster),
            with its order-statistics interval.
        ratios: those to the control, round by round.
        phases: milliseconds a step by phase, from a separate pass.
        phases_to_step: their sum over the time of a step, 1 where they add up.
        clean: whether the machine was ours alone and not throttled; None where that is not known.
        unclean: why it was not.
        extra_parameters: trainable parameters beside the student's.
        inference_parameters: parameters beside the student's that its predictions need.
        peak_memory: bytes.
        flops: per image, by part.
        utilisation: share in [0, 1] of the device's matrix rate that the networks' operations reach; a method's own
            operations are not counted.
    """

    pair: str
    method: str
    role: Role
    status: str
    batch_size: int | None
    blocks: int
    images: float
    images_p10: float
    images_p90: float
    to_control: Interval
    to_baseline: Interval
    ratios: tuple[float, ...]
    phases: dict[str, float]
    phases_to_step: float
    clean: bool | None
    unclean: tuple[str, ...]
    extra_parameters: int | None
    inference_parameters: int | None
    peak_memory: int | None
    flops: dict[str, float]
    utilisation: float


@dataclass(frozen=True)
class GroupCost:
    """One method over the pairs of a group.

    Attributes:
        pairs, measured: pairs of the group, and those with a measurement.
        to_control, to_baseline: geometric means of the ratios; NaN unless measured on all the pairs.
    """

    group: Group
    method: str
    role: Role
    pairs: int
    measured: int
    to_control: float
    to_baseline: float


def pair_costs(study: Study) -> list[PairCost]:
    """Every method on every pair, by pair, then method."""
    rows = cast(list[dict[str, Any]], study.throughput.to_dict("records"))
    records = {(row["pair"], row["method"]): row for row in rows}
    return [
        _pair_cost(study, pair, method, records.get((pair, method), {}))
        for pair in study.pairs
        for method in study.methods
    ]


def _pair_cost(study: Study, pair: str, method: str, record: dict[str, Any]) -> PairCost:
    done = record.get("status") == "done"
    measured = record if done else {}
    blocks: list[float] = measured.get("blocks") or []
    p10, p50, p90 = np.percentile(blocks, [10, 50, 90]).tolist() if blocks else [math.nan] * 3
    flops, rate = measured.get("flops") or {}, measured.get("matmul_flops")
    ratios = _ratios(blocks, measured.get("control_blocks") or [])
    to_baseline = _ratios(blocks, measured.get("baseline_blocks") or [])
    return PairCost(
        pair=pair,
        method=method,
        role=study.roles[method],
        status=record.get("status", MISSING),
        batch_size=int(measured["batch_size"]) if done else None,
        blocks=len(blocks),
        images=p50,
        images_p10=p10,
        images_p90=p90,
        to_control=median_interval(ratios),
        to_baseline=median_interval(to_baseline),
        ratios=ratios,
        phases={phase: 1e3 * seconds for phase, seconds in (measured.get("phases") or {}).items()},
        phases_to_step=_known(measured.get("phases_to_step"), float, math.nan),
        clean=_known(measured.get("clean"), bool, None),
        unclean=tuple(measured.get("unclean") or ()),
        extra_parameters=_known(measured.get("extra_parameters"), int, None),
        inference_parameters=_known(measured.get("inference_parameters"), int, None),
        peak_memory=_known(measured.get("peak_memory"), int, None),
        flops=flops,
        utilisation=p50 * flops.get("train", math.nan) / _known(rate, float, math.nan),
    )


def _known(value: Any, kind: Callable[[Any], Known], unknown: Otherwise) -> Known | Otherwise:
    """The value of a cell of a column with gaps."""
    return unknown if value is None or pd.isna(value) else kind(value)


def _ratios(blocks: Sequence[float], others: Sequence[float]) -> tuple[float, ...]:
    """Ratios of blocks of the same round, none without others: drift of the machine hits both alike."""
    return tuple(speed / other_speed for speed, other_speed in zip(blocks, others, strict=False))


def group_costs(study: Study, costs: Sequence[PairCost]) -> list[GroupCost]:
    """Every method over the pairs of every group, by group, then method."""
    rows = []
    for group, pairs in study.groups.items():
        for method in study.methods:
            of_method = [cost for cost in costs if cost.method == method and cost.pair in pairs]
            measured = sum(cost.status == "done" for cost in of_method)
            rows.append(
                GroupCost(
                    group=group,
                    method=method,
                    role=study.roles[method],
                    pairs=len(pairs),
                    measured=measured,
                    to_control=_mean_ratio([cost.to_control.value for cost in of_method]),
                    to_baseline=_mean_ratio([cost.to_baseline.value for cost in of_method]),
                )
            )
    return rows


def _mean_ratio(ratios: Sequence[float]) -> float:
    return math.nan if any(math.isnan(ratio) for ratio in ratios) else geometric_mean(ratios)
