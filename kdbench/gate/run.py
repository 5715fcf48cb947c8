"""Training what a check needs: the baseline's own seed first, then fresh ones for what did not come out the same."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from kdbench.compute.device import Compute, default_workers, environment
from kdbench.engines.local import in_subprocess
from kdbench.errors import KdbenchError
from kdbench.files import write_json
from kdbench.gate.baseline import Baseline, machine_of
from kdbench.gate.check import check_study
from kdbench.gate.decision import FIRST, MORE
from kdbench.gate.subset import IDENTITY, Allowance
from kdbench.gate.verdict import Outcome
from kdbench.names import plural
from kdbench.registry import Plugin
from kdbench.results.schema import Manifest
from kdbench.results.study import PairMethod, read_study
from kdbench.study.plan import make_plan
from kdbench.study.run import run
from kdbench.study.session import Session
from kdbench.suites.schema import Suite


def train_for_check(
    baseline: Baseline,
    suite: Suite,
    plugins: Sequence[Plugin],
    pair_methods: Collection[PairMethod],
    compute: Compute,
    session: Session,
    *,
    throughput: bool = True,
    first_seed: int | None = None,
    minutes: float | None = None,
) -> list[PairMethod]:
    """Train until `pair_methods` have a final outcome; finished cells are kept, so the same command goes on.

    Level 0 is left out where machine or versions are not the baseline's: nothing could be identical.

    Args:
        plugins: the methods that `pair_methods` name and that there are.
        throughput: measure it too, in the first pass.
        first_seed: of the fresh ones; by default the one after the baseline's last.
        minutes: by default as long as it takes. Else half of it is for level 0, where there is one, and what differs
            gets what is left: as many cells as can be sure of both passes of level 1.

    Returns:
        Those of `pair_methods` that there was time for.

    Raises:
        KdbenchError: the suite is of another protocol, the fresh seeds are not fresh, or the minutes are too few.
    """
    fresh = _fresh_seeds(baseline, suite, first_seed)
    console = session.console
    machine_of_baseline, here = baseline.machine, machine_of(in_subprocess(compute, environment, compute)[1])
    allowance = Allowance(baseline, minutes, session.workers or default_workers(compute), throughput)
    chosen = allowance.comparable(pair_methods) if machine_of_baseline == here else allowance.judgeable(pair_methods)
    if minutes is not None:
        what = "compared in half of" if machine_of_baseline == here else "judged in"
        console.print(
            f"{len(chosen)} of {plural(len(pair_methods), 'cell')} can be {what} {minutes:g} minutes", highlight=False
        )
    passes = _Passes(baseline, suite, plugins, compute, session, throughput)
    unjudged: set[PairMethod] = set()
    if machine_of_baseline == here:
        passes.train(chosen, baseline.seeds[:IDENTITY])
        differing = passes.undecided(chosen)
        due = allowance.left(chosen, differing)
        unjudged = set(differing) - set(due)
        if unjudged:
            names = ", ".join(f"{method} on {pair}" for pair, method in differing if (pair, method) in unjudged)
            notice = f"{len(differing)} cells differ, and there is time to judge {len(due)}; not judged: {names}"
            console.print(notice, style="yellow", highlight=False, markup=False)
        passes.train(due, fresh[:FIRST])
    else:
        console.print(_another_machine(here, machine_of_baseline), highlight=False, markup=False)
        passes.train(chosen, fresh[:FIRST])
    passes.train(passes.undecided(set(chosen) - unjudged), fresh[FIRST:])
    return [pair_method for pair_method in chosen if pair_method not in unjudged]


def _another_machine(here: Mapping[str, Any], there: Mapping[str, Any]) -> str:
    differences = [f"{name} {here[name]}, there {value}" for name, value in there.items() if value != here[name]]
    return f"level 0 is left out, this is not the machine of the baseline: {', '.join(differences)}"


def _fresh_seeds(baseline: Baseline, suite: Suite, first: int | None) -> list[int]:
    """The seeds of level 1, none of which the baseline has."""
    if suite.protocol != baseline.protocol:
        raise KdbenchError(
            f"STALE_PROTOCOL: the baseline is of {baseline.protocol}, suite {suite.name} of {suite.protocol}; "
            "update the baseline"
        )
    start = max(baseline.seeds) + 1 if first is None else first
    fresh = list(range(start, start + FIRST + MORE))
    if set(fresh) & set(baseline.seeds):
        raise KdbenchError(f"seeds {fresh[0]} to {fresh[-1]} are partly the baseline's; give another --first-seed")
    return fresh


class _Passes:
    """The runs of a check, one after the other into one results folder, whose manifest plans all of them."""

    def __init__(
        self,
        baseline: Baseline,
        suite: Suite,
        plugins: Sequence[Plugin],
        compute: Compute,
        session: Session,
        throughput: bool,
    ) -> None:
        self._baseline = baseline
        self._suite = suite
        self._compute = compute
        self._session = session
        self._throughput = throughput
        self._pairs = {pair.name: pair for pair in suite.pairs}
        self._plugins = {plugin.name: plugin for plugin in plugins}
        self._manifests: list[Manifest] = []

    def train(self, pair_methods: Collection[PairMethod], seeds: Sequence[int]) -> None:
        """Train some of the cells that suite and plug-ins have, and the control beside them."""
        there = {(pair, method) for pair, method in pair_methods if pair in self._pairs and method in self._plugins}
        there |= {(pair, self._baseline.control) for pair, _ in there}
        pairs = [spec for name, spec in self._pairs.items() if any(name == pair for pair, _ in there)]
        methods = [plugin for name, plugin in self._plugins.items() if any(name == method for _, method in there)]
        if not pairs:
            return
        results = self._session.results
        plan = make_plan(
            self._suite,
            methods,
            pairs,
            seeds,
            compute=self._compute,
            data_root=self._session.data_root,
            split=self._baseline.split,
        )
        # Throughput is measured in the first pass.
        run(replace(plan, only=frozenset(there)), self._session, self._throughput and not self._manifests)
        self._manifests.append(results.manifest())
        write_json(results.manifest_path, joint_manifest(self._manifests))

    def undecided(self, pair_methods: Collection[PairMethod]) -> list[PairMethod]:
        """Those of the cells that have no final outcome yet."""
        if not self._manifests:
            return []
        verdicts = check_study(read_study(self._session.results), self._baseline, set(pair_methods)).verdicts
        return [one.pair_method for one in verdicts if one.outcome is Outcome.MISSING_CELL and one.wants]


def joint_manifest(manifests: Sequence[Manifest]) -> Manifest:
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
