"""A study beside the published numbers: what is comparable, why the rest is not, and whether the number came out again.

A published top-1 is held against ours of the same epoch: the literature's best epoch on the test split against our best
(of the epochs that were evaluated, where a run was asked to: `--best`), its last against our last; where a source does
not say, against our last.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from kdbench.analysis.gains import Accuracies
from kdbench.analysis.published import Control, Epoch, Number, numbers, protocols
from kdbench.analysis.stats import UNKNOWN, Interval, paired_t
from kdbench.names import pair_ends
from kdbench.results.schema import PublishedNames
from kdbench.results.study import Study

Verdict = Literal["reproduced", "below", "above"]

ALLOWANCE = 0.6
"""Points granted to one published top-1 for the seeds it was not averaged over: 1.96 standard deviations of 0.3.

Hardly any source tells a spread. The 18 numbers of the table that one group published twice, in a README and as logs
of single runs, differ by 0.36 points (root mean square), which is 0.26 a number if both are single runs and 0.36 if
the README's were exact; 17 of the 18 differ by less than 0.7. The test images are the same ones, so that their
sampling noise (0.85 points at 10,000 images and 75 %) is in neither. A gain is the difference of two such numbers:
sqrt(2) of it.
"""

NO_BEST = "our best epoch is unknown, run with --best"

_REDUCED = re.compile(r"\+((?:epochs|limit|test_limit)=.*)")


@dataclass(frozen=True)
class Match:
    """Our value beside a published one (percent, or points for a gain; NaN where unknown).

    Attributes:
        ours: mean over seeds with its t-interval; unknown unless all planned seeds are done.
        difference: ours minus published.
        tolerance: what `difference` may be while the number counts as reproduced: half the width of our interval and
            the allowance for theirs, as the root of the sum of their squares; NaN for a single seed.
        verdict: None where the two are not comparable or the tolerance is unknown.
    """

    published: float
    ours: Interval
    difference: float = math.nan
    tolerance: float = math.nan
    verdict: Verdict | None = None


@dataclass(frozen=True)
class Comparison:
    """One published number beside the cells of one method on one pair.

    Attributes:
        label: the published name of the method.
        own_protocol: whether it belongs to the protocol that the study follows.
        epoch: whose top-1 the sources report; "unknown" is held against our last.
        control: whose training without a teacher the published gain is over.
        sources: short names of those that give this number, the first published first.
        teacher_top1: the published teacher's, NaN where not told.
        reason: why the two are not comparable; empty where they are.
        seeds: of ours.
        gain: over the student without a teacher, each over its own.
    """

    pair: str
    method: str
    label: str
    protocol: str
    own_protocol: bool
    epoch: Epoch
    control: Control
    sources: tuple[str, ...]
    teacher_top1: float
    reason: str
    seeds: int
    top1: Match
    gain: Match


@dataclass(frozen=True)
class _Quote:
    """A published top-1, once for all the sources that give it."""

    protocol: str
    label: str
    top1: float
    gain: float | None
    teacher_top1: float | None
    epoch: Epoch
    control: Control
    sources: tuple[str, ...]


def compare_with_published(study: Study) -> list[Comparison]:
    """Every published number for a pair and method of the study, by pair, method, own protocol first."""
    names = study.manifest.get("published")
    if names is None:
        return []
    accuracies = Accuracies(study)
    obstacle = _obstacle(study)
    rows = []
    for pair in study.pairs:
        for method in study.methods:
            quotes = list(_quotes(names, pair, names["methods"].get(method, []), method == study.control))
            for quote in sorted(quotes, key=lambda quote: quote.protocol != names["protocol"]):
                reason = _other_protocol(names["protocol"], quote.protocol) or obstacle or _other_values(study, method)
                rows.append(_comparison(study, accuracies, (pair, method), quote, reason))
    return rows


def _quotes(names: PublishedNames, pair: str, labels: Sequence[str], is_control: bool) -> Iterator[_Quote]:
    """The published numbers of the pair under any of the `labels`, equal ones merged."""
    teacher, student = (names["models"].get(end) for end in pair_ends(pair))
    if teacher is None or student is None or not labels:
        return
    merged: dict[tuple[str, str, float], list[Number]] = {}
    for row in numbers():
        is_pair = (row.teacher, row.student) == (teacher, student)
        if is_control:
            # What a source says of the student without a teacher stands beside each of its other numbers, too; those
            # of other protocols belong here only where the pair itself was published.
            top1 = row.top1 if row.method in labels and not row.teacher else row.scratch_top1
            wanted = row.student == student if row.protocol == names["protocol"] else is_pair
            if wanted and top1 is not None:
                merged.setdefault((row.protocol, labels[0], top1), []).append(row)
        elif is_pair and row.method in labels:
            merged.setdefault((row.protocol, row.method, row.top1), []).append(row)
    for (protocol, label, top1), rows in merged.items():
        # Later sources quote the first one, with the epoch it chose.
        epochs: list[Epoch] = [row.epoch for row in rows if row.epoch != "unknown"]
        controls: list[Control] = [row.control for row in rows if row.gain is not None]
        yield _Quote(
            protocol=protocol,
            label=label,
            top1=top1,
            gain=None if is_control else _first([row.gain for row in rows]),
            teacher_top1=None if is_control else _first([row.teacher_top1 for row in rows]),
            epoch=epochs[0] if epochs else "unknown",
            control=controls[0] if controls else "unknown",
            sources=tuple(dict.fromkeys(row.origin for row in rows)),
        )


def _first(values: Sequence[float | None]) -> float | None:
    return next((value for value in values if value is not None), None)


def _other_protocol(own_protocol: str | None, protocol: str) -> str:
    """Why a number of another protocol is not comparable; empty for the study's own."""
    if not own_protocol:
        return "the suite follows no published protocol"
    if protocol == own_protocol:
        return ""
    all_protocols = protocols()
    if own_protocol in all_protocols and all_protocols[own_protocol].dataset != all_protocols[protocol].dataset:
        return f"other data ({all_protocols[protocol].dataset})"
    return f"protocol differs ({protocol})"


def _obstacle(study: Study) -> str:
    """What keeps the study as a whole from being comparable; empty when nothing does."""
    reduced = _REDUCED.search(study.manifest["protocol"])
    if reduced:
        return f"reduced run ({reduced[1].replace(',', ', ')})"
    return "validation split" if "val" in study.cells["split"].tolist() else ""


def _other_values(study: Study, method: str) -> str:
    """Which hyperparameters of a method are not the protocol's; empty when all are."""
    altered = study.manifest.get("altered", {}).get(method, [])
    return f"other hyperparameters ({', '.join(altered)})" if altered else ""


def _comparison(
    study: Study, accuracies: Accuracies, pair_method: tuple[str, str], quote: _Quote, reason: str
) -> Comparison:
    pair, method = pair_method
    of_epoch = accuracies.best if quote.epoch == "best" else accuracies.top1
    top1_by_seed = of_epoch[pair_method] if accuracies.complete(pair, method) else {}
    control = of_epoch[pair, study.control] if study.control and accuracies.complete(pair, study.control) else {}
    gains = [value - control[seed] for seed, value in top1_by_seed.items() if seed in control]
    if not reason and quote.epoch == "best" and any(map(math.isnan, top1_by_seed.values())):
        reason = NO_BEST
    top1 = _match(quote.top1, list(top1_by_seed.values()), ALLOWANCE)
    gain = _match(quote.gain, gains, math.sqrt(2) * ALLOWANCE)
    if reason:
        top1, gain = (replace(match, difference=math.nan, tolerance=math.nan, verdict=None) for match in (top1, gain))
    return Comparison(
        pair=pair,
        method=method,
        label=quote.label,
        protocol=quote.protocol,
        own_protocol=quote.protocol == study.manifest.get("published", {}).get("protocol"),
        epoch=quote.epoch,
        control=quote.control,
        sources=quote.sources,
        teacher_top1=math.nan if quote.teacher_top1 is None else quote.teacher_top1,
        reason=reason,
        seeds=len(top1_by_seed),
        top1=top1,
        gain=gain,
    )


def _match(published: float | None, values: Sequence[float], allowance: float) -> Match:
    ours = paired_t(values)
    if published is None:
        return Match(math.nan, UNKNOWN)
    difference = ours.value - published
    tolerance = math.hypot((ours.high - ours.low) / 2, allowance)
    if math.isnan(tolerance):
        return Match(published, ours, difference)
    verdict: Verdict = "reproduced" if abs(difference) <= tolerance else "below" if difference < 0 else "above"
    return Match(published, ours, difference, tolerance, verdict)
