"""What the installed methods transfer, need and cost: `python docs/tools/survey_methods.py docs/methods.md`, minutes.

Each is built and self-checked on a small pair, so that what it needs is seen and not claimed, and built once more on a
pair of full size. Times are those of a results folder.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from kdbench.analysis.cost import group_costs, pair_costs
from kdbench.compute.device import Compute
from kdbench.errors import UnsupportedPair
from kdbench.files import write_bytes
from kdbench.method import Needs, StagedModel
from kdbench.registry import Plugin, Registry
from kdbench.results.folder import Results
from kdbench.results.study import load_study
from kdbench.suites import loading
from kdbench.suites.schema import Suite
from kdbench.training.arena import Arena
from kdbench.training.contender import Contender
from kdbench.training.selfcheck import passed

SMALL = "proxy"
FULL = "cifar100"
CALLS = {"tail": "resumes", "segment": "resumes", "classify": "classifier"}
"""Functions of a network that a method may call, and what that means it needs."""

PAGE = """\
# Methods

What the methods that come with kdbench transfer, need and cost, as `python docs/tools/survey_methods.py
docs/methods.md` found it; equations, hyperparameters with their sources and where reference code deviates from the
paper are in each class's docstring, under [methods/kdbench_methods](../methods/kdbench_methods). `kdbench new-method
NAME` starts one.

* **student**, **teacher**: what a method asks of the two networks besides the logits; "resumes": runs features through
  a part of the network, "classifier": applies its classifier to other features. **views**: of each image.
* **parameters**: trained beside the student and dropped at inference, on {full} ({suite}); "n/a" where it does not
  support the pair.
* **time**: of a training step, teacher included, over that of the control; mean over the heterogeneous pairs of
  `{results}` (small models on a CPU: large models shift it; measure yours with `kdbench bench`).

{table}

{summaries}

## Not here, and why

* **MaskedKD** (arXiv 2302.10494): the teacher sees those patches that the student's class token attends to most. Here
  the teacher is run once for all students of a group, before any of them, and a method is given what it put out: a
  student's attention and a teacher's input are no part of the contract. It would run a teacher of its own, at the cost
  of the time that it is there to save.
* **TAKD** (arXiv 1902.03393): a chain of trainings and no loss. Teach the assistant as a student (`kdbench run
  --methods kd`), store it as a teacher of a suite of your own (`kdbench export --to timm`, `kdbench teachers import`),
  and run `kd` with the pair it teaches.
"""
HEAD = ("method", "transfers", "published", "paper", "student", "teacher", "views", "parameters", "time")


def row(plugin: Plugin, small: Sequence[Arena], full: Arena, times: dict[str, float]) -> list[str]:
    """A line of the table.

    Args:
        small: where it is looked at; the first that it supports counts.

    Raises:
        RuntimeError: it fails its self-check there, or supports none.
    """
    hyperparameters = plugin.hyperparameters().model_dump()
    arena, contender = _entered(plugin, small, hyperparameters)
    method, used = contender.method, {"student": dict[str, None](), "teacher": dict[str, None]()}
    _note_calls(contender.student, used["student"])
    _note_calls(arena.teacher, used["teacher"])
    method.build(method.pair)
    if not passed(checks := arena.check(contender)):
        raise RuntimeError(f"{plugin.name} fails its self-check: {[check for check in checks if not check.passed]}")
    time = times.get(plugin.name, math.nan)
    return [
        f"[`{plugin.name}`](../{_source(plugin)})" + "".join(f", `{alias}`" for alias in plugin.method.aliases),
        ("-" if method.role == "control" else method.kind) + (" (open division)" if method.differs else ""),
        method.venue or "-",
        _link(method.paper) or "-",
        _needs(method.student_needs, used["student"]),
        "-" if method.teacher_needs is None else _needs(method.teacher_needs, used["teacher"]),
        "2" if method.second_view else "1",
        _parameters(plugin, full, hyperparameters),
        "-" if math.isnan(time) else f"{time:.2f}",
    ]


def _entered(plugin: Plugin, arenas: Sequence[Arena], hyperparameters: dict[str, Any]) -> tuple[Arena, Contender]:
    for arena in arenas:
        try:
            stage = arena.with_own_teacher()
            return stage, stage.contender(plugin.name, plugin.method, hyperparameters)
        except UnsupportedPair:
            continue
    raise RuntimeError(f"{plugin.name} supports none of the small pairs")


def _note_calls(model: StagedModel, used: dict[str, None]) -> None:
    """Have it noted in `used` what of the network is called from now on."""
    for name, what in CALLS.items():
        original = getattr(model, name)

        def noted(*arguments: Any, original: Any = original, what: str = what) -> Any:
            used[what] = None
            return original(*arguments)

        setattr(model, name, noted)


def _needs(needs: Needs, used: dict[str, None]) -> str:
    stages = sorted(needs.stages)
    whole = len(stages) > 1 and stages == list(range(stages[0], stages[-1] + 1))
    listed = f"{stages[0]}-{stages[-1]}" if whole else ", ".join(map(str, stages))
    parts = [f"stage{'s' if len(stages) > 1 else ''} {listed}"] if stages else []
    return "; ".join([*parts, *(["pooled"] if needs.pooled else []), *used]) or "logits"


def _parameters(plugin: Plugin, arena: Arena, hyperparameters: dict[str, Any]) -> str:
    try:
        contender = arena.contender(plugin.name, plugin.method, hyperparameters)
    except UnsupportedPair:
        return "n/a"
    kept = contender.method.inference_parameters
    return _count(contender.extra_parameters) + (f" ({_count(kept)} stay at inference)" if kept else "")


def _count(number: int) -> str:
    return f"{number / 1e6:.2f} M" if number >= 10_000 else str(number)


def _link(paper: str) -> str:
    kind, _, number = paper.partition(" ")
    return f"[{number}](https://arxiv.org/abs/{number})" if kind == "arXiv" else paper


def _source(plugin: Plugin) -> str:
    return "/".join(plugin.source.path.parts[-3:])


def _times(results: Path) -> dict[str, float]:
    """Time of a step over the control's, by method."""
    study = load_study(Results(results))
    costs = group_costs(study, pair_costs(study))
    return {cost.method: 1 / cost.to_control for cost in costs if cost.group == "heterogeneous"}


def page(plugins: Sequence[Plugin], suites: tuple[Suite, Suite], results: Path) -> str:
    """The page about `plugins`; the first suite has the small pairs, the second the one of full size."""
    compute = Compute(torch.device("cpu"), "fp32", 1)
    # The heterogeneous pairs first; some methods are of networks of one kind.
    small = sorted(suites[0].pairs, key=lambda pair: not suites[0].is_hetero(pair))
    full = next(pair for pair in suites[1].pairs if suites[1].is_hetero(pair))
    arenas, large = (
        [Arena.without_data(suites[0], pair, compute) for pair in small],
        Arena.without_data(suites[1], full, compute),
    )
    times = _times(results)
    rows = []
    for plugin in plugins:
        rows.append(row(plugin, arenas, large, times))
        print(*rows[-1], sep="  ", file=sys.stderr, flush=True)
    lines = [f"| {' | '.join(cells)} |" for cells in (HEAD, ["---"] * len(HEAD), *rows)]
    return PAGE.format(
        full=full.name,
        suite=suites[1].name,
        results=results.as_posix(),
        table="\n".join(lines),
        summaries="\n".join(f"* `{plugin.name}`: {plugin.source.summary}" for plugin in plugins),
    )


def main(arguments: list[str] | None = None) -> int:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--results", type=Path, default=Path("results/reference/proxy"), help="where times come from")
    options = parser.parse_args(arguments)
    registry = Registry.installed()
    plugins = [registry.plugins[name] for name in registry.names]
    text = page(plugins, (loading.load_suite(SMALL), loading.load_suite(FULL)), options.results)
    write_bytes(options.out, text.encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
