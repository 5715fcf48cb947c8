"""Tuning: every method has the same number of draws from the space it declares, judged on the validation split."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from kdbench.hyperparameters import draw, validate
from kdbench.results.folder import Results
from kdbench.results.schema import SCHEMA
from kdbench.results.tuned import Trial, TunedFile, TunedMethod
from kdbench.study.plan import Plan, command_line


def with_trials(plan: Plan, settings: dict[str, dict[str, Any]], trials: int) -> Plan:
    """The plan with `trials` draws of every method that has a search space beside its usual setting.

    Args:
        settings: hyperparameters that are set for all trials, by method; they are not drawn.

    Raises:
        KdbenchError: a search space with a hyperparameter that the method has not, or a value that it refuses.
    """
    methods = []
    for method in plan.methods:
        plugin = method.plugin
        space = {n: d for n, d in plugin.method.search_space.items() if n not in settings.get(plugin.name, {})}
        methods.append(method)
        for trial in range(1, trials + 1) if space else ():
            values = validate(plugin.name, plugin.hyperparameters, method.hyperparameters, draw(space, trial))
            # Gains and ratios are taken against the usual setting of control and baseline.
            methods.append(replace(method, trial=trial, role="method", hyperparameters=values))
    return replace(plan, methods=tuple(methods))


def choose(plan: Plan, results: Results, trials: int) -> TunedFile:
    """Choose for every method the trial with the highest validation accuracy, the first of equals.

    A pair that the method does not support has no say; a trial of which a cell is not done has no score.
    """
    done = {cell["key"]: cell for cell in results.cells()}
    scores: dict[str, dict[str, list[float | None]]] = {}
    for cell in plan.cells():
        record = done.get(cell.key)
        if record is None or record["status"] != "unsupported":
            by_pair = scores.setdefault(cell.method.name, {}).setdefault(cell.pair.name, [])
            by_pair.append(None if record is None else record.get("top1"))
    methods: dict[str, TunedMethod] = {}
    for method in plan.methods:
        space = method.plugin.method.search_space
        tuned = methods.setdefault(
            method.plugin.name,
            TunedMethod(
                space={name: str(one) for name, one in space.items()},
                source=method.plugin.source_sha256,
                trials=[],
                chosen=0,
                values={},
            ),
        )
        tuned["trials"].append(
            Trial(
                trial=method.trial,
                values={name: method.hyperparameters[name] for name in space},
                top1=_mean(scores.get(method.name, {})),
            )
        )
    for tuned in methods.values():
        best = max(tuned["trials"], key=lambda trial: -1.0 if trial["top1"] is None else trial["top1"])
        tuned["chosen"], tuned["values"] = best["trial"], best["values"]
    return TunedFile(
        schema=SCHEMA,
        suite=plan.suite.name,
        protocol=plan.suite.protocol,
        split=plan.split,
        pairs=[pair.name for pair in plan.pairs],
        seeds=list(plan.seeds),
        trials=trials,
        command=command_line(),
        methods=methods,
    )


def _mean(by_pair: dict[str, list[float | None]]) -> float | None:
    values: Sequence[Sequence[float]] = [[top1 for top1 in of_pair if top1 is not None] for of_pair in by_pair.values()]
    is_complete = by_pair and all(
        len(finished) == len(of_pair) for finished, of_pair in zip(values, by_pair.values(), strict=True)
    )
    return fmean(map(fmean, values)) if is_complete else None
