"""Options that several commands share: typed groups, each with what it asks for."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, dataclass_transform

from cyclopts import Group, Parameter, Token

from kdbench.cli import completion
from kdbench.errors import KdbenchError

if TYPE_CHECKING:
    from kdbench.api.selection import Selection
    from kdbench.compute.device import Compute
    from kdbench.engines.task import Engine
    from kdbench.study.plan import Shard
    from kdbench.study.session import Session
    from kdbench.suites.schema import Suite

T = TypeVar("T")

WHAT = Group("What to run", sort_key=2)
HOW = Group("How to compute", sort_key=3)
WHERE = Group("Where", sort_key=4)
HOW_LONG = Group("How long", sort_key=5)
OUTPUT = Group("Output", sort_key=6)


@dataclass_transform(kw_only_default=True, frozen_default=True)
def grouped(group: Group) -> Callable[[type[T]], type[T]]:
    """A frozen dataclass whose fields are the options of a group; what stands below a field is its help."""
    return lambda options: Parameter(name="*", group=group)(dataclass(frozen=True, kw_only=True)(options))


def number(least: float, most: float = 2**53, *, of: type[int] | type[float] = int, **settings: Any) -> Parameter:
    """An option that takes a number from `least` to `most`, a whole one unless it is `of` the type float."""

    def convert(_: type, tokens: Sequence[Token]) -> float:
        text = tokens[0].value
        try:
            value = of(_plain(text))
        except ValueError:
            raise ValueError(f"{text[:40]!r} is no {'whole ' if of is int else ''}number") from None
        if not least <= value <= most:
            raise ValueError(f"{text[:40]} is not from {least} to {most}")
        return value

    return Parameter(**{"converter": convert, "metavar": "N", **settings})


def _plain(text: str) -> str:
    """`text`, where it is a number to everybody: Python also reads 1_0, which is easily a mistyped 1,0.

    Raises:
        ValueError: it is none.
    """
    if "_" in text:
        raise ValueError(f"{text[:40]!r} is no number")
    return text


folder = partial(Parameter, metavar="DIR")
file = partial(Parameter, metavar="FILE")

DATA = Path("data")
Folder = Annotated[Path | None, folder()]
File = Annotated[Path | None, file()]
Results = Annotated[Path, Parameter(name="DIR")]
Json = Annotated[bool, Parameter(group=OUTPUT, help="Print the result as JSON.")]
SuiteName = Annotated[
    str, Parameter(completer=completion.suite_names, help="The name of a suite, or the path of a TOML file.")
]
Settings = Annotated[
    tuple[str, ...],
    Parameter(name="--set", metavar="METHOD.NAME=VALUE", help="A hyperparameter; the option may be repeated."),
]
DataFolder = Annotated[
    Path,
    folder(
        group=WHERE,
        env_var="KDBENCH_DATA",
        help="The folder of data sets and teachers that do not come with kdbench; $KDBENCH_DATA names another default.",
    ),
]
Workers = Annotated[
    int | None,
    number(1, 1024, group=WHERE, help="How many processes work side by side. Default: one a core, or one a GPU."),
]


@grouped(WHAT)
class Grid:
    """Which methods on which pairs of which suite."""

    suite: SuiteName = "proxy"
    methods: Annotated[str, Parameter(completer=completion.method_names)] = "all"
    """The methods by name, by file or by dotted name, as in `all,./mine.py,package.module:Class`."""
    pairs: Annotated[str | None, Parameter(completer=completion.pair_names)] = None
    """The pairs: `hetero`, `homo`, `all`, or a list of `teacher:student` with models of the suite or of timm; overrides
    stand in brackets, as in `resnet18[layers=[1,1,1,1]]`. Default: hetero, or all where a suite has no such pair."""
    set: Settings = ()
    teacher_checkpoint: Annotated[Path | None, file()] = None
    """The trained weights of the teacher of --pairs, as safetensors or as a torch checkpoint. Images are normalised as
    the suite says; for other weights there is `kdbench teachers import`."""

    def look_up(self) -> "Selection":
        """Look up what is asked for; control and baseline are added.

        Raises:
            KdbenchError: something is mistyped or broken.
        """
        from kdbench.api.selection import look_up
        from kdbench.hyperparameters import parse_settings

        settings = parse_settings([*self.set])
        selection = look_up(self.suite, self.methods, self.pairs, settings, self.teacher_checkpoint)
        selection.add_references()
        return selection


@grouped(HOW)
class ComputeOptions:
    """On what to compute, how, and with which data."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """The device to compute on; `auto` takes a GPU where there is one."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """The precision of training; `auto` takes bf16 where the device has units for it."""
    compile: Literal["off", "on", "graphs"] = "off"
    """Compile the models with torch.compile; `graphs` launches them as CUDA graphs too."""
    micro_batch: Annotated[int | None, number(1, 1_000_000)] = None
    """Accumulate each batch in parts of N images; losses see a part at a time."""
    loaders: Annotated[int | None, number(0, 1024)] = None
    """The number of processes that read data sets which do not fit into memory."""
    data: DataFolder = DATA

    def resolve(self) -> "Compute":
        """What these options ask for, on this machine.

        Raises:
            KdbenchError: this machine lacks it.
        """
        from kdbench.compute.device import resolve

        return resolve(self.device, self.precision, self.compile, self.micro_batch, self.loaders)


@grouped(HOW_LONG)
class Reduction:
    """Less than the whole suite, for a first look; results get a protocol of their own."""

    epochs: Annotated[int | None, number(1, 1_000_000)] = None
    """Train for N epochs, whatever the recipes say."""
    limit: Annotated[str | None, Parameter(metavar="TRAIN[,TEST]")] = None
    """Train and test on so many images only, the same share of every class."""

    def reduce(self, suite: "Suite") -> "Suite":
        """The suite as these options ask for it.

        Raises:
            KdbenchError: the limits are not whole numbers, or leave nothing.
        """
        try:
            sizes = [int(_plain(part)) for part in self.limit.split(",")] if self.limit is not None else []
        except ValueError:
            sizes = [0]
        if len(sizes) > 2 or any(size < 1 for size in sizes):
            raise KdbenchError(f"--limit {self.limit!r} is not TRAIN or TRAIN,TEST images, as in `--limit 5000,1000`")
        return suite.reduced(self.epochs, *[*sizes, None, None][:2])


@grouped(HOW_LONG)
class LimitOptions:
    """What becomes of a run that takes long."""

    budget: Annotated[str | None, Parameter(metavar="TIME")] = None
    """Start nothing new after so long, such as 8h or 90m; what runs by then is finished."""
    time_limit: Annotated[str | None, Parameter(metavar="TIME")] = None
    """Close a student that takes longer than this. Default: no limit."""
    checkpoint_every: Annotated[str, Parameter(metavar="TIME")] = "5m"
    """How much of a training is lost at most when the machine goes down."""

    def check(self) -> None:
        """Refuse what is no time.

        Raises:
            KdbenchError: one of these options is no time.
        """
        for option, text in (
            ("--time-limit", self.time_limit),
            ("--budget", self.budget),
            ("--checkpoint-every", self.checkpoint_every),
        ):
            if text:
                parse_time(option, text)

    def on(self, session: "Session") -> "Session":
        """The session with these limits.

        Raises:
            KdbenchError: one of these options is no time.
        """
        from kdbench.engines.stop import StopRequest
        from kdbench.study.session import Limits

        limit = parse_time("--time-limit", self.time_limit) if self.time_limit else None
        budget = parse_time("--budget", self.budget) if self.budget else None
        limits = Limits(parse_time("--checkpoint-every", self.checkpoint_every), limit)
        return replace(session, stop=StopRequest(budget), limits=limits)


@grouped(WHERE)
class EngineOptions:
    """Where the work is done, and how much of it."""

    workers: Workers = None
    shard: Annotated[str, Parameter(metavar="I/N")] = "1/1"
    """Train only the I-th of N parts of the run, counted from 1, as the jobs of a job array do."""
    engine: Literal["local", "ray"] = "local"
    """Work in processes of this machine, or on a Ray cluster, where --workers is the number for each GPU."""
    ray_address: Annotated[str | None, Parameter(metavar="HOST:PORT")] = None
    """The head of the Ray cluster. Default: $RAY_ADDRESS, else a new cluster on this machine."""

    @property
    def part(self) -> "Shard":
        """The part of the run: `2/9` is the second of nine.

        Raises:
            KdbenchError: `--shard` names no part.
        """
        from kdbench.study.plan import Shard

        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", self.shard)
        number, of = map(int, match.groups()) if match else (0, 0)
        if not 1 <= number <= of:
            raise KdbenchError(f"--shard {self.shard[:40]!r} is no part of a run; the second of nine parts is 2/9")
        return Shard(number, of)

    def make(self, compute: "Compute") -> "Engine":
        """The engine that these options ask for.

        Raises:
            KdbenchError: Ray is not installed, or no cluster answers.
        """
        if self.engine == "local":
            from kdbench.engines.local import LocalEngine

            return LocalEngine()
        if compute.replica.world > 1:
            raise KdbenchError("--engine ray trains a cell in one process; leave torchrun out, or --engine")
        try:
            from kdbench.engines.ray import RayEngine
        except ModuleNotFoundError as error:
            raise KdbenchError("--engine ray needs Ray, which is not installed; pip install 'kdbench[ray]'") from error
        return RayEngine(self.ray_address, on_gpu=compute.device.type == "cuda")


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
        numbers = [int(_plain(part)) for part in text.split(",")]
    except ValueError as error:
        raise KdbenchError(f"--seeds {text!r} is neither a number of seeds nor a list such as 0,1,2") from error
    counted = len(numbers) == 1 and "," not in text
    if max(numbers) > (MOST_SEEDS if counted else LARGEST):
        raise KdbenchError(f"--seeds {text!r} is too many: up to {MOST_SEEDS} seeds, each up to {LARGEST}")
    if twice := [number for number in numbers if numbers.count(number) > 1]:
        raise KdbenchError(f"--seeds {text!r} names seed {twice[0]} twice")
    seeds = list(range(numbers[0])) if counted else sorted(numbers)
    if not seeds or min(seeds) < 0:
        raise KdbenchError(f"--seeds {text!r} names no seed; give a number of seeds or a list such as 0,1,2")
    return seeds
