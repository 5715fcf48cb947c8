"""Two runs beside each other: the tables on the console, as Markdown and as JSON."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd
from rich.console import Console

from kdbench.analysis.runs import ALL_PAIRS, MEMORY_MARGIN, SPEED_MARGIN, Change, Row, RunComparison
from kdbench.analysis.stats import MIN_TEST_SEEDS
from kdbench.gate.tables import plain
from kdbench.report import text
from kdbench.report.escape import words
from kdbench.report.sections import Section
from kdbench.report.tables import markdown
from kdbench.report.terminal import print_section

WIDE = 120
"""Columns from which the console shows intervals, tests and what both runs have."""
MARKS = {"better": "▲", "worse": "▼", "equal": "=", "": ""}
LEGEND = (
    "top-1: new minus old in points, mean [95 % interval]; speed: images/s over the control's, new over old; memory: "
    "its peak, new over old. ▲ better and ▼ worse in the new run: p < 0.05 after Holm over the rows, of speed beyond "
    f"{SPEED_MARGIN:.0%}, too; memory beyond {MEMORY_MARGIN:.0%}, which is not tested. = no such change. paired: "
    f"by seed, within one protocol; Welch: independent seeds. No mark: not tested (wants {MIN_TEST_SEEDS} seeds of a "
    "run). X (2/3 new): only 2 of 3 runs of the new one are there, so there is no average."
)


def sections(comparison: RunComparison, full: bool = True) -> list[Section]:
    """A table over all pairs, then one a pair; `full` adds intervals, tests and what both runs have."""
    by_pair: dict[str, list[Row]] = {}
    for row in comparison.by_pair:
        by_pair.setdefault(row.place, []).append(row)
    groups = {ALL_PAIRS: list(comparison.over_pairs)} if comparison.over_pairs else {}
    return [_section(place, rows, full) for place, rows in (groups | by_pair).items()]


def _section(place: str, rows: Sequence[Row], full: bool) -> Section:
    shown = [column for column in ("accuracy", "speed", "memory") if any(_told(getattr(row, column)) for row in rows)]
    if any(row.planned != (0, 0) for row in rows) and "accuracy" not in shown:
        shown.insert(0, "accuracy")
    lines = []
    for row in rows:
        cells = {"method": row.method}
        if "accuracy" in shown:
            cells |= _accuracy(row, full)
        if "speed" in shown:
            cells |= _factor("speed", row.speed, text.ratio, full)
        if "memory" in shown:
            cells |= {"memory": text.ratio(row.memory.size.value) + MARKS[row.memory.mark]}
        lines.append(cells)
    title = f"Over {text.plural(rows[0].pairs, 'pair')}" if place == ALL_PAIRS else place
    return Section("", title, pd.DataFrame(lines), _under(rows))


def _told(change: Change) -> bool:
    return not math.isnan(change.size.value)


def _accuracy(row: Row, full: bool) -> dict[str, str]:
    change = row.accuracy
    if "unsupported" in row.states:
        told = "n/a"
    elif not _told(change):
        sides = zip(("old", "new"), row.done, row.planned, strict=True)
        told = f"X ({', '.join(f'{done}/{planned} {word}' for word, done, planned in sides if done < planned)})"
    else:
        told = text.difference(change.size, ends=full) + MARKS[change.mark]
    cells = {"old": text.fixed(change.old), "new": text.fixed(change.new)} if full else {}
    return cells | {"top-1": told, "p": text.p_value(change.p)} | ({"test": _test(change)} if full else {})


def _test(change: Change) -> str:
    """`paired 3`, `Welch 5/3`: how the accuracies were compared, and how many of each run."""
    old, new = change.n
    return f"{change.test.partition(' ')[0]} {old}" + (f"/{new}" if new != old else "") if change.test else text.NONE


def _factor(name: str, change: Change, write: Callable[[float], str], full: bool) -> dict[str, str]:
    size = text.ratio_spread(change.size) if full else text.ratio(change.size.value)
    both = f"{write(change.old)} to {write(change.new)}" if _told(change) else text.NONE
    cells = {f"{name} old to new": both} if full else {}
    return cells | {name: size + MARKS[change.mark], f"p {name}": text.p_value(change.p)}


def _under(rows: Sequence[Row]) -> str:
    """What was tested how, in a line."""
    tests = dict.fromkeys(_test(row.accuracy) for row in rows if row.accuracy.test)
    speeds = dict.fromkeys(row.speed.test for row in rows if row.speed.test)
    parts = [f"top-1: {', '.join(tests)}" if tests else "", f"speed: {', '.join(speeds)}" if speeds else ""]
    return "; ".join(filter(None, parts)) + "." if any(parts) else "Nothing to test."


def head(comparison: RunComparison, names: tuple[str, str]) -> list[str]:
    """Which runs these are, a line each."""
    lines = []
    for word, name, study in zip(("old", "new"), names, (comparison.old, comparison.new), strict=True):
        manifest, seeds = study.manifest, len(study.manifest["seeds"])
        scale = f"{text.plural(len(study.pairs), 'pair')}, {text.plural(len(study.methods), 'method')}"
        scale += f", {text.plural(seeds, 'seed')}" if seeds else ""
        lines.append(f"{word}: {name}, {manifest['protocol']}, {scale}, {text.devices(study, _measured(study))}")
    return lines


def _measured(study: Any) -> pd.DataFrame:
    return study.cells if len(study.cells) else study.throughput


def notes(comparison: RunComparison) -> list[str]:
    """What is not compared, and why; then how many rows changed how."""
    lines = list(comparison.notes)
    for word, places in (("old", comparison.only_old), ("new", comparison.only_new)):
        if places:
            lines.append(f"Only in the {word} run: {_listed(places)}.")
    return [*lines, summary(comparison)]


def _listed(places: Sequence[tuple[str, str]]) -> str:
    """`ofa, crd on a:b; kd on c:d`."""
    by_pair: dict[str, list[str]] = {}
    for pair, method in places:
        by_pair.setdefault(pair, []).append(method)
    by_methods: dict[str, list[str]] = {}
    for pair, methods in by_pair.items():
        by_methods.setdefault(", ".join(methods), []).append(pair)
    return "; ".join(f"{methods} on {', '.join(pairs)}" for methods, pairs in by_methods.items())


def summary(comparison: RunComparison) -> str:
    """`30 rows: top-1 1 worse, 29 equal; speed 30 equal`."""
    told = []
    for name, column in (("top-1", "accuracy"), ("speed", "speed"), ("memory", "memory")):
        changes: list[Change] = [getattr(row, column) for row in comparison.by_pair]
        counts = Counter(change.mark or "not tested" for change in changes if _told(change))
        if counts and column == "accuracy":
            counts["incomplete"] = sum("incomplete" in row.states for row in comparison.by_pair)
        if counts:
            words = ("better", "worse", "equal", "not tested", "incomplete")
            told.append(f"{name} {', '.join(f'{counts[word]} {word}' for word in words if counts[word])}")
    return f"{text.plural(len(comparison.by_pair), 'row')}: {'; '.join(told) or 'nothing to compare'}."


def print_comparison(comparison: RunComparison, names: tuple[str, str], console: Console) -> None:
    """Print everything; a wide console shows intervals and tests, too."""
    for line in head(comparison, names):
        console.print(line, style="bold", highlight=False, markup=False)
    for section in sections(comparison, full=console.width >= WIDE):
        print_section(console, section)
    for line in [*notes(comparison), LEGEND]:
        console.print(line, style="dim", highlight=False, markup=False)


def page(comparison: RunComparison, names: tuple[str, str]) -> str:
    """The same as Markdown."""
    blocks = ["# Two runs", "\n".join(f"* {words(line)}" for line in head(comparison, names))]
    for section in sections(comparison):
        blocks += [f"## {words(section.title)}", markdown(section.rows), words(section.under)]
    return "\n\n".join([*blocks, *map(words, notes(comparison)), LEGEND]) + "\n"


def as_json(comparison: RunComparison, names: tuple[str, str]) -> dict[str, Any]:
    """Everything, NaN as null."""
    runs = {
        word: {"folder": name, **{key: study.manifest[key] for key in ("suite", "protocol", "command", "seeds")}}
        for word, name, study in zip(("old", "new"), names, (comparison.old, comparison.new), strict=True)
    }
    return runs | {
        "over_pairs": [plain(asdict(row)) for row in comparison.over_pairs],
        "by_pair": [plain(asdict(row)) for row in comparison.by_pair],
        "only_old": comparison.only_old,
        "only_new": comparison.only_new,
        "notes": comparison.notes,
        "summary": summary(comparison),
    }
