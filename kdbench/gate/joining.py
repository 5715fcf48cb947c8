"""A baseline in parts: what later results add to one, in seeds, methods or pairs."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from kdbench.errors import KdbenchError
from kdbench.gate.baseline import TRACED_SEEDS, Baseline, BaselineCell, doubt
from kdbench.results.study import PairMethod


@dataclass(frozen=True)
class _Seed:
    """A seed of a cell.

    Attributes:
        top1: of the last epoch, in percent.
        losses: every loss term in the last epoch.
        trace: every loss term by epoch; None where the baseline keeps none of this seed.
    """

    top1: float
    losses: dict[str, float]
    trace: dict[str, list[float]] | None


def join_baselines(old: Baseline, new: Baseline) -> Baseline:
    """`old` with the seeds, methods and pairs that `new` adds.

    Raises:
        KdbenchError: the two are of different settings or machines, differ in a seed that both have (what trains has
            changed in between), or leave a cell without one of the seeds.
    """
    _refuse_mixture(old, new)
    seeds = sorted({*old.seeds, *new.seeds})
    pair_methods = dict.fromkeys([*old.by_pair_method, *new.by_pair_method])
    environments = old.environments | new.environments
    return Baseline.model_validate(
        {
            **new.model_dump(by_alias=True, exclude={"cells"}),
            "provisional": doubt(seeds, environments) is not None,
            "command": "; ".join(dict.fromkeys([old.command, new.command])),
            "seeds": seeds,
            "roles": old.roles | new.roles,
            "hyperparameters": old.hyperparameters | new.hyperparameters,
            "teachers": old.teachers | new.teachers,
            "environments": environments,
            "cells": [
                _cell(pair_method, seeds, [one for one in (old, new) if pair_method in one.by_pair_method])
                for pair_method in pair_methods
            ],
        }
    )


def _refuse_mixture(old: Baseline, new: Baseline) -> None:
    for what in ("suite", "protocol", "timing_protocol", "split", "machine"):
        if getattr(old, what) != getattr(new, what):
            raise KdbenchError(
                f"these results are of another {what.replace('_', ' ')} than the baseline; make it anew without --add"
            )
    for what in ("roles", "hyperparameters", "teachers"):
        before, after = getattr(old, what), getattr(new, what)
        if changed := [name for name in before if name in after and before[name] != after[name]]:
            raise KdbenchError(
                f"{changed[0]} has other {what} in these results than in the baseline; make it anew without --add"
            )


def _cell(pair_method: PairMethod, seeds: Sequence[int], parts: Sequence[Baseline]) -> BaselineCell:
    where = f"{pair_method[1]} on {pair_method[0]}"
    by_seed: dict[int, _Seed] = {}
    for part in parts:
        for seed, one in _by_seed(part, part.by_pair_method[pair_method]).items():
            kept = by_seed.setdefault(seed, one)
            if (kept.top1, kept.losses) != (one.top1, one.losses):
                raise KdbenchError(
                    f"seed {seed} of {where} came out differently in these results and in the baseline: what trains "
                    "has changed in between; make it anew without --add"
                )
    if missing := [str(seed) for seed in seeds if seed not in by_seed]:
        raise KdbenchError(
            f"{where} would have no seed {missing[0]}; run what is missing with --seeds {','.join(missing)}"
        )
    every = [by_seed[seed] for seed in seeds]
    if any(one.losses.keys() != every[0].losses.keys() for one in every):
        raise KdbenchError(f"{where} has other loss terms in these results; make the baseline anew without --add")
    # The time of a seed is told best by the part whose throughput was measured.
    timed = max((part.by_pair_method[pair_method] for part in parts), key=lambda cell: bool(cell.ratios))
    return timed.model_copy(
        update={
            "top1": [one.top1 for one in every],
            "losses": {term: [one.losses[term] for one in every] for term in every[0].losses},
            "traces": list(takewhile(bool, (one.trace for one in every[:TRACED_SEEDS]))),
        }
    )


def _by_seed(baseline: Baseline, cell: BaselineCell) -> dict[int, _Seed]:
    traces = [*cell.traces, *[None] * len(baseline.seeds)]
    return {
        seed: _Seed(cell.top1[i], {term: values[i] for term, values in cell.losses.items()}, traces[i])
        for i, seed in enumerate(baseline.seeds)
    }
