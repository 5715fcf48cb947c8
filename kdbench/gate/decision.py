"""The two-stage test of the gate, and what it finds; numbers in, decisions out.

Three new seeds are held against the baseline's with a pooled two-sided t-test. What is suspicious gets three more, and
moves only if all six say so much more strongly. Simulated with 20 seeds in the baseline and normal noise of standard
deviation sigma (200,000 studies; tests/gate/test_decision.py repeats it):

===========================  ==========  =======
alarms                       `ACCURACY`  `LOSS`
===========================  ==========  =======
no change, a cell               0.17 %    0.01 %
no change, any of 20 cells      3.4 %     0.2 %
a shift of 2 sigma             75 %      40 %
2.5 sigma                      95 %      73 %
3 sigma                        99 %      93 %
===========================  ==========  =======

A single stage of three seeds at p < .01 would raise six times the false alarms.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

FIRST = 3
"""New seeds of the first stage."""
MORE = 3
"""Further seeds of a suspicious cell."""

NO_SPREAD = 1e-9
"""Standard errors below it come from rounding."""

Stage = Literal["pass", "suspicious", "cleared", "moved"]
"""`suspicious`: the first stage cannot let it pass, and the further seeds are not there yet."""


@dataclass(frozen=True)
class Thresholds:
    """p-values of the two stages.

    Attributes:
        suspect: of the first stage, below which further seeds are asked for.
        fail: of all seeds together, below which it has moved.
    """

    suspect: float
    fail: float


ACCURACY = Thresholds(suspect=0.05, fail=0.002)
LOSS = Thresholds(suspect=0.01, fail=0.0001)
"""Of the training losses, which a changed objective moves by many sigma: strict, to add next to no false alarms."""


@dataclass(frozen=True)
class Shift:
    """New values against those of the baseline.

    Attributes:
        old, sigma, n_old: mean, standard deviation and number of the baseline's values.
        new, n_new: mean and number of the new values that the test used.
        p: of the pooled t-test on those; NaN with fewer than 2 values on either side.
        stage: what the two stages say.
    """

    old: float
    sigma: float
    n_old: int
    new: float
    n_new: int
    p: float
    stage: Stage

    @property
    def difference(self) -> float:
        """The mean of the new seeds minus that of the old ones."""
        return self.new - self.old


def pooled_p(old: Sequence[float], new: Sequence[float]) -> float:
    """Two-sided p-value of "both have one mean", by the t-test with pooled variance.

    Where neither side has any spread it is 1 for equal means and 0 for others. NaN for an empty side or a single pair,
    or where a value is not finite.
    """
    freedom = len(old) + len(new) - 2
    if not old or not new or freedom < 1:
        return math.nan
    a, b = np.asarray(old, dtype=np.float64), np.asarray(new, dtype=np.float64)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return math.nan
    squares = float(((a - a.mean()) ** 2).sum() + ((b - b.mean()) ** 2).sum())
    return float(_p(float(a.mean() - b.mean()), squares, len(old), len(new)))


def two_stage(old: Sequence[float], new: Sequence[float], limits: Thresholds, tests: int = 1) -> Shift:
    """Hold new values, in the order of their seeds, against the baseline's.

    Args:
        old: the baseline's values.
        new: at least `FIRST` values; the first `FIRST + MORE` are looked at, those of the second stage only where the
            first one is suspicious.
        tests: how many tests share the limits (Bonferroni); p is multiplied by it.
    """
    used = list(new[:FIRST])
    p = min(1.0, tests * pooled_p(old, used))
    stage: Stage = "pass"
    if p < limits.suspect:
        stage = "suspicious"
        if len(new) >= FIRST + MORE:
            used = list(new[: FIRST + MORE])
            p = min(1.0, tests * pooled_p(old, used))
            stage = "moved" if p < limits.fail else "cleared"
    return Shift(
        old=float(np.mean(old)),
        sigma=float(np.std(old, ddof=1)) if len(old) > 1 else math.nan,
        n_old=len(old),
        new=float(np.mean(used)),
        n_new=len(used),
        p=p,
        stage=stage,
    )


def alarms(shift: float, n: int, limits: Thresholds = ACCURACY, studies: int = 20_000) -> tuple[float, float]:
    """Shares of simulated studies with a suspicious first stage, and of those in which the cell has moved.

    Args:
        shift: of the new seeds' mean, in standard deviations of the noise.
        n: seeds of the baseline, 2 or more.
    """
    # The baseline enters by its mean and its sum of squares alone: normal and chi-squared.
    random = np.random.default_rng(4)
    mean, squares = random.normal(0, 1 / math.sqrt(n), studies), random.chisquare(n - 1, studies)
    new = random.normal(shift, 1, (studies, FIRST + MORE))

    def p(values: NDArray[np.float64]) -> NDArray[np.float64]:
        means = values.mean(axis=1)
        return _p(means - mean, squares + ((values - means[:, None]) ** 2).sum(axis=1), n, values.shape[1])

    suspicious = p(new[:, :FIRST]) < limits.suspect
    return float(suspicious.mean()), float((suspicious & (p(new) < limits.fail)).mean())


@lru_cache
def detectable_drop(n: int, power: float = 0.8) -> float:
    """The drop, in standard deviations of the noise, that is found with probability `power` against `n` seeds.

    It is found by bisection of `alarms`, which draws the same noise every time and so grows with the shift.
    """
    low, high = 0.0, 16.0
    while high - low > 0.005:
        middle = (low + high) / 2
        low, high = (low, middle) if alarms(middle, n)[1] >= power else (middle, high)
    return high


def false_alarm(cells: int, n: int) -> float:
    """Probability that any of `cells` independent cells raises an alarm where nothing changed."""
    return 1 - (1 - alarms(0.0, n, studies=200_000)[1]) ** cells


def _p(
    difference: float | NDArray[np.float64], squares: float | NDArray[np.float64], n: int, m: int
) -> NDArray[np.float64]:
    """Two-sided p-values of differences of the means of n and m values, given their pooled sums of squares."""
    freedom = n + m - 2
    # Rounding alone gives equal percentages a spread of some 1e-14; with no more than that, any difference is one.
    error = np.maximum(np.sqrt(np.asarray(squares) / freedom * (1 / n + 1 / m)), NO_SPREAD)
    return np.asarray(2 * stdtr(freedom, -np.abs(difference) / error))
