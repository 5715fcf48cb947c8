"""What a reader must know beside the numbers: what is missing, failed, unsupported or left out, and why."""

from collections.abc import Iterable

import pandas as pd

from kdbench.analysis.frames import MISSING
from kdbench.report.content import Content
from kdbench.report.text import devices, plural

ORDER = (MISSING, "failed", "oom", "diverged", "timeout", "interrupted", "unsupported")


def completeness(content: Content) -> str:
    """`42 of 45 cells done, 2 missing, 1 failed`."""
    statuses = content.study.cells["status"].tolist()
    others = [f"{statuses.count(status)} {status}" for status in ORDER if status in statuses]
    return ", ".join([f"{statuses.count('done')} of {plural(len(statuses), 'cell')} done", *others])


def notes(content: Content) -> list[str]:
    """One line a fact, none when all is well."""
    study = content.study
    lines = []
    if study.control is None:
        lines.append("No method of this study is recorded as the control, so there are no gains.")
    if study.baseline is None:
        lines.append("No method of this study is recorded as the baseline, so nothing is compared with one.")
    lines += [f"Accuracy, {line}" for line in _not_done(content, study.cells)]
    lines += _left_out(content)
    if content.has_throughput:
        lines += [f"Throughput, {line}" for line in _not_done(content, _throughput_places(content))]
    else:
        lines.append("Throughput was not measured, so its tables and figures are left out.")
    if any(cost.utilisation > 0 for cost in content.costs.values()):
        lines.append(
            "Utilisation: operations a second of the two networks (three times the student's forward pass, the "
            "teacher's once) over those of a large matrix product on the same device; a method's own are not counted."
        )
    if "," in (names := devices(study, study.cells)):
        lines.append(f"The cells were trained on several devices: {names}.")
    if others := sorted({row.protocol for row in content.published if not row.own_protocol}):
        lines.append(f"Also published, under protocols that are not comparable: {', '.join(others)} (pair by pair).")
    if content.open is not None:
        names, state = ", ".join(content.open.study.differs), completeness(content.open)
        lines.append(f"Open division ({names}), control and baseline included: {state}.")
    if tuned := study.manifest.get("tuned"):
        draws, sha256 = plural(tuned["trials"], "draw"), tuned["sha256"][:12]
        lines.append(f"Hyperparameters: tuned on held-out images, {draws} a method ({tuned['file']}, {sha256}).")
    if study.ignored:
        lines.append(f"{plural(study.ignored, 'record')} of other settings or machines left aside.")
    return lines


def _throughput_places(content: Content) -> pd.DataFrame:
    """One row a (pair, method), those without a measurement too."""
    rows = [(cost.pair, cost.method, cost.status) for cost in content.costs.values()]
    places = pd.DataFrame(rows, columns=["pair", "method", "status"])
    return places.merge(content.study.throughput[["pair", "method", "error"]], how="left", on=["pair", "method"])


def _not_done(content: Content, records: pd.DataFrame) -> list[str]:
    """What did not come to its end: one line for all that share place and reason."""
    study = content.study
    where: dict[tuple[str, str, str], dict[str, list[int]]] = {}
    seeds = records["seed"].tolist() if "seed" in records else [None] * len(records)
    columns = (records[name].tolist() for name in ("status", "method", "error", "pair"))
    for status, method, error, pair, seed in zip(*columns, seeds, strict=True):
        if status != "done":
            reason = error if isinstance(error, str) else ""
            found = where.setdefault((status, method, reason), {}).setdefault(pair, [])
            found += [] if seed is None else [seed]
    lines: dict[tuple[str, str, str], list[str]] = {}
    for status, method, reason in sorted(where, key=lambda key: (ORDER.index(key[0]), study.methods.index(key[1]))):
        places = where[status, method, reason]
        whole = all(len(found) in (0, len(study.manifest["seeds"])) for found in places.values())
        if whole and len(places) == len(study.pairs):
            place = "all pairs"
        else:
            place = ", ".join(_with_seeds(pair, found, whole) for pair, found in places.items())
        ending = f" ({' '.join(reason.split())})" if reason else ""
        lines.setdefault((status, place, ending), []).append(method)
    return [f"{status}: {', '.join(methods)} on {place}{ending}" for (status, place, ending), methods in lines.items()]


def _with_seeds(pair: str, seeds: Iterable[int], whole: bool) -> str:
    numbers = [str(seed) for seed in seeds]
    return pair if whole else f"{pair} seed{'s' * (len(numbers) > 1)} {' '.join(numbers)}"


def _left_out(content: Content) -> list[str]:
    study = content.study
    if study.control is None:
        return []
    lines = []
    for group, pairs in study.groups.items():
        rows = [row for row in content.group_gains.values() if row.group == group and row.state != "complete"]
        if rows:
            names = ", ".join(f"{row.method} ({row.n}/{row.planned} runs)" for row in rows)
            lines.append(f"Left out of the means and ranks over the {len(pairs)} {group} pairs: {names}.")
    return lines
