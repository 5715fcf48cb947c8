"""How numbers are written, everywhere in a report."""

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from kdbench.analysis.comparison import ALLOWANCE, Comparison, Match
from kdbench.analysis.cost import GroupCost, PairCost
from kdbench.analysis.equal_time import EqualTime, GroupEqualTime
from kdbench.analysis.gains import GroupGain, PairGain
from kdbench.analysis.stats import ALPHA, Interval
from kdbench.names import plural
from kdbench.results.study import MISSING, Study

NONE = "-"
"""Where there is nothing to say: a method against itself, a figure the device does not tell."""

LEGEND = (
    "Gains are points of top-1 over the control, mean [95 % interval]. * differs from the control, ▲ better "
    "and ▼ worse than the baseline (paired t-test, p < 0.05 after Holm over the methods, from 3 seeds on). "
    "X (2/3): only 2 of 3 runs are there, so there is no average. n/a: the method does not support the pair. "
    "beats m: probability that a run beats one of method m. "
)
SPEED_LEGEND = "speed/m: training images/s relative to method m, higher is faster."
LEGEND += SPEED_LEGEND
PUBLISHED_LEGEND = (
    "Published: ours minus the published number; = within the tolerance, ▲ above and ▼ below it (our 95 % interval "
    f"together with {ALLOWANCE} points for a published top-1, sqrt(2) times that for a gain; two seeds at least). "
    "Best epoch is held against our best epoch, last and unknown against our last. Each row names its first source."
)
OPEN_DIVISION = "Open division, not to be ranked with the methods above; ranks are among control, baseline and these"
SCOPE = "Intervals over several pairs speak of the noise between seeds on these pairs, not of other pairs."


def fixed(value: float, digits: int = 2) -> str:
    """`1.23`, or a dash for NaN."""
    return NONE if math.isnan(value) else f"{value:.{digits}f}"


def signed(value: float, digits: int = 2) -> str:
    """`+1.23`, or a dash for NaN; never `-0.00`."""
    return NONE if math.isnan(value) else f"{round(value, digits) + 0.0:+.{digits}f}"


def p_value(value: float) -> str:
    """`0.013`, `< 0.001`, or a dash where no test was made."""
    return "< 0.001" if value < 0.001 else fixed(value, 3)


def difference(interval: Interval, ends: bool = True) -> str:
    """`+1.23 [0.80, 1.66]`; without the ends where they are unknown or not wanted."""
    middle = signed(interval.value)
    if not ends or math.isnan(interval.low):
        return middle
    return f"{middle} [{signed(interval.low).lstrip('+')}, {signed(interval.high).lstrip('+')}]"


def spread(interval: Interval, digits: int = 1) -> str:
    """`2.1 [1.6, 2.6]`, for what has no sign."""
    if math.isnan(interval.low):
        return fixed(interval.value, digits)
    return f"{interval.value:.{digits}f} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"


def ratio(value: float) -> str:
    """`0.62x`."""
    return NONE if math.isnan(value) else f"{value:.2f}x"


def ratio_spread(interval: Interval) -> str:
    """`0.62x [0.61, 0.63]`."""
    if math.isnan(interval.low):
        return ratio(interval.value)
    return f"{ratio(interval.value)} [{interval.low:.2f}, {interval.high:.2f}]"


def count(value: int | None) -> str:
    """`940`, `12.3k` or `4.56M`."""
    if value is None:
        return NONE
    if value < 1_000:
        return str(value)
    return f"{value / 1e3:.1f}k" if value < 999_950 else f"{value / 1e6:.2f}M"


def size(value: int | None) -> str:
    """Bytes as `812 MiB`."""
    return NONE if value is None else f"{value / 2**20:,.0f} MiB"


def runs(done: int, planned: int) -> str:
    """`X (2/3)`: what stands where an average over an incomplete set would."""
    return f"X ({done}/{planned})"


def marks(row: PairGain | GroupGain) -> str:
    """The significance marks of a gain (see `LEGEND`)."""
    against_baseline = ("▲" if row.gain_baseline.value > 0 else "▼") if row.p_baseline < ALPHA else ""
    return ("*" if row.p_control < ALPHA else "") + against_baseline


def gain(row: PairGain | GroupGain, ends: bool = True) -> str:
    """The gain of a row with its marks, or what stands in its place."""
    if row.state == "unsupported":
        return "n/a"
    if math.isnan(row.gain.value):
        lacks_control = isinstance(row, PairGain) and row.n < row.done == row.planned
        return f"X (control {row.n}/{row.planned})" if lacks_control else runs(row.n, row.planned)
    if row.role == "control":
        return "control"
    return difference(row.gain, ends) + marks(row)


def equal_time(row: EqualTime | GroupEqualTime, ends: bool = True) -> str:
    """The gain over the control at equal time, with the epochs of that control where it is about one pair."""
    if math.isnan(row.gain.value):
        return runs(row.n, row.planned)
    epochs = f" ({row.epochs})" if isinstance(row, EqualTime) else ""
    return difference(row.gain, ends) + epochs


def accuracy(row: PairGain) -> str:
    """Mean top-1 with its standard deviation over seeds, `61.23 ± 0.45`, or what stands in its place."""
    if row.state == "unsupported":
        return "n/a"
    if row.done < row.planned or math.isnan(row.top1):
        return runs(row.done, row.planned)
    return fixed(row.top1) if math.isnan(row.top1_std) else f"{row.top1:.2f} ± {row.top1_std:.2f}"


def speed(cost: PairCost) -> str:
    """Images/s relative to the control with its interval, or what stands in its place."""
    return ratio_spread(cost.to_control) if cost.status == "done" else images(cost)


def mean_speed(cost: GroupCost) -> str:
    """The mean of those ratios over the pairs of a group, or what stands in its place."""
    return ratio(cost.to_control) if cost.measured == cost.pairs else runs(cost.measured, cost.pairs)


def images(cost: PairCost) -> str:
    """Median images/s with the 10th and 90th percentile of its blocks, or what stands in its place."""
    if cost.status == "unsupported":
        return "n/a"
    if cost.status != "done":
        return "X" if cost.status == MISSING else f"X ({cost.status})"
    return f"{cost.images:,.0f} ({cost.images_p10:,.0f} to {cost.images_p90:,.0f})"


def published(match: Match, sign: bool) -> str:
    """`80.54 -0.23=`: a published value and, where ours is comparable, how far ours is from it, with the mark."""
    value = signed(match.published) if sign else fixed(match.published)
    if math.isnan(match.difference):
        return value
    mark = {"reproduced": "=", "above": "▲", "below": "▼", None: ""}[match.verdict]
    return f"{value} {signed(match.difference)}{mark}"


def published_title(rows: Sequence[Comparison], of_gain: bool) -> str:
    """What stands over the published numbers of the study's own protocol (`rows`, one at least)."""
    what = "gain" if of_gain else "top-1"
    ours = "" if all(row.reason for row in rows) else " and ours minus it"
    return f"published {what} ({rows[0].protocol}, {_epochs(rows)}){ours}{_reasons(rows)}"


def published_as(rows: Sequence[Comparison]) -> str:
    """What the published numbers of a figure are: protocol, epoch, sources, and why they are not comparable."""
    sources = dict.fromkeys(row.sources[0] for row in rows)
    return f"published ({rows[0].protocol}, {_epochs(rows)}; {', '.join(sources)}){_reasons(rows)}"


def _reasons(rows: Sequence[Comparison]) -> str:
    """Why rows are not comparable, and which where it is not all of them."""
    reasons = list(dict.fromkeys(row.reason for row in rows if row.reason))
    some = "" if all(row.reason for row in rows) else f"{_epochs([row for row in rows if row.reason])} "
    return f", {some}not comparable: {', '.join(reasons)}" if reasons else ""


def _epochs(rows: Sequence[Comparison]) -> str:
    return "/".join(sorted({row.epoch for row in rows})) + " epoch"


def verdict(row: Comparison, match: Match) -> str:
    """The verdict on one of the two matches of `row`, or why there is none; a dash where nothing is published."""
    if math.isnan(match.published):
        return NONE
    if row.reason:
        return f"not comparable: {row.reason}"
    if math.isnan(match.difference):
        return "ours incomplete"
    return match.verdict or "one seed"


def deviation(match: Match) -> str:
    """`-0.23 ± 0.61`: ours minus published, with the tolerance."""
    difference = signed(match.difference)
    return difference if math.isnan(match.tolerance) else f"{difference} ± {match.tolerance:.2f}"


def devices(study: Study, records: pd.DataFrame) -> str:
    """The devices that the `records` (of the study's cells or throughput) were made on."""
    identities = sorted({name for name in records["environment"].tolist() if name in study.environments})
    names = {str(study.environments[name].get("device", "unknown device")) for name in identities}
    return ", ".join(sorted(names)) or "unknown device"


def dates(study: Study) -> str:
    """The days on which the records were made, `2026-11-20 to 2026-11-23`."""
    return " to ".join(dict.fromkeys(study.dates)) or "date not recorded"


def caption(study: Study, records: pd.DataFrame, noise: str) -> str:
    """The line under a figure: suite, protocol, seeds, device, date, run, and what the `noise` drawn is."""
    manifest = study.manifest
    split = "" if "val" not in study.cells["split"].tolist() else "validation split"
    seeds = plural(len(manifest["seeds"]), "seed") if manifest["seeds"] else ""
    parts = [manifest["suite"], manifest["protocol"], split, seeds]
    parts += [devices(study, records), dates(study), f"run {study.run_id}", noise]
    return " · ".join(part for part in parts if part)


def plain(value: Any) -> Any:
    """Nested dicts with what JSON has no number for as None."""
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
