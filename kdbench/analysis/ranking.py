"""Ranks over many pairs: Friedman's test and Nemenyi's critical difference (Demsar 2006).

Here a pair is one observation, its top-1 a mean over seeds: unlike the intervals of `gains` this speaks of pairs of
models at large, as far as those of a study stand for them. That takes many: with 5 methods the critical difference is
2.5 ranks on 6 pairs and 1.9 on 10, with 10 methods 5.5 and 4.3.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from scipy.special import chdtrc, ndtr

from kdbench.analysis.gains import Accuracies
from kdbench.analysis.stats import ALPHA, ranks, root
from kdbench.results.study import Group, Study

MIN_PAIRS = 10
"""A critical difference on fewer pairs separates hardly anything, and is not drawn."""


@dataclass(frozen=True)
class Ranking:
    """The methods of a group that are complete on all its pairs, by mean rank (1 is best).

    Attributes:
        pairs: over which is ranked.
        methods, mean_ranks: best first; empty with fewer than two complete methods.
        p: of Friedman's test, "all methods rank alike", with its correction for ties; NaN where all are equal.
        critical_difference: mean ranks nearer than this do not differ (Nemenyi, ALPHA); NaN without methods.
        cliques: the largest sets of neighbours that do not differ, as first and last index into `methods`.
    """

    group: Group
    pairs: int
    methods: tuple[str, ...]
    mean_ranks: tuple[float, ...]
    p: float
    critical_difference: float
    cliques: tuple[tuple[int, int], ...]

    @property
    def meaningful(self) -> bool:
        """Whether there are enough pairs for the critical difference to be drawn."""
        return self.pairs >= MIN_PAIRS and len(self.methods) > 1


def rankings(study: Study) -> list[Ranking]:
    """The ranking of every group of the study."""
    accuracies = Accuracies(study)
    return [_ranking(study, accuracies, group) for group in study.groups]


def _ranking(study: Study, accuracies: Accuracies, group: Group) -> Ranking:
    pairs = study.groups[group]
    complete = [method for method in study.methods if all(accuracies.complete(pair, method) for pair in pairs)]
    if len(complete) < 2:
        return Ranking(group, len(pairs), (), (), math.nan, math.nan, ())
    means = [[fmean(top1) for top1 in accuracies.together(pair, complete)] for pair in pairs]
    placed = ranks(np.array(means))
    order = np.argsort(placed.mean(axis=0), kind="stable")
    ranked = placed.mean(axis=0)[order].tolist()
    difference = critical_difference(len(complete), len(pairs))
    return Ranking(
        group=group,
        pairs=len(pairs),
        methods=tuple(complete[i] for i in order),
        mean_ranks=tuple(ranked),
        p=friedman_p(placed),
        critical_difference=difference,
        cliques=tuple(_cliques(ranked, difference)),
    )


def friedman_p(placed: np.ndarray) -> float:
    """P-value of Friedman's chi-square test on ranks of shape (pairs, methods), ties corrected."""
    pairs, methods = placed.shape
    spread = float(((placed - (methods + 1) / 2) ** 2).sum())
    if spread == 0:
        return math.nan
    between = pairs**2 * float(((placed.mean(axis=0) - (methods + 1) / 2) ** 2).sum())
    return float(chdtrc(methods - 1, (methods - 1) * between / spread))


def critical_difference(methods: int, pairs: int) -> float:
    """Nemenyi's critical difference of mean ranks at ALPHA (Demsar 2006, section 3.2.2)."""
    # The quantile of the range of that many standard normal values; SciPy's own takes half a second, for every report.
    z = np.linspace(-9, 9, 2001)
    density = methods * (z[1] - z[0]) * np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    q = root(lambda width: float(density @ (ndtr(z) - ndtr(z - width)) ** (methods - 1)) - (1 - ALPHA), 0, 20)
    return q / math.sqrt(2) * math.sqrt(methods * (methods + 1) / (6 * pairs))


def _cliques(ranked: Sequence[float], difference: float) -> list[tuple[int, int]]:
    cliques: list[tuple[int, int]] = []
    for first in range(len(ranked)):
        last = max(i for i in range(len(ranked)) if ranked[i] - ranked[first] < difference)
        if last > first and (not cliques or last > cliques[-1][1]):
            cliques.append((first, last))
    return cliques
