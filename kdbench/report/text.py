"""How numbers are written, everywhere in a report."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from kdbench.analysis.comparison import ALLOWANCE, Comparison, Match
from kdbench.analysis.cost import GroupCost, PairCost
from kdbench.analysis.equal_time import EqualTime, GroupEqualTime
from kdbench.analysis.gains import GroupGain, PairGain, finding
from kdbench.analysis.stats import Interval
from kdbench.names import plural
from kdbench.results.study import MISSING, Study

NONE = "-"
"""Where there is nothing to say: a method against itself, a figure the device does not tell."""

PUBLISHED_LEGEND = (
    "Published: ours minus the published number; = within the tolerance, ▲ above and ▼ below it (our 95 % interval "
    f"together with {ALLOWANCE} points for a published top-1, sqrt(2) times that for a gain; two seeds at least). "
    "Best epoch is held against our best epoch, last and unknown against our last. Each row names its first source. "
    "† a published gain over a training without a teacher that its source borrowed from another one."
)
OPEN_DIVISION = "Open division, not to be ranked with the methods above"
SCOPE = "Intervals over several pairs are about the noise between seeds on these pairs, not about other pairs."
GAPS = (
    "X (2/3): only 2 of 3 runs are there, so there is no average. n/a: the networks of the pair lack what the method "
    "needs."
)


def seeds(study: Study) -> str:
    """`3 seeds`, or `1 to 2 seeds` where the pairs have different numbers of them."""
    low, high = study.seed_counts
    return plural(high, "seed") if low == high else f"{low} to {plural(high, 'seed')}"


def so_far(study: Study) -> str:
    """`So far: seed 0 on all 6 pairs, seed 1 on 2 of 6 pairs. ...`, of a study of finished blocks; else empty."""
    if study.whole is None:
        return ""
    pairs, blocks = len(study.whole.pairs), []
    for seed in study.manifest["seeds"]:
        count = sum(seed in numbers for numbers in study.blocks.values())
        blocks.append(f"seed {seed} on {f'all {pairs}' if count == pairs else f'{count} of {pairs}'} pairs")
    return (
        f"So far: {listed(blocks)}. All methods are compared on these finished blocks alone; a pair and a seed that "
        "only some methods have finished are left out."
    )


def fixed(value: float, digits: int = 2) -> str:
    """`1.23`, or a dash for NaN."""
    return NONE if math.isnan(value) else f"{value:.{digits}f}"


def signed(value: float, digits: int = 2) -> str:
    """`+1.23`, or a dash for NaN; never `-0.00`."""
    return NONE if math.isnan(value) else f"{round(value, digits) + 0.0:+.{digits}f}"


def p_value(value: float) -> str:
    """`0.013`, `< 0.001`, or a dash where no test was made."""
    return "< 0.001" if value < 0.001 else fixed(value, 3)


def difference(interval: Interval, with_ends: bool = True) -> str:
    """`+1.23 [0.80, 1.66]`; without the ends where they are unknown or not wanted."""
    middle = signed(interval.value)
    return f"{middle} {ends(interval)}" if with_ends and not math.isnan(interval.low) else middle


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


def mark(corrected: Interval) -> str:
    """▲ for shown better, ▼ for shown worse, from an interval at Holm's level."""
    return {"better": "▲", "worse": "▼"}.get(finding(corrected), "")


def found(corrected: Interval) -> str:
    """The same in a word, or a dash where no test was made."""
    shown = finding(corrected)
    return NONE if shown == "not tested" else shown


def ends(interval: Interval) -> str:
    """`[-0.54, 3.89]`, or a dash; an end that is near zero has as many digits as tell on which side it is."""
    return NONE if math.isnan(interval.low) else f"[{_end(interval.low)}, {_end(interval.high)}]"


def _end(value: float) -> str:
    digits = next((digits for digits in range(2, 6) if round(value, digits)), 2)
    return signed(value, digits).lstrip("+")


def gain(row: PairGain | GroupGain, with_ends: bool = True) -> str:
    """The gain of a row with the mark of its test against the control, or what stands in its place."""
    if row.state == "unsupported":
        return "n/a"
    if math.isnan(row.gain.value):
        lacks_control = isinstance(row, PairGain) and row.n < row.done == row.planned
        return f"X (control {row.n}/{row.planned})" if lacks_control else runs(row.n, row.planned)
    if row.role == "control":
        return "0"
    return difference(row.gain, with_ends) + mark(row.gain_holm)


def equal_time(row: EqualTime | GroupEqualTime, with_ends: bool = True) -> str:
    """The gain over the control at equal time, with the epochs of that control where it is about one pair."""
    if math.isnan(row.gain.value):
        return runs(row.n, row.planned)
    epochs = f" ({row.epochs})" if isinstance(row, EqualTime) else ""
    return difference(row.gain, with_ends) + epochs


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


def mean_time(cost: GroupCost) -> str:
    """The time of a training step over the control's, mean over the pairs of a group, or what stands in its place."""
    return ratio(1 / cost.to_control) if cost.measured == cost.pairs else runs(cost.measured, cost.pairs)


def images(cost: PairCost) -> str:
    """Median images/s with the 10th and 90th percentile of its blocks, or what stands in its place."""
    if cost.status == "unsupported":
        return "n/a"
    if cost.status != "done":
        return "X" if cost.status == MISSING else f"X ({cost.status})"
    return f"{cost.images:,.0f} ({cost.images_p10:,.0f} to {cost.images_p90:,.0f})"


def published_value(row: Comparison, of_gain: bool) -> str:
    """`80.54`, or a gain such as `+6.53†`, marked where its source borrowed the training without a teacher."""
    if not of_gain:
        return fixed(row.top1.published)
    borrowed = row.control == "borrowed" and not math.isnan(row.gain.published)
    return signed(row.gain.published) + ("†" if borrowed else "")


def published(row: Comparison, of_gain: bool) -> str:
    """`80.54 -0.23=`: a published value and, where ours is comparable, how far ours is from it, with the mark."""
    match, value = row.gain if of_gain else row.top1, published_value(row, of_gain)
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


def span(values: Sequence[Any], write: Callable[[Any], str]) -> str:
    """`3.1k to 9.6k`: the least and the largest of what is known, or the one where they read the same."""
    known = [value for value in values if value is not None and not math.isnan(value)]
    return " to ".join(dict.fromkeys((write(min(known)), write(max(known))))) if known else NONE


def listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


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
    parts = [manifest["suite"], manifest["protocol"], split, seeds(study) if manifest["seeds"] else ""]
    parts += [devices(study, records), dates(study), f"run {study.run_id}", noise]
    return " · ".join(part for part in parts if part)


def plain(value: Any) -> Any:
    """Nested dicts with what JSON has no number for as None."""
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
