"""How a cell can stand against the baseline, and what of it fails a check."""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from kdbench.analysis.stats import UNKNOWN, Interval
from kdbench.errors import EXIT_INCOMPLETE, EXIT_OK, EXIT_REGRESSION, EXIT_USAGE
from kdbench.gate.baseline import Baseline
from kdbench.gate.decision import Shift
from kdbench.results.study import PairMethod


class Outcome(StrEnum):
    """How a cell stands against the baseline."""

    IDENTICAL = "IDENTICAL"
    PASS = "PASS"
    CLEARED = "CLEARED"
    WORSE = "WORSE"
    BETTER = "BETTER"
    SLOWER = "SLOWER"
    FASTER = "FASTER"
    MISSING_BASELINE = "MISSING_BASELINE"
    MISSING_CELL = "MISSING_CELL"
    NEW_METHOD = "NEW_METHOD"
    STALE_PROTOCOL = "STALE_PROTOCOL"
    FAILED_CELL = "FAILED_CELL"


EXIT_CODES = {
    Outcome.WORSE: EXIT_REGRESSION,
    Outcome.BETTER: EXIT_REGRESSION,
    Outcome.SLOWER: EXIT_REGRESSION,
    Outcome.MISSING_CELL: EXIT_INCOMPLETE,
    Outcome.FAILED_CELL: EXIT_INCOMPLETE,
    Outcome.MISSING_BASELINE: EXIT_USAGE,
    Outcome.STALE_PROTOCOL: EXIT_USAGE,
}
"""Of the outcomes that do not pass. SLOWER passes unless the caller says otherwise."""

SEVERITY = (EXIT_REGRESSION, EXIT_USAGE, EXIT_INCOMPLETE)
"""Where several cells do not pass, the first of these that occurs is the exit code."""

Blame = Literal["trainer", "method"]
"""What moved: everything that is trained on the pair, or the method alone."""


@dataclass(frozen=True)
class Verdict:
    """What is known of one (pair, method).

    Attributes:
        outcome: of the accuracy and the losses.
        reason: why, in a line; empty where there is nothing to explain.
        wants: how many fresh seeds it takes to go on; 0 where the outcome is final.
        blame: of WORSE and BETTER, where it can be told.
        accuracy: last-epoch top-1 in percent.
        gain: the same over the control, by the seeds that the accuracy was tested on; p is not corrected.
        loss: of the loss term that moved most.
        term: its name.
        speed: outcome of the throughput, PASS, SLOWER or FASTER, or why there is none; None where none is expected.
        old_ratio, new_ratio: images/s over the control's, median with its interval.
        finds: the drop in points that the two stages find with 80 % probability.
    """

    pair: str
    method: str
    outcome: Outcome
    reason: str = ""
    wants: int = 0
    blame: Blame | None = None
    accuracy: Shift | None = None
    gain: Shift | None = None
    loss: Shift | None = None
    term: str = ""
    speed: Outcome | None = None
    old_ratio: Interval = UNKNOWN
    new_ratio: Interval = UNKNOWN
    finds: float = math.nan

    @property
    def pair_method(self) -> PairMethod:
        return self.pair, self.method


@dataclass(frozen=True)
class CheckResult:
    """The verdicts, by pair, then method, and what they were held against.

    Attributes:
        fail_on_speed: SLOWER, and throughput that was not measured, do not pass.
    """

    baseline: Baseline
    command: str
    verdicts: tuple[Verdict, ...]
    fail_on_speed: bool

    def failures(self, verdict: Verdict) -> list[Outcome]:
        """The outcomes of a verdict that do not pass."""
        outcomes = [verdict.outcome]
        if self.fail_on_speed and verdict.speed is not None:
            outcomes.append(verdict.speed)
        return [outcome for outcome in outcomes if outcome in EXIT_CODES]

    @property
    def exit_code(self) -> int:
        """The exit code of the check: 0 where everything passes, else that of the most serious outcome."""
        codes = {EXIT_CODES[outcome] for verdict in self.verdicts for outcome in self.failures(verdict)}
        return next((code for code in SEVERITY if code in codes), EXIT_OK)
