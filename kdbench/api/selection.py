"""The part of a suite that a user asks for: its methods, pairs and hyperparameters, looked up before torch loads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from kdbench.registry import Plugin, Registry
from kdbench.suites.anymodel import select_pairs, with_checkpoint
from kdbench.suites.loading import load_suite
from kdbench.suites.schema import PairSpec, Suite

if TYPE_CHECKING:
    from rich.console import Console

    from kdbench.compute.device import Compute


@dataclass
class Selection:
    """The part of a suite that a user asks for.

    Attributes:
        suite: the suite, with further models where the request names any.
        registry: all methods that are known.
        plugins: the methods that are asked for.
        pairs: the pairs that are asked for.
        settings: hyperparameters set by hand, by method and name.
        request: the methods as they were asked for.
        checkpoint: the trained weights of the teacher, where the user has named a file.
    """

    suite: Suite
    registry: Registry
    plugins: list[Plugin]
    pairs: list[PairSpec]
    settings: dict[str, dict[str, Any]]
    request: str
    checkpoint: Path | None

    @property
    def ordered(self) -> list[Plugin]:
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

    def prepare(self, compute: "Compute", data_root: Path, console: "Console", suite: Suite | None = None) -> None:
        """Import the plug-ins, and store a teacher's checkpoint where one is named and not stored yet.

        Only the first of several processes that train a cell together goes on to print.

        Args:
            suite: the suite as the run reduces it, on whose images the teacher is measured. Default: the whole one.

        Raises:
            KdbenchError: a named plug-in is broken, or the weights do not fit.
        """
        self.plugins = self.registry.importable(self.plugins, self.request)
        name_broken(self.registry.errors, console)
        if self.checkpoint is not None:
            self._import(self.checkpoint, suite or self.suite, compute, data_root, console)
        console.quiet = compute.replica.rank > 0

    def _import(self, checkpoint: Path, suite: Suite, compute: "Compute", data_root: Path, console: "Console") -> None:
        from kdbench.engines.display import counted
        from kdbench.engines.local import in_subprocess
        from kdbench.study.plan import command_line
        from kdbench.study.teachers import import_once

        teacher = self.pairs[0].teacher
        with counted(console, f"reading {checkpoint}") as show:
            # Another process cannot be listened to.
            listener = show if compute.device.type == "cpu" else None
            task = partial(import_once, command=command_line(), on_images=listener)
            imported = in_subprocess(compute, task, suite, teacher, checkpoint, compute, data_root)
        if imported is not None:
            tell_tried(imported.tried, console)


def tell_tried(tried: Sequence[tuple[str, float]], console: "Console") -> None:
    """Tell how a file of weights could be read, where there were several ways, and which of them is stored."""
    if len(tried) > 1:
        console.print("several readings of the file were measured; the best one is stored:", soft_wrap=True)
        for number, (what, top1) in enumerate(tried):
            console.print(Text(f"  {top1:6.2f} %  {what}{'' if number else '  (stored)'}"), soft_wrap=True)


def look_up(
    suite_name: str,
    methods: str,
    pairs: str | None = None,
    settings: dict[str, dict[str, Any]] | None = None,
    checkpoint: Path | None = None,
) -> Selection:
    """Look up a suite, methods and pairs; by default the pairs that the suite usually runs.

    Raises:
        KdbenchError: one of them is mistyped or broken.
    """
    suite, registry = load_suite(suite_name), Registry.installed()
    suite, chosen = select_pairs(suite, pairs or suite.usual_pairs)
    if checkpoint is not None:
        suite, chosen = with_checkpoint(suite, chosen, checkpoint)
    return Selection(suite, registry, registry.select(methods), chosen, settings or {}, methods, checkpoint)


def name_broken(errors: Mapping[str, str], console: "Console") -> None:
    """Name the methods that are left out because they are broken."""
    for name, error in errors.items():
        console.print(Text(f"method {name} is left out: {error}", style="yellow"), soft_wrap=True)


def results_folder(suite: Suite, suffix: str = "") -> Path:
    """A results folder for each suite and reduction: a look at a few images never stands beside the results."""
    _, plus, reduction = suite.protocol.partition("+")
    return Path("results") / f"{suite.name}{plus}{reduction}{suffix}"
