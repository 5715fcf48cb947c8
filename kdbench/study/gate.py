"""Training what a check needs: the baseline's own seed first, then fresh ones for what did not come out the same."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from kdbench.analysis.gate.baseline import Baseline
from kdbench.analysis.gate.check import check
from kdbench.analysis.gate.decision import FIRST, MORE
from kdbench.analysis.gate.evidence import Place, machine, read
from kdbench.analysis.gate.subset import IDENTITY
from kdbench.analysis.gate.verdict import Outcome
from kdbench.errors import KdbenchError
from kdbench.files import write_json
from kdbench.records import Manifest, Results
from kdbench.registry import Plugin
from kdbench.study.engine import away
from kdbench.study.plan import make_plan
from kdbench.study.run import run
from kdbench.suites.schema import Suite
from kdbench.training.device import Compute, environment


def gather(
    baseline: Baseline,
    suite: Suite,
    plugins: Sequence[Plugin],
    places: Collection[Place],
    compute: Compute,
    data_root: Path,
    results: Results,
    console: Console,
    workers: int | None = None,
    throughput: bool = True,
    first_seed: int | None = None,
) -> None:
    """Train until every one of `places` has a final outcome; finished cells are kept, so the same command goes on.

    Level 0 is left out where machine or versions are not the baseline's: nothing could be identical.

    Args:
        plugins: the methods that `places` name and that there are.
        throughput: measure it too, in the first pass.
        first_seed: of the fresh ones; by default the one after the baseline's last.

    Raises:
        KdbenchError: the suite is of another protocol, or the fresh seeds are not fresh.
    """
    if suite.protocol != baseline.protocol:
        raise KdbenchError(
            f"STALE_PROTOCOL: the baseline is of {baseline.protocol}, suite {suite.name} of {suite.protocol}; "
            "update the baseline"
        )
    start = max(baseline.seeds) + 1 if first_seed is None else first_seed
    fresh = list(range(start, start + FIRST + MORE))
    if set(fresh) & set(baseline.seeds):
        raise KdbenchError(f"seeds {fresh[0]} to {fresh[-1]} are partly the baseline's; give another --first-seed")
    specs = {pair.name: pair for pair in suite.pairs}
    by_name = {plugin.name: plugin for plugin in plugins}
    there = [(pair, method) for pair, method in places if pair in specs and method in by_name]
    manifests: list[Manifest] = []

    def train(chosen: Collection[Place], seeds: Sequence[int]) -> None:
        chosen = {*chosen, *((pair, baseline.control) for pair, _ in chosen)}
        pairs = [spec for name, spec in specs.items() if any(name == pair for pair, _ in chosen)]
        methods = [plugin for name, plugin in by_name.items() if any(name == method for _, method in chosen)]
        if not pairs:
            return
        plan = make_plan(suite, methods, pairs, seeds, {}, baseline.split, compute, data_root)
        measures = throughput and not manifests
        run(replace(plan, places=frozenset(chosen)), results, console, data_root, workers, measures)
        manifests.append(results.manifest())
        write_json(results.manifest_path, together(manifests))

    def left(*outcomes: Outcome) -> list[Place]:
        verdicts = check(read(results), baseline, set(there)).verdicts if manifests else ()
        return [verdict.place for verdict in verdicts if verdict.outcome in outcomes and verdict.wants]

    own, here = baseline.machine, machine(away(compute, environment, compute)[1])
    if own == here:
        train(there, baseline.seeds[:IDENTITY])
        train(left(Outcome.MISSING_CELL), fresh[:FIRST])
    else:
        differences = ", ".join(f"{name} {here[name]}, there {own[name]}" for name in own if own[name] != here[name])
        console.print(
            f"level 0 is left out, this is not the machine of the baseline: {differences}",
            highlight=False,
            markup=False,
        )
        train(there, fresh[:FIRST])
    train(left(Outcome.MISSING_CELL), fresh[FIRST:])


def together(manifests: Sequence[Manifest]) -> Manifest:
    """One manifest that plans what all of them plan."""
    first = manifests[0]
    cells = {cell["key"]: cell for manifest in manifests for cell in manifest["cells"]}
    timings = {one["key"]: one for manifest in manifests for one in manifest["throughput"]}
    return {
        **first,
        "seeds": sorted({seed for manifest in manifests for seed in manifest["seeds"]}),
        "cells": list(cells.values()),
        "throughput": list(timings.values()),
    }
