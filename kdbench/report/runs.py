"""Two runs beside each other: the tables on the console, as Markdown and as JSON."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console

from kdbench.analysis.runs import ALL_PAIRS, MEMORY_MARGIN, SPEED_MARGIN, Change, Row, RunComparison
from kdbench.analysis.stats import MIN_TEST_SEEDS
from kdbench.report import text
from kdbench.report.render import render_template
from kdbench.report.tables import Table, row_of
from kdbench.report.terminal import print_line, print_table

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


def comparison_tables(comparison: RunComparison, full: bool = True) -> list[Table]:
    """A table over all pairs, then one a pair; `full` adds intervals, tests and what both runs have."""
    by_place: dict[str, list[Row]] = {}
    for row in (*comparison.over_pairs, *comparison.by_pair):
        by_place.setdefault(row.place, []).append(row)
    return [_table(place, rows, full) for place, rows in by_place.items()]


def _table(place: str, rows: Sequence[Row], full: bool) -> Table:
    shown = {
        "accuracy": any(_is_known(row.accuracy) or row.planned != (0, 0) for row in rows),
        "speed": any(_is_known(row.speed) for row in rows),
        "memory": any(_is_known(row.memory) for row in rows),
    }
    title = f"Over {text.plural(rows[0].pairs, 'pair')}" if place == ALL_PAIRS else place
    return Table("", title, [_line(row, shown, full) for row in rows], _note(rows))


def _line(row: Row, shown: Mapping[str, bool], full: bool) -> dict[str, str]:
    accuracy, speed, memory = row.accuracy, row.speed, row.memory
    both = f"{text.ratio(speed.old)} to {text.ratio(speed.new)}" if _is_known(speed) else text.NONE
    factor = text.ratio_spread(speed.size) if full else text.ratio(speed.size.value)
    return row_of(
        ("method", row.method, True),
        ("old", text.fixed(accuracy.old), shown["accuracy"] and full),
        ("new", text.fixed(accuracy.new), shown["accuracy"] and full),
        ("top-1", _top1(row, full), shown["accuracy"]),
        ("p", text.p_value(accuracy.p), shown["accuracy"]),
        ("test", _test(accuracy), shown["accuracy"] and full),
        ("speed old to new", both, shown["speed"] and full),
        ("speed", factor + MARKS[speed.mark], shown["speed"]),
        ("p speed", text.p_value(speed.p), shown["speed"]),
        ("memory", text.ratio(memory.size.value) + MARKS[memory.mark], shown["memory"]),
    )


def _is_known(change: Change) -> bool:
    return not math.isnan(change.size.value)


def _top1(row: Row, full: bool) -> str:
    if "unsupported" in row.states:
        return "n/a"
    if _is_known(row.accuracy):
        return text.difference(row.accuracy.size, with_ends=full) + MARKS[row.accuracy.mark]
    sides = zip(("old", "new"), row.done, row.planned, strict=True)
    return f"X ({', '.join(f'{done}/{planned} {word}' for word, done, planned in sides if done < planned)})"


def _test(change: Change) -> str:
    """`paired 3`, `Welch 5/3`: how the accuracies were compared, and how many of each run."""
    old, new = change.n
    return f"{change.test.partition(' ')[0]} {old}" + (f"/{new}" if new != old else "") if change.test else text.NONE


def _note(rows: Sequence[Row]) -> str:
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
        devices = text.devices(study, study.cells if len(study.cells) else study.throughput)
        lines.append(f"{word}: {name}, {manifest['protocol']}, {scale}, {devices}")
    return lines


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
        counts = Counter(change.mark or "not tested" for change in changes if _is_known(change))
        if counts and column == "accuracy":
            counts["incomplete"] = sum("incomplete" in row.states for row in comparison.by_pair)
        if counts:
            words = ("better", "worse", "equal", "not tested", "incomplete")
            told.append(f"{name} {', '.join(f'{counts[word]} {word}' for word in words if counts[word])}")
    return f"{text.plural(len(comparison.by_pair), 'row')}: {'; '.join(told) or 'nothing to compare'}."


def print_comparison(comparison: RunComparison, names: tuple[str, str], console: Console) -> None:
    """Print everything; a wide console shows intervals and tests, too."""
    for line in head(comparison, names):
        print_line(console, line, "bold")
    for table in comparison_tables(comparison, full=console.width >= WIDE):
        print_table(console, table)
    for line in [*notes(comparison), LEGEND]:
        print_line(console, line, "dim")


def page(comparison: RunComparison, names: tuple[str, str]) -> str:
    """The same as Markdown."""
    told = {"head": head(comparison, names), "tables": comparison_tables(comparison), "notes": notes(comparison)}
    return render_template("runs.md", **told, legend=LEGEND)


def as_json(comparison: RunComparison, names: tuple[str, str]) -> dict[str, Any]:
    """Everything, NaN as null."""
    runs = {
        word: {"folder": name, **{key: study.manifest[key] for key in ("suite", "protocol", "command", "seeds")}}
        for word, name, study in zip(("old", "new"), names, (comparison.old, comparison.new), strict=True)
    }
    return runs | {
        "over_pairs": [text.plain(asdict(row)) for row in comparison.over_pairs],
        "by_pair": [text.plain(asdict(row)) for row in comparison.by_pair],
        "only_old": comparison.only_old,
        "only_new": comparison.only_new,
        "notes": comparison.notes,
        "summary": summary(comparison),
    }
