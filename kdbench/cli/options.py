"""Options that several commands share."""

import argparse
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdbench.errors import KdbenchError

if TYPE_CHECKING:
    from rich.console import Console

    from kdbench.compute.device import Compute
    from kdbench.engines.task import Engine
    from kdbench.registry import Plugin, Registry
    from kdbench.results.folder import Results
    from kdbench.study.plan import Shard
    from kdbench.study.session import Session
    from kdbench.suites.schema import PairSpec, Suite


def add_command(commands: Any, name: str, execute: Any, summary: str) -> argparse.ArgumentParser:
    """A sub-parser that remembers what it runs."""
    parser = commands.add_parser(name, help=summary, description=summary, allow_abbrev=False)
    parser.set_defaults(execute=execute, parser=parser)
    return parser


def whole(least: int, most: int = 2**53) -> Callable[[str], int]:
    """The type of an option that takes a whole number from `least` to `most`."""

    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text[:40]!r} is no whole number") from None
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text[:40]} is not from {least} to {most}")
        return value

    return number


def minutes(text: str) -> float:
    """The type of an option that takes a time."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no number of minutes")
    return value


def shard(text: str) -> "Shard":
    """The type of an option that takes a part of a run: `2/9` is the second of nine."""
    from kdbench.study.plan import Shard

    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
    number, of = map(int, match.groups()) if match else (0, 0)
    if not 1 <= number <= of:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no part of a run; the second of nine parts is 2/9")
    return Shard(number, of)


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
    parser.add_argument(
        "--pairs",
        help="hetero, homo, all, or teacher:student,... of the suite's models or timm's, overrides in brackets: "
        "resnet18[layers=[1,1,1,1]] (default: hetero; all in a suite that has none of those)",
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="METHOD.NAME=VALUE", help="a hyperparameter, repeatable"
    )


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """A teacher of the user's own."""
    parser.add_argument(
        "--teacher-checkpoint",
        type=Path,
        metavar="FILE",
        help="trained weights of the teacher of --pairs: safetensors, or a torch checkpoint; images are normalised as "
        "the suite's (else: kdbench teachers import)",
    )


def add_data(parser: argparse.ArgumentParser) -> None:
    """Where data is."""
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        default=Path(os.environ.get("KDBENCH_DATA", "data")),
        help="folder of data sets and teachers that do not come with kdbench (default: $KDBENCH_DATA, else ./data)",
    )


def add_compute(parser: argparse.ArgumentParser) -> None:
    """On what, and with which data."""
    add_data(parser)
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16"])
    parser.add_argument(
        "--compile", default="off", choices=["off", "on", "graphs"], help="torch.compile; graphs: with CUDA graphs too"
    )
    parser.add_argument(
        "--micro-batch",
        type=whole(1, 1_000_000),
        metavar="N",
        help="accumulate batches in parts of N images (losses see the part)",
    )
    parser.add_argument(
        "--loaders", type=whole(0, 1024), metavar="N", help="processes that read data sets that do not fit"
    )


def resolve_compute(args: argparse.Namespace) -> "Compute":
    """What `add_compute` asks for.

    Raises:
        KdbenchError: this machine has it not.
    """
    from kdbench.compute.device import resolve

    return resolve(args.device, args.precision, args.compile, args.micro_batch, args.loaders)


def add_workers(parser: Any) -> None:
    parser.add_argument(
        "--workers",
        type=whole(1, 1024),
        metavar="N",
        help="processes side by side (default: one a core, one a GPU)",
    )


def add_reduction(parser: argparse.ArgumentParser) -> None:
    """Less than the whole suite, for a first look; results get a protocol of their own."""
    parser.add_argument("--epochs", type=whole(1, 1_000_000), metavar="N", help="other epochs than the recipes'")
    parser.add_argument(
        "--limit", metavar="TRAIN[,TEST]", help="so many training (and test) images, the same share of every class"
    )


def add_limits(parser: argparse.ArgumentParser) -> None:
    """What becomes of a run that takes long."""
    parser.add_argument(
        "--budget", metavar="TIME", help="start nothing new after so long, such as 8h or 90m; what runs is finished"
    )
    parser.add_argument(
        "--time-limit", metavar="TIME", help="close a student that takes longer than this (default: no limit)"
    )
    parser.add_argument(
        "--checkpoint-every",
        metavar="TIME",
        default="5m",
        help="how much of a training is lost at most when the machine goes down (default: %(default)s)",
    )


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Where the work is done, and how much of it."""
    add_workers(parser)
    parser.add_argument(
        "--shard",
        type=shard,
        default="1/1",
        metavar="I/N",
        help="train only the I-th (from 1) of N parts of the run, as a job array does",
    )
    parser.add_argument(
        "--engine",
        default="local",
        choices=["local", "ray"],
        help="processes of this machine, or a Ray cluster, where --workers is for each GPU (default: local)",
    )
    parser.add_argument(
        "--ray-address",
        metavar="HOST:PORT",
        help="head of the Ray cluster (default: $RAY_ADDRESS, else a new cluster on this machine)",
    )


def make_engine(args: argparse.Namespace, compute: "Compute") -> "Engine":
    """The engine that `add_engine` asks for.

    Raises:
        KdbenchError: Ray is not installed, or no cluster answers.
    """
    if args.engine == "local":
        from kdbench.engines.local import LocalEngine

        return LocalEngine()
    if compute.replica.world > 1:
        raise KdbenchError("--engine ray trains a cell in one process; leave torchrun out, or --engine")
    try:
        from kdbench.engines.ray import RayEngine
    except ModuleNotFoundError as error:
        raise KdbenchError("--engine ray needs Ray, which is not installed; pip install 'kdbench[ray]'") from error
    return RayEngine(args.ray_address, on_gpu=compute.device.type == "cuda")


def make_session(args: argparse.Namespace, results: "Results", console: "Console", compute: "Compute") -> "Session":
    """The surroundings of a run, as `add_engine` and `add_limits` ask for them."""
    from kdbench.engines.stop import StopRequest
    from kdbench.study.session import Limits, Session

    limit = parse_time("--time-limit", args.time_limit) if args.time_limit else None
    budget = parse_time("--budget", args.budget) if args.budget else None
    limits = Limits(parse_time("--checkpoint-every", args.checkpoint_every), limit)
    engine = make_engine(args, compute)
    return Session(results, args.data, console, args.workers, engine, StopRequest(budget), limits)


def parse_time(option: str, text: str) -> float:
    """Seconds of `90`, `90s`, `15m`, `8h`, `2d` or `1h30m`.

    Raises:
        KdbenchError: it is none of these.
    """
    match = re.fullmatch(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?", text)
    if not match or not any(match.groups()):
        raise KdbenchError(f"{option} '{text}' is no time; write it as 90s, 15m, 8h or 1h30m")
    days, hours, minutes, seconds = (float(group or 0) for group in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


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

    @property
    def ordered(self) -> list["Plugin"]:
        """The plug-ins in the order of the tables."""
        return sorted(self.plugins, key=lambda plugin: self.registry.order(plugin.name))

    def add_references(self) -> None:
        """Add control and baseline where they were not asked for.

        Gains and ratios are taken against these two, measured here on the same seeds and rounds, never borrowed.

        Raises:
            KdbenchError: none is installed.
        """
        for role in ("control", "baseline"):
            name = self.registry.by_role(role)
            if all(plugin.name != name for plugin in self.plugins):
                self.plugins.append(self.registry.plugins[name])

    def drop_broken(self, request: str, console: "Console") -> None:
        """Import the plug-ins (and torch); name those that are left out because they are broken.

        Raises:
            KdbenchError: a plug-in that `request` names is broken.
        """
        self.plugins = self.registry.importable(self.plugins, request)
        for name, error in self.registry.errors.items():
            console.print(f"method {name} is left out: {error}", style="yellow", highlight=False, markup=False)


def read_grid(args: argparse.Namespace) -> Grid:
    """Look up suite, methods, pairs and settings of `add_grid`.

    Raises:
        KdbenchError: one of them is mistyped or broken.
    """
    from kdbench.hyperparameters import parse_settings
    from kdbench.registry import Registry
    from kdbench.suites.anymodel import select_pairs, with_checkpoint
    from kdbench.suites.loading import load_suite

    suite, registry = load_suite(args.suite), Registry.installed()
    suite, pairs = select_pairs(suite, args.pairs or suite.usual_pairs)
    if getattr(args, "teacher_checkpoint", None) is not None:
        suite, pairs = with_checkpoint(suite, pairs, args.teacher_checkpoint)
    return Grid(suite, registry, registry.select(args.methods), pairs, parse_settings(args.set))


def store_checkpoint(args: argparse.Namespace, grid: Grid, compute: "Compute") -> None:
    """Import the file of `add_checkpoint`, where one is named and not yet stored.

    Raises:
        KdbenchError: its weights do not fit, or do not know the task.
    """
    from kdbench.engines.local import in_subprocess
    from kdbench.study.plan import command_line
    from kdbench.study.teachers import import_once

    if args.teacher_checkpoint is not None:
        given = grid.suite, grid.pairs[0].teacher, args.teacher_checkpoint, compute, args.data, command_line()
        in_subprocess(compute, import_once, *given)


def reduce(suite: "Suite", args: argparse.Namespace) -> "Suite":
    """The suite as `add_reduction` asks for it.

    Raises:
        KdbenchError: not whole numbers, or none left.
    """
    try:
        sizes = [int(part) for part in args.limit.split(",")] if args.limit is not None else []
    except ValueError:
        sizes = [0]
    if len(sizes) > 2 or any(size < 1 for size in sizes):
        raise KdbenchError(f"--limit {args.limit!r} is not TRAIN or TRAIN,TEST images, as in `--limit 5000,1000`")
    return suite.reduced(args.epochs, *[*sizes, None, None][:2])


def folder_name(suite: "Suite") -> str:
    """A results folder for each suite and reduction: a look at a few images never stands beside the results."""
    _, plus, reduction = suite.protocol.partition("+")
    return suite.name + plus + reduction


def print_json(value: Any) -> None:
    """The machine-readable result of a command."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    # What is no text in a file's name is escaped as JSON escapes it.
    print(text.encode(errors="backslashreplace").decode())


def parse_seeds(text: str | None, default: int) -> list[int]:
    """`3` is seeds 0, 1, 2; `0,4,7` are those.

    Raises:
        KdbenchError: not whole numbers, or none.
    """
    from kdbench.suites.schema import MOST_SEEDS
    from kdbench.values import LARGEST

    if text is None:
        return list(range(default))
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise KdbenchError(f"--seeds {text!r} is neither a number of seeds nor a list such as 0,1,2") from error
    counted = len(numbers) == 1 and "," not in text
    if max(numbers) > (MOST_SEEDS if counted else LARGEST):
        raise KdbenchError(f"--seeds {text!r} is too many: up to {MOST_SEEDS} seeds, each up to {LARGEST}")
    seeds = list(range(numbers[0])) if counted else sorted(set(numbers))
    if not seeds or min(seeds) < 0:
        raise KdbenchError(f"--seeds {text!r} names no seed; give a number of seeds or a list such as 0,1,2")
    return seeds
