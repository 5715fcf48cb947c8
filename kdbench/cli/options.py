"""Options that several commands share."""

import argparse
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdbench.errors import KdbenchError

if TYPE_CHECKING:
    from rich.console import Console

    from kdbench.registry import Plugin, Registry
    from kdbench.suites.schema import PairSpec, Suite


def add_command(commands: Any, name: str, execute: Any, summary: str) -> argparse.ArgumentParser:
    """A sub-parser that remembers what it runs."""
    parser = commands.add_parser(name, help=summary, description=summary, allow_abbrev=False)
    parser.set_defaults(execute=execute, parser=parser)
    return parser


def add_suite(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--suite", default="proxy", help="name of a suite, or a TOML file (default: proxy)")


def add_grid(parser: argparse.ArgumentParser) -> None:
    """Which part of a suite."""
    add_suite(parser)
    parser.add_argument(
        "--methods",
        default="all",
        help="names, files and dotted names: `all,./mine.py,pkg.mod:Class` (default: all)",
    )
    parser.add_argument("--pairs", default="hetero", help="hetero, homo, all, or teacher:student,... (default: hetero)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="METHOD.NAME=VALUE", help="a hyperparameter, repeatable"
    )


def add_compute(parser: argparse.ArgumentParser) -> None:
    """On what, and with which data."""
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        default=Path(os.environ.get("KDBENCH_DATA", "data")),
        help="folder of data sets and teachers that do not come with kdbench (default: $KDBENCH_DATA, else ./data)",
    )
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16"])


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


@dataclass
class Grid:
    """The part of a suite that the options ask for: everything that can be mistyped, looked up before torch loads."""

    suite: "Suite"
    registry: "Registry"
    plugins: list["Plugin"]
    pairs: list["PairSpec"]
    settings: dict[str, dict[str, Any]]

    def drop_broken(self, request: str, console: "Console") -> None:
        """Import the plug-ins (and torch); name those that are left out because they are broken.

        Raises:
            KdbenchError: a plug-in that `request` names is broken.
        """
        self.plugins = self.registry.importable(self.plugins, request)
        for name, error in self.registry.errors.items():
            console.print(f"[yellow]method {name} is left out:[/yellow] {error}", highlight=False)


def read_grid(args: argparse.Namespace) -> Grid:
    """Look up suite, methods, pairs and settings of `add_grid`.

    Raises:
        KdbenchError: one of them is mistyped or broken.
    """
    from kdbench.hyperparameters import parse_settings
    from kdbench.registry import Registry
    from kdbench.suites.schema import load

    suite, registry = load(args.suite), Registry.installed()
    return Grid(
        suite, registry, registry.select(args.methods), suite.select_pairs(args.pairs), parse_settings(args.set)
    )


def print_json(value: Any) -> None:
    """The machine-readable result of a command."""
    print(json.dumps(value, indent=1, ensure_ascii=False))


def parse_seeds(text: str | None, default: int) -> list[int]:
    """`3` is seeds 0, 1, 2; `0,4,7` are those.

    Raises:
        KdbenchError: not whole numbers, or none.
    """
    if text is None:
        return list(range(default))
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise KdbenchError(f"--seeds {text!r} is neither a number of seeds nor a list such as 0,1,2") from error
    seeds = list(range(numbers[0])) if len(numbers) == 1 and "," not in text else sorted(set(numbers))
    if not seeds or min(seeds) < 0:
        raise KdbenchError(f"--seeds {text!r} names no seed; give a number of seeds or a list such as 0,1,2")
    return seeds
