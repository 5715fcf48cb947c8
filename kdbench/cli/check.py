"""`kdbench check`: the regression gate, on records that are there or on those that it trains first."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdbench.cli import options
from kdbench.errors import KdbenchError, unknown_name

if TYPE_CHECKING:
    from rich.console import Console

    from kdbench.gate.baseline import Baseline
    from kdbench.gate.verdict import CheckResult
    from kdbench.registry import Registry
    from kdbench.results.folder import Results
    from kdbench.results.study import PairMethod

EPILOG = """\
outcomes: IDENTICAL, PASS, CLEARED (suspicious after three seeds, not after six), WORSE, BETTER, SLOWER, FASTER,
MISSING_BASELINE, MISSING_CELL, NEW_METHOD, STALE_PROTOCOL, FAILED_CELL. BETTER fails too: accept it with
`kdbench baseline update`.

exit codes: 0 all cells pass; 1 WORSE or BETTER, and SLOWER with --fail-on-speed; 2 MISSING_CELL or FAILED_CELL;
3 MISSING_BASELINE or STALE_PROTOCOL"""


def add_parser(commands: Any) -> None:
    parser = options.add_command(
        commands, "check", execute, "hold results against the frozen baseline: accuracy, losses, throughput"
    )
    parser.formatter_class, parser.epilog = argparse.RawDescriptionHelpFormatter, EPILOG
    parser.add_argument(
        "results", nargs="?", type=Path, metavar="DIR", help="results folder (--run: results/check-SUITE)"
    )
    parser.add_argument("--baseline", type=Path, metavar="FILE", help="default: baselines/SUITE.json")
    parser.add_argument("--methods", default="all", help="those of the baseline to check, by name (default: all)")
    parser.add_argument("--pairs", default="all", help="those of the baseline to check, by name (default: all)")
    parser.add_argument("--fail-on-speed", action="store_true", help="SLOWER and unmeasured throughput fail")
    train = parser.add_argument_group("training")
    train.add_argument("--run", action="store_true", help="train what is needed first; the same command goes on")
    train.add_argument("--suite", help="name of a suite, or a TOML file (default: the baseline's, else proxy)")
    train.add_argument(
        "--minutes", type=options.minutes, metavar="N", help="only the cells that so many minutes are enough for"
    )
    train.add_argument(
        "--first-seed", type=options.whole(0), metavar="N", help="fresh seeds (default: after the baseline's)"
    )
    options.add_workers(train)
    train.add_argument("--no-throughput", dest="throughput", action="store_false", help="accuracy only")
    options.add_compute(parser)
    output = parser.add_argument_group("output")
    output.add_argument("--markdown", type=Path, metavar="FILE", help="write a comment for a pull request")
    output.add_argument("--junit", type=Path, metavar="FILE", help="write JUnit XML")
    output.add_argument(
        "--github",
        action="store_true",
        default=os.environ.get("GITHUB_ACTIONS") == "true",
        help="print annotations for GitHub Actions (default there)",
    )
    options.add_json(parser)


def execute(args: argparse.Namespace) -> int:
    from rich.console import Console

    from kdbench.gate.baseline import default_path, load_baseline
    from kdbench.gate.check import check_study
    from kdbench.registry import Registry
    from kdbench.results.folder import Results
    from kdbench.results.study import read_study

    if args.run:
        suite = Path(args.suite or "proxy").stem
    elif args.results is not None:
        suite = Results(args.results).manifest()["suite"]
    else:
        raise KdbenchError("name a results folder to check, or train one with --run")
    if not args.run and (args.minutes, args.first_seed, args.suite) != (None, None, None):
        raise KdbenchError("--minutes, --first-seed and --suite choose what is trained; give --run too")
    baseline = load_baseline(args.baseline or default_path(suite))
    results = Results(args.results or Path("results") / f"check-{baseline.suite}")
    registry, console = Registry.installed(), Console(stderr=args.json)
    places, installed = _places(args, baseline, registry), []
    if args.run:
        places = _train(args, baseline, registry, places, results, console)
        installed = registry.names
    # Asked for everything, cells that the baseline has not are told too.
    everything = args.methods == args.pairs == "all" and args.minutes is None
    found = check_study(read_study(results), baseline, None if everything else places, installed, args.fail_on_speed)
    _tell(args, found, console)
    return found.exit_code


def _places(args: argparse.Namespace, baseline: "Baseline", registry: "Registry") -> "list[PairMethod]":
    """The cells of the baseline that are asked for; files among the methods are registered.

    Raises:
        KdbenchError: a name that the baseline does not know.
    """
    words = [word.strip() for word in args.methods.split(",")]
    words = [registry.select(word)[0].name if ":" in word or word.endswith(".py") else word for word in words]
    methods = _known("method", words, list(baseline.roles))
    pairs = _known("pair", [word.strip() for word in args.pairs.split(",")], baseline.pairs)
    return [place for place in baseline.by_pair_method if place[0] in pairs and place[1] in methods]


def _known(what: str, names: list[str], known: list[str]) -> list[str]:
    for name in names:
        if name not in [*known, "all"]:
            raise unknown_name(f"{what} of the baseline", name, [*known, "all"])
    return known if "all" in names else names


def _train(
    args: argparse.Namespace,
    baseline: "Baseline",
    registry: "Registry",
    places: "list[PairMethod]",
    results: "Results",
    console: "Console",
) -> "list[PairMethod]":
    """Train what is needed to check `places`; returns those that there was time for."""
    from kdbench.suites.loading import load_suite

    suite = load_suite(args.suite or baseline.suite)

    from kdbench.gate.run import train_for_check
    from kdbench.study.session import Session

    compute = options.resolve_compute(args)
    needed = {method for _, method in places} | {baseline.control}
    plugins = registry.importable([registry.plugins[name] for name in registry.names if name in needed], "all")
    for name in sorted(needed & set(registry.errors)):
        console.print(
            f"method {name} is left out: {registry.errors[name]}", style="yellow", highlight=False, markup=False
        )
    return train_for_check(
        baseline,
        suite,
        plugins,
        places,
        compute,
        Session(results, args.data, console, args.workers),
        throughput=args.throughput,
        first_seed=args.first_seed,
        minutes=args.minutes,
    )


def _tell(args: argparse.Namespace, check: "CheckResult", console: "Console") -> None:
    from kdbench.files import write_bytes
    from kdbench.gate.files import annotations, junit, markdown
    from kdbench.gate.tables import as_json, print_check

    for path, write in ((args.markdown, markdown), (args.junit, junit)):
        if path is not None:
            write_bytes(path, write(check).encode())
    if args.json:
        options.print_json(as_json(check))
    else:
        print_check(check, console)
    if args.github and not args.json:
        print("\n".join(annotations(check)))
