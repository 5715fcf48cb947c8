"""`kdbench check`: the regression gate, on records that are there or on those that it trains first."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter, Token

from kdbench.cli import completion, options
from kdbench.cli.console import open_console, print_json
from kdbench.cli.options import OUTPUT
from kdbench.errors import KdbenchError, unknown_name

if TYPE_CHECKING:
    from rich.console import Console

    from kdbench.gate.baseline import Baseline
    from kdbench.gate.evidence import Place
    from kdbench.gate.verdict import Check
    from kdbench.registry import Registry
    from kdbench.results.records import Results

CHECKED = Group("What to check", sort_key=1)
TRAINING = Group("What to train first", sort_key=2)


def _minutes(_: type, tokens: Sequence[Token]) -> float:
    text = tokens[0].value
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1e9:
        raise ValueError(f"{text[:40]!r} is no number of minutes")
    return value


@Parameter(name="*", group=TRAINING)
@dataclass(frozen=True, kw_only=True)
class Training:
    """What to train before the check."""

    run: bool = False
    """Train what is needed first; the same command goes on where it was interrupted."""
    suite: Annotated[str | None, Parameter(completer=completion.suites)] = None
    """The name of a suite, or the path of a TOML file. Default: the baseline's, else proxy."""
    minutes: Annotated[float | None, Parameter(converter=_minutes, metavar="N")] = None
    """Train only the cells for which N minutes are enough."""
    first_seed: Annotated[int | None, options.whole(0)] = None
    """Train fresh seeds from N on. Default: those after the baseline's."""
    workers: Annotated[options.Workers, Parameter(group=TRAINING)] = None
    no_throughput: bool = False
    """Measure accuracy only."""


@Parameter(name="*", group=OUTPUT)
@dataclass(frozen=True, kw_only=True)
class Output:
    """Where to write what was found."""

    markdown: Annotated[Path | None, options.file()] = None
    """Write a comment for a pull request to this file."""
    junit: Annotated[Path | None, options.file()] = None
    """Write JUnit XML to this file."""
    github: Annotated[bool, Parameter(show_default=False)] = field(
        default_factory=lambda: os.environ.get("GITHUB_ACTIONS") == "true"
    )
    """Print annotations for GitHub Actions, as is done there without this option."""
    json: options.Json = False


def check(
    results: Annotated[Path | None, options.folder(name="DIR")] = None,
    /,
    *,
    baseline: Annotated[Path | None, options.file(group=CHECKED)] = None,
    methods: Annotated[str, Parameter(group=CHECKED, completer=completion.methods)] = "all",
    pairs: Annotated[str, Parameter(group=CHECKED, completer=completion.pairs)] = "all",
    fail_on_speed: Annotated[bool, Parameter(group=CHECKED)] = False,
    training: Training = Training(),
    how: options.ComputeOptions = options.ComputeOptions(),
    output: Output | None = None,
) -> int:
    """Hold accuracy, losses and throughput against the baseline.

    The outcome of a cell is IDENTICAL, PASS, CLEARED (suspicious after three seeds, not after six), WORSE, BETTER,
    SLOWER, FASTER, MISSING_BASELINE, MISSING_CELL, NEW_METHOD, STALE_PROTOCOL or FAILED_CELL. BETTER fails too; accept
    it with `kdbench baseline update`.

    The exit code is 0 where all cells pass, 1 for WORSE or BETTER (and for SLOWER with --fail-on-speed), 2 for
    MISSING_CELL or FAILED_CELL, and 3 for MISSING_BASELINE or STALE_PROTOCOL.

    Args:
        results: A results folder. Default, with --run: results/check-SUITE.
        baseline: The baseline. Default: baselines/SUITE.json.
        methods: The methods of the baseline to check, by name, with commas between.
        pairs: The pairs of the baseline to check, by name, with commas between.
        fail_on_speed: Fail for SLOWER and for throughput that could not be measured, too.
    """
    from kdbench.gate.baseline import default_path, load
    from kdbench.gate.check import check
    from kdbench.gate.evidence import read
    from kdbench.registry import Registry
    from kdbench.results.records import Results

    output = output or Output()
    if training.run:
        suite = Path(training.suite or "proxy").stem
    elif results is not None:
        suite = Results(results).manifest()["suite"]
    else:
        raise KdbenchError("name a results folder to check, or train one with --run")
    if not training.run and (training.minutes, training.first_seed, training.suite) != (None, None, None):
        raise KdbenchError("--minutes, --first-seed and --suite choose what is trained; give --run too")
    frozen = load(baseline or default_path(suite))
    folder = Results(results or Path("results") / f"check-{frozen.suite}")
    registry, console = Registry.installed(), open_console(output.json)
    places, installed = _places(methods, pairs, frozen, registry), []
    if training.run:
        places = _train(training, how, frozen, registry, places, results=folder, console=console)
        installed = registry.names
    # Asked for everything, cells that the baseline has not are told too.
    everything = methods == pairs == "all" and training.minutes is None
    found = check(read(folder), frozen, None if everything else places, installed, fail_on_speed)
    _tell(output, found, console)
    return found.exit_code


def _places(methods: str, pairs: str, baseline: "Baseline", registry: "Registry") -> "list[Place]":
    """The cells of the baseline that are asked for; files among the methods are registered.

    Raises:
        KdbenchError: a name that the baseline does not know.
    """
    words = [word.strip() for word in methods.split(",")]
    words = [registry.select(word)[0].name if ":" in word or word.endswith(".py") else word for word in words]
    known_methods = _known("method", words, list(baseline.roles))
    known_pairs = _known("pair", [word.strip() for word in pairs.split(",")], baseline.pairs)
    return [place for place in baseline.by_place if place[0] in known_pairs and place[1] in known_methods]


def _known(what: str, names: list[str], known: list[str]) -> list[str]:
    for name in names:
        if name not in [*known, "all"]:
            raise unknown_name(f"{what} of the baseline", name, [*known, "all"])
    return known if "all" in names else names


def _train(
    training: Training,
    how: options.ComputeOptions,
    baseline: "Baseline",
    registry: "Registry",
    places: "list[Place]",
    *,
    results: "Results",
    console: "Console",
) -> "list[Place]":
    """Train what is needed to check `places`; returns those that there was time for."""
    from kdbench.suites.loading import load

    suite = load(training.suite or baseline.suite)

    from kdbench.gate.run import gather

    compute = how.resolve()
    needed = {method for _, method in places} | {baseline.control}
    plugins = registry.importable([registry.plugins[name] for name in registry.names if name in needed], "all")
    options.name_broken({name: registry.errors[name] for name in sorted(needed & set(registry.errors))}, console)
    return gather(
        *(baseline, suite, plugins, places, compute, how.data, results, console, training.workers),
        throughput=not training.no_throughput,
        first_seed=training.first_seed,
        minutes=training.minutes,
    )


def _tell(output: Output, check: "Check", console: "Console") -> None:
    from kdbench.files import write_bytes
    from kdbench.gate.files import annotations, junit, markdown
    from kdbench.gate.tables import as_json, print_check

    for path, write in ((output.markdown, markdown), (output.junit, junit)):
        if path is not None:
            write_bytes(path, write(check).encode())
    if output.json:
        print_json(as_json(check))
    else:
        print_check(check, console)
        if output.github:
            print("\n".join(annotations(check)))
