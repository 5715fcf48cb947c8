"""A race: after each round methods that are shown worse than the best are dropped, and the rest goes on."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from rich.text import Text

from kdbench.analysis.race import shown_worse
from kdbench.files import write_json
from kdbench.results.folder import Results
from kdbench.results.schema import CellRecord, RaceNote
from kdbench.study.plan import Plan
from kdbench.study.run import RunOutcome, run
from kdbench.study.session import Session


def race(plan: Plan, session: Session, throughput: bool = True) -> RunOutcome:
    """Train round after round, a seed on every pair, without the methods that are shown worse than the best.

    Control and baseline go on to the end, because gains are taken against them. The race ends after the last seed, when
    a single other method is left, or when the time of the session is spent. What was dropped when is a function of the
    records, so the same command goes on where it was, and a full run into the same folder fills the gaps.

    Args:
        throughput: measure the throughput of the methods that are left.

    Raises:
        KdbenchError: the results folder cannot be written.
        KeyboardInterrupt: the user stopped it; what ran is checkpointed.
    """
    dropped: dict[str, int] = {}
    part, outcome = plan, RunOutcome({}, {})
    for rounds in range(1, len(plan.seeds) + 1):
        part = replace(plan, seeds=plan.seeds[:rounds], race=RaceNote(rounds=len(plan.seeds), dropped=dropped))
        outcome = run(part, session, throughput=False)
        if session.stop.closing:
            return outcome
        racing = [method.name for method in plan.methods if method.name not in dropped]
        worse = set(shown_worse(_accuracies(part, session.results, racing), len(plan.seeds)))
        out = [method.name for method in plan.methods if method.name in worse and method.role == "method"]
        dropped |= dict.fromkeys(out, rounds)
        left = [method.name for method in plan.methods if method.role == "method" and method.name not in dropped]
        _tell(session, rounds, out, left)
        if len(left) <= 1:
            break
    write_json(session.results.manifest_path, part.manifest([]))
    return run(part, session) if throughput else outcome


def _tell(session: Session, rounds: int, out: list[str], left: list[str]) -> None:
    gone = f"shown worse than the best and dropped: {', '.join(out)}; " if out else ""
    rest = "1 method goes on" if len(left) == 1 else f"{len(left)} methods go on"
    session.console.print(Text(f"race, round {rounds}: {gone}{rest}"), soft_wrap=True)


def _accuracies(plan: Plan, results: Results, methods: list[str]) -> dict[str, np.ndarray]:
    """Top-1 by method, (pairs, rounds), NaN where a cell is not done."""
    records: Mapping[str, CellRecord] = {record["key"]: record for record in results.cells()}
    pairs = [pair.name for pair in plan.pairs]
    top1 = {method: np.full((len(pairs), len(plan.seeds)), np.nan) for method in methods}
    for cell in plan.cells():
        record = records.get(cell.key)
        if cell.method.name in top1 and record is not None and "top1" in record:
            top1[cell.method.name][pairs.index(cell.pair.name), plan.seeds.index(cell.seed)] = record["top1"]
    return top1
