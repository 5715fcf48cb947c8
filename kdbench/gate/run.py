"""Training what a check needs: the baseline's own seed first, then fresh ones for what did not come out the same."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from kdbench.compute.device import Compute, default_workers, environment
from kdbench.engines.local import away
from kdbench.errors import KdbenchError
from kdbench.files import write_json
from kdbench.gate.baseline import Baseline
from kdbench.gate.check import check
from kdbench.gate.decision import FIRST, MORE
from kdbench.gate.evidence import Place, machine, read
from kdbench.gate.subset import IDENTITY, Allowance
from kdbench.gate.verdict import Outcome
from kdbench.registry import Plugin
from kdbench.results.records import Manifest, Results
from kdbench.study.plan import make_plan
from kdbench.study.run import run
from kdbench.suites.schema import Suite


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
    minutes: float | None = None,
) -> list[Place]:
    """Train until `places` have a final outcome; finished cells are kept, so the same command goes on.

    Level 0 is left out where machine or versions are not the baseline's: nothing could be identical.

    Args:
        plugins: the methods that `places` name and that there are.
        throughput: measure it too, in the first pass.
        first_seed: of the fresh ones; by default the one after the baseline's last.
        minutes: by default as long as it takes. Else half of it is for level 0, where there is one, and what differs
            gets what is left: as many cells as can be sure of both passes of level 1.

    Returns:
        Those of `places` that there was time for.

    Raises:
        KdbenchError: the suite is of another protocol, the fresh seeds are not fresh, or the minutes are too few.
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
    own, here = baseline.machine, machine(away(compute, environment, compute)[1])
    allowance = Allowance(baseline, minutes, workers or default_workers(compute), throughput)
    chosen = allowance.comparable(places) if own == here else allowance.judgeable(places)
    if minutes is not None:
        what = "compared in half of" if own == here else "judged in"
        console.print(f"{len(chosen)} of {len(places)} cells can be {what} {minutes:g} minutes", highlight=False)
    there = [(pair, method) for pair, method in chosen if pair in specs and method in by_name]
    manifests: list[Manifest] = []

    def train(some: Collection[Place], seeds: Sequence[int]) -> None:
        some = {*some, *((pair, baseline.control) for pair, _ in some)}
        pairs = [spec for name, spec in specs.items() if any(name == pair for pair, _ in some)]
        methods = [plugin for name, plugin in by_name.items() if any(name == method for _, method in some)]
        if not pairs:
            return
        plan = make_plan(suite, methods, pairs, seeds, {}, baseline.split, compute, data_root)
        measures = throughput and not manifests
        run(replace(plan, places=frozenset(some)), results, console, data_root, workers, measures)
        manifests.append(results.manifest())
        write_json(results.manifest_path, together(manifests))

    def undecided(some: Collection[Place]) -> list[Place]:
        verdicts = check(read(results), baseline, set(some)).verdicts if manifests else ()
        return [one.place for one in verdicts if one.outcome is Outcome.MISSING_CELL and one.wants]

    unjudged: set[Place] = set()
    if own == here:
        train(there, baseline.seeds[:IDENTITY])
        differing = undecided(there)
        due = allowance.left(chosen, differing)
        unjudged = set(differing) - set(due)
        if unjudged:
            names = ", ".join(f"{method} on {pair}" for pair, method in differing if (pair, method) in unjudged)
            console.print(
                f"{len(differing)} cells differ, and there is time to judge {len(due)}; not judged: {names}",
                style="yellow",
                highlight=False,
                markup=False,
            )
        train(due, fresh[:FIRST])
    else:
        differences = ", ".join(f"{name} {here[name]}, there {own[name]}" for name in own if own[name] != here[name])
        console.print(
            f"level 0 is left out, this is not the machine of the baseline: {differences}",
            highlight=False,
            markup=False,
        )
        train(there, fresh[:FIRST])
    train(undecided(set(there) - unjudged), fresh[FIRST:])
    return [place for place in chosen if place not in unjudged]


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
