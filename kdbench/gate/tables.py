"""What `kdbench check` and `kdbench baseline` print: tables on the console, and the same as JSON."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kdbench.gate.baseline import LEAST_SEEDS, Baseline, BaselineChange, Scattered
from kdbench.gate.decision import Shift, false_alarm
from kdbench.gate.verdict import CheckResult, Outcome, Verdict
from kdbench.report.text import NONE, fixed, p_value, plain, plural, ratio, signed

WIDE = 135
"""Columns from which the console shows everything."""
STYLES = {Outcome.WORSE: "red", Outcome.BETTER: "magenta", Outcome.FAILED_CELL: "red", Outcome.MISSING_CELL: "red"} | {
    Outcome.SLOWER: "yellow",
    Outcome.FASTER: "yellow",
    Outcome.CLEARED: "yellow",
    Outcome.NEW_METHOD: "yellow",
    Outcome.MISSING_BASELINE: "red",
    Outcome.STALE_PROTOCOL: "red",
}
LEGEND = (
    "old and new: mean last-epoch top-1 in percent; change: points; p: of the last stage made, not corrected for the "
    "number of cells; finds: the drop found with 80 % probability; speed: images/s over the control's."
)


def columns(verdict: Verdict, full: bool) -> dict[str, str]:
    """The cells of a row; `full` adds gain, loss and what can be found."""
    accuracy = verdict.accuracy
    cells = {"outcome": verdict.outcome.value, "pair": verdict.pair or NONE, "method": verdict.method}
    has_accuracy = accuracy is not None
    if full:
        cells |= {
            "old": fixed(accuracy.old) if has_accuracy else NONE,
            "new": fixed(accuracy.new) if has_accuracy else NONE,
        }
    cells |= {
        "change": signed(accuracy.difference) if has_accuracy else NONE,
        "p": p_value(accuracy.p) if has_accuracy else NONE,
    }
    if full:
        cells |= {"gain": _shift(verdict.gain), "loss": _loss(verdict), "finds": fixed(verdict.finds)}
    cells["speed"] = _speed(verdict, full)
    return cells


def _shift(shift: Shift | None) -> str:
    return f"{signed(shift.difference)} ({p_value(shift.p)})" if shift else NONE


def _loss(verdict: Verdict) -> str:
    return f"{verdict.term} {verdict.loss.difference:+.2g} ({p_value(verdict.loss.p)})" if verdict.loss else NONE


def _speed(verdict: Verdict, full: bool) -> str:
    if verdict.speed is None or verdict.speed is Outcome.MISSING_CELL:
        return NONE
    if math.isnan(verdict.new_ratio.value):
        return verdict.speed.value
    mark = "" if verdict.speed is Outcome.PASS else f" {verdict.speed.value}"
    old = f"{ratio(verdict.old_ratio.value)} to " if full else ""
    return f"{old}{ratio(verdict.new_ratio.value)}{mark}"


def explanations(check: CheckResult) -> list[str]:
    """A line for every verdict that needs one."""
    lines = []
    for verdict in check.verdicts:
        where = f"{verdict.method} on {verdict.pair}" if verdict.pair else verdict.method
        if verdict.reason:
            blame = f" ({verdict.blame})" if verdict.blame else ""
            lines.append(f"{verdict.outcome.value}{blame} {where}: {verdict.reason}")
        if verdict.speed in (None, Outcome.PASS):
            continue
        if check.fail_on_speed or verdict.speed is not Outcome.MISSING_CELL:
            lines.append(f"{verdict.speed.value} {where}: {speed_reason(verdict)}")
    return lines


def speed_reason(verdict: Verdict) -> str:
    """What is to be said of a throughput that is not PASS."""
    old, new = verdict.old_ratio, verdict.new_ratio
    if math.isnan(new.value):
        return "its throughput was not measured, or under another protocol"
    if math.isnan(old.low) or math.isnan(new.low):
        return "its throughput was measured in too few blocks to tell a difference from noise"
    return (
        f"{ratio(new.value)} the control's images/s [{new.low:.2f}, {new.high:.2f}], "
        f"in the baseline {ratio(old.value)} [{old.low:.2f}, {old.high:.2f}]"
    )


def outcome_counts(check: CheckResult) -> str:
    """How many cells have which outcome: `30 cells: 28 PASS, 1 CLEARED, 1 WORSE`."""
    speeds = [verdict.speed for verdict in check.verdicts if verdict.speed in (Outcome.SLOWER, Outcome.FASTER)]
    counts = Counter([*(verdict.outcome for verdict in check.verdicts), *speeds])
    counted = [f"{counts[outcome]} {outcome.value}" for outcome in Outcome if counts[outcome]]
    return f"{plural(len(check.verdicts), 'cell')}: {', '.join(counted) or 'nothing to check'}"


def power_line(check: CheckResult) -> str:
    """A line about the smallest drop that the check can find, and the probability of a false alarm."""
    able = [verdict for verdict in check.verdicts if not math.isnan(verdict.finds)]
    drops = [verdict.finds for verdict in able]
    if not drops:
        return "The baseline has too few seeds to tell what can be found."
    n = len(check.baseline.seeds)
    middle = sorted(drops)[len(drops) // 2]
    smallest = (
        f"Smallest drop of top-1 found with 80 % probability: {min(drops):.2f} to {max(drops):.2f} points by cell, "
        f"median {middle:.2f} (baseline of {plural(n, 'seed')})."
    )
    # What is identical needs no test, and cannot raise a false alarm.
    tested = sum(verdict.outcome is not Outcome.IDENTICAL for verdict in able)
    if not tested:
        return smallest
    alarm = 100 * false_alarm(tested, n)
    return f"{smallest} Probability that any of {plural(tested, 'cell')} fails where nothing changed: {alarm:.1f} %."


def provisional(baseline: Baseline) -> str:
    """The warning that goes with a baseline that is not fit to judge by; empty for one that is."""
    if not baseline.provisional:
        return ""
    return (
        f"The baseline is provisional: fewer than {LEAST_SEEDS} seeds, or made from a tree with uncommitted changes "
        "or of no known revision."
    )


def print_check(check: CheckResult, console: Console) -> None:
    """The table, what needs an explanation, the summary."""
    full = console.width >= WIDE
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0, 0, 1))
    rows = [columns(verdict, full) for verdict in check.verdicts]
    for name in rows[0] if rows else ():
        table.add_column(name, justify="left" if name in ("outcome", "pair", "method") else "right", overflow="fold")
    for verdict, row in zip(check.verdicts, rows, strict=True):
        style = STYLES.get(verdict.outcome) or STYLES.get(verdict.speed or Outcome.PASS, "")
        table.add_row(*map(Text, row.values()), style=style)
    console.print(table)
    for line in explanations(check):
        console.print(line, highlight=False, markup=False)
    good = check.exit_code == 0
    console.print(outcome_counts(check), style="bold green" if good else "bold red", highlight=False, markup=False)
    for line in filter(None, (provisional(check.baseline), power_line(check), LEGEND)):
        console.print(line, style="dim", highlight=False, markup=False)


def check_as_json(check: CheckResult) -> dict[str, Any]:
    """The whole check as a dict that JSON can hold; NaN becomes null."""
    return {
        "suite": check.baseline.suite,
        "protocol": check.baseline.protocol,
        "provisional": check.baseline.provisional,
        "baseline_seeds": check.baseline.seeds,
        "command": check.command,
        "exit_code": check.exit_code,
        "summary": outcome_counts(check),
        "cells": [plain(asdict(verdict)) for verdict in check.verdicts],
    }


def print_baseline(baseline: Baseline, console: Console) -> None:
    """Print what a baseline holds."""
    environment = next(iter(baseline.environments.values()))
    revisions = sorted({str((one.get("git") or {}).get("revision"))[:12] for one in baseline.environments.values()})
    console.print(
        f"{baseline.suite} ({baseline.protocol}, {baseline.split} split), {plural(len(baseline.cells), 'cell')} of "
        f"{plural(len(baseline.seeds), 'seed')}; revision {', '.join(revisions)}, torch {environment.get('torch')}, "
        f"{environment.get('device')}",
        highlight=False,
        markup=False,
    )
    console.print(f"made by `{baseline.command}`", highlight=False, markup=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("pair", "method", "top-1", "gain", "speed", "s/seed"):
        table.add_column(name, justify="left" if name in ("pair", "method") else "right")
    for cell in baseline.cells:
        gain = NONE if cell.method == baseline.control else _mean_std(baseline.gains(cell.pair_method), signed)
        speed = ratio(sorted(cell.ratios)[len(cell.ratios) // 2]) if cell.ratios else NONE
        seconds = NONE if cell.seconds is None else f"{cell.seconds:.1f}"
        row = (cell.pair, cell.method, _mean_std(cell.top1, fixed), gain, speed, seconds)
        table.add_row(*map(Text, row))
    console.print(table)
    if warning := provisional(baseline):
        console.print(warning, style="yellow", highlight=False, markup=False)


def _mean_std(values: Sequence[float], write: Any) -> str:
    mean = sum(values) / len(values)
    if len(values) < 2:
        return write(mean)
    return f"{write(mean)} ± {math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1)):.2f}"


def print_changes(changes: Sequence[BaselineChange], console: Console) -> None:
    """Old baseline against new, cell by cell."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("pair", "method", "old", "new", "change", "p"):
        table.add_column(name, justify="left" if name in ("pair", "method") else "right")
    for row in changes:
        numbers = (fixed(row.old), fixed(row.new), signed(row.new - row.old), p_value(row.p))
        table.add_row(*map(Text, (row.pair, row.method, *numbers)))
    console.print(table)


def scattered_lines(cells: Sequence[Scattered]) -> list[str]:
    """What is wrong with each cell that is too scattered to judge by."""
    return [
        f"{cell.method} on {cell.pair} spreads by {cell.spread:.1f} points over its seeds, seed {cell.seed} lies "
        f"{cell.below:.1f} below the median"
        for cell in cells
    ]


def changes_as_json(changes: Sequence[BaselineChange]) -> list[dict[str, Any]]:
    """The rows of `print_changes`, NaN as null."""
    return [plain(asdict(row)) for row in changes]
