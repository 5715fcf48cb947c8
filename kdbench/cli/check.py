"""`kdbench check`: the regression gate, on records that are there or on those that it trains first."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter

from kdbench.cli import completion, options
from kdbench.cli.console import open_console, print_json
from kdbench.cli.options import OUTPUT
from kdbench.errors import KdbenchError, unknown_name

if TYPE_CHECKING:
    from rich.console import Console

    from kdbench.gate.baseline import Baseline
    from kdbench.gate.verdict import CheckResult
    from kdbench.registry import Registry
    from kdbench.results.folder import Results
    from kdbench.results.study import PairMethod

CHECKED = Group("What to check", sort_key=1)
TRAINING = Group("What to train first", sort_key=2)


@options.grouped(CHECKED)
class Checked:
    """What is held against which baseline."""

    baseline: options.File = None
    """The baseline. Default: baselines/SUITE.json."""
    methods: Annotated[str, Parameter(completer=completion.method_names)] = "all"
    """The methods of the baseline to check, by name, with commas between."""
    pairs: Annotated[str, Parameter(completer=completion.pair_names)] = "all"
    """The pairs of the baseline to check, by name, with commas between."""
    fail_on_speed: bool = False
    """Fail for SLOWER and for throughput that could not be measured, too."""

    def pair_methods(self, baseline: "Baseline", registry: "Registry") -> "list[PairMethod]":
        """The cells of the baseline that are asked for; files among the methods are registered.

        Raises:
            KdbenchError: a name that the baseline does not know.
        """
        words = [word.strip() for word in self.methods.split(",")]
        words = [registry.select(word)[0].name if ":" in word or word.endswith(".py") else word for word in words]
        methods = _known("method", words, list(baseline.roles))
        pairs = _known("pair", [word.strip() for word in self.pairs.split(",")], baseline.pairs)
        return [
            pair_method
            for pair_method in baseline.by_pair_method
            if pair_method[0] in pairs and pair_method[1] in methods
        ]


@options.grouped(TRAINING)
class Training:
    """What is trained before the check."""

    run: bool = False
    """Train what is needed first; the same command goes on where it was interrupted."""
    suite: Annotated[str | None, Parameter(completer=completion.suite_names)] = None
    """The name of a suite, or the path of a TOML file. Default: the baseline's, else proxy."""
    minutes: Annotated[float | None, options.number(0.01, 1e9, of=float)] = None
    """Train only the cells for which N minutes are enough."""
    first_seed: Annotated[int | None, options.number(0)] = None
    """Train fresh seeds from N on. Default: those after the baseline's."""
    workers: Annotated[options.Workers, Parameter(group=TRAINING)] = None
    no_throughput: bool = False
    """Measure accuracy only."""


@options.grouped(OUTPUT)
class Output:
    """Where the outcome is written."""

    markdown: options.File = None
    """Write a comment for a pull request to this file."""
    junit: options.File = None
    """Write JUnit XML to this file."""
    github: bool = False
    """Print annotations for GitHub Actions, as is done there without this option."""
    json: options.Json = False

    def tell(self, check: "CheckResult", console: "Console") -> None:
        """Write and print the outcome."""
        from kdbench.files import write_bytes
        from kdbench.gate.files import annotations, junit, markdown
        from kdbench.gate.tables import check_as_json, print_check

        for path, write in ((self.markdown, markdown), (self.junit, junit)):
            if path is not None:
                write_bytes(path, write(check).encode())
        if self.json:
            print_json(check_as_json(check))
            return
        print_check(check, console)
        if self.github or os.environ.get("GITHUB_ACTIONS") == "true":
            print("\n".join(annotations(check)))


def check(
    results: Annotated[Path | None, Parameter(name="DIR")] = None,
    /,
    *,
    what: Checked = Checked(),
    training: Training = Training(),
    how: options.ComputeOptions = options.ComputeOptions(),
    output: Output = Output(),
) -> int:
    """Hold accuracy, losses and throughput against the baseline.

    The outcome of a cell is IDENTICAL, PASS, CLEARED (suspicious after three seeds, not after six), WORSE, BETTER,
    SLOWER, FASTER, MISSING_BASELINE, MISSING_CELL, NEW_METHOD, STALE_PROTOCOL or FAILED_CELL. BETTER fails too; accept
    it with `kdbench baseline update`.

    The exit code is 0 where all cells pass, 1 for WORSE or BETTER (and for SLOWER with --fail-on-speed), 2 for
    MISSING_CELL or FAILED_CELL, and 3 for MISSING_BASELINE or STALE_PROTOCOL.

    Args:
        results: A results folder. Default, with --run: results/check-SUITE.
    """
    from kdbench.gate.baseline import default_path, load_baseline
    from kdbench.gate.check import check_study
    from kdbench.registry import Registry
    from kdbench.results.folder import Results
    from kdbench.results.study import read_study

    if training.run:
        suite = Path(training.suite or "proxy").stem
    elif results is not None:
        suite = Results(results).manifest()["suite"]
    else:
        raise KdbenchError("name a results folder to check, or train one with --run")
    if not training.run and (training.minutes, training.first_seed, training.suite) != (None, None, None):
        raise KdbenchError("--minutes, --first-seed and --suite choose what is trained; give --run too")
    baseline = load_baseline(what.baseline or default_path(suite))
    folder = Results(results or Path("results") / f"check-{baseline.suite}")
    registry, console = Registry.installed(), open_console(output.json)
    pair_methods, installed = what.pair_methods(baseline, registry), []
    if training.run:
        pair_methods = _train(training, how, baseline, registry, pair_methods, results=folder, console=console)
        installed = registry.names
    # Asked for everything, cells that the baseline has not are told too.
    everything = what.methods == what.pairs == "all" and training.minutes is None
    outcome = check_study(
        read_study(folder), baseline, None if everything else pair_methods, installed, what.fail_on_speed
    )
    output.tell(outcome, console)
    return outcome.exit_code


def _known(what: str, names: list[str], names_of_baseline: list[str]) -> list[str]:
    for name in names:
        if name not in [*names_of_baseline, "all"]:
            raise unknown_name(f"{what} of the baseline", name, [*names_of_baseline, "all"])
    return names_of_baseline if "all" in names else names


def _train(
    training: Training,
    how: options.ComputeOptions,
    baseline: "Baseline",
    registry: "Registry",
    pair_methods: "list[PairMethod]",
    *,
    results: "Results",
    console: "Console",
) -> "list[PairMethod]":
    """Train what is needed to check `pair_methods`; returns those that there was time for."""
    from kdbench.api.selection import name_broken
    from kdbench.suites.loading import load_suite

    suite = load_suite(training.suite or baseline.suite)

    from kdbench.gate.run import train_for_check
    from kdbench.study.session import Session

    compute = how.resolve()
    needed = {method for _, method in pair_methods} | {baseline.control}
    plugins = registry.importable([registry.plugins[name] for name in registry.names if name in needed], "all")
    name_broken({name: registry.errors[name] for name in sorted(needed & set(registry.errors))}, console)
    return train_for_check(
        baseline,
        suite,
        plugins,
        pair_methods,
        compute,
        Session(results, how.data, console, training.workers),
        throughput=not training.no_throughput,
        first_seed=training.first_seed,
        minutes=training.minutes,
    )
