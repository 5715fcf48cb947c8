"""The plan: which cells there are, the key of each, and which are still to do."""

import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, product
from pathlib import Path
from typing import Any

from kdbench.compute.device import Compute
from kdbench.data import opening
from kdbench.errors import KdbenchError, one_line
from kdbench.files import canonical_json, content_key
from kdbench.hyperparameters import validate
from kdbench.registry import Plugin
from kdbench.results.folder import CellId, Results
from kdbench.results.schema import (
    FINISHED,
    SCHEMA,
    FrozenNote,
    Manifest,
    MethodNote,
    PlannedCell,
    PlannedMeasurement,
    PublishedNames,
    RaceNote,
    Role,
    Setting,
    Split,
    TunedNote,
)
from kdbench.results.tuned import Tuned
from kdbench.suites.schema import PairSpec, Suite
from kdbench.training.teacher import current_metadata


@dataclass(frozen=True)
class Shard:
    """The `number`-th (from 1) of `of` parts of a run, each trained by a command of its own; by default all of it."""

    number: int = 1
    of: int = 1

    @property
    def whole(self) -> bool:
        """Whether the run has this one part only."""
        return self.of == 1

    def holds(self, index: int) -> bool:
        """Whether the group at `index` (from 0) belongs to this shard."""
        return index % self.of == self.number - 1

    def __str__(self) -> str:
        return f"shard {self.number}/{self.of}"


@dataclass(frozen=True)
class MethodPlan:
    """A method with settled hyperparameters; `plugin` lets a worker import it.

    Attributes:
        tuned: which file some of the hyperparameters were chosen in, empty for none.
        altered: the hyperparameters that are not the suite's, tuned or set by hand, as `name=value`.
        trial: number of the settings where several of one method are tried side by side; 0 are the usual ones.
    """

    plugin: Plugin
    role: Role
    hyperparameters: dict[str, Any]
    tuned: str = ""
    altered: tuple[str, ...] = ()
    trial: int = 0

    @property
    def name(self) -> str:
        """What records, contenders and files call it."""
        return f"{self.plugin.name}#{self.trial}" if self.trial else self.plugin.name

    @property
    def identity(self) -> dict[str, Any]:
        """What a key holds of the method."""
        return {
            "name": self.name,
            "hyperparameters": self.hyperparameters,
            "source": self.plugin.source_sha256,
        }

    @property
    def note(self) -> MethodNote:
        """What the method says of itself, for the reader of a report."""
        method, source = self.plugin.method, self.plugin.source
        words = {"kind": method.kind, "paper": method.paper, "venue": method.venue, "summary": source.summary}
        # A report goes to other machines, so of a file it tells the name alone.
        is_file = self.plugin.target.partition(":")[0].endswith(".py")
        target = f"{source.path.name}:{source.class_name}" if is_file else self.plugin.target
        return MethodNote(**{name: one_line(text) for name, text in words.items()}, source=one_line(target))


@dataclass(frozen=True)
class Cell:
    """One student to be trained by one method."""

    key: str
    pair: PairSpec
    method: MethodPlan
    seed: int

    @property
    def id(self) -> CellId:
        """The id by which the files of the cell are found."""
        return CellId(self.pair.name, self.method.name, self.seed, self.key)


@dataclass(frozen=True)
class Plan:
    """Everything a run will do.

    Attributes:
        identities: what the keys say of each pair: data, teacher weights, models, recipe.
        setting: what is trained on and how, for the reader of a report; no key depends on it.
        best: the test split is read for the whole learning curve, for the best epoch that the literature reports.
        tuned: the file of tuned hyperparameters, None for none.
        only: the (pair, method)s that it is about; None for all.
        shard: the part of its cells that this command trains.
        command: what makes the plan again.
        race: where methods are dropped on the way; None for a run of all methods on all seeds.
        frozen: the plan in a file that this one is; None where it follows none.
    """

    suite: Suite
    split: Split
    compute: Compute
    methods: tuple[MethodPlan, ...]
    pairs: tuple[PairSpec, ...]
    seeds: tuple[int, ...]
    identities: dict[str, dict[str, Any]]
    setting: Setting
    best: bool = False
    tuned: TunedNote | None = None
    only: frozenset[tuple[str, str]] | None = None
    shard: Shard = field(default_factory=Shard)
    command: str = ""
    race: RaceNote | None = None
    frozen: FrozenNote | None = None

    def includes(self, pair: PairSpec, method: MethodPlan) -> bool:
        """Whether the plan is about this method on this pair."""
        return self.only is None or (pair.name, method.name) in self.only

    def cells(self) -> Iterator[Cell]:
        """Every cell, seeds outermost, so that an unfinished study has whole seeds."""
        for seed, pair, method in product(self.seeds, self.pairs, self.methods):
            if not self.includes(pair, method) or self._dropped_before(seed, method):
                continue
            identity = {
                **self.identities[pair.name],
                "method": method.identity,
                "seed": seed,
                "split": self.split,
                "best": self.best,
                **self.compute.identity,
                "schema": SCHEMA,
            }
            yield Cell(content_key(identity), pair, method, seed)

    def _dropped_before(self, seed: int, method: MethodPlan) -> bool:
        """Whether the method takes no part any more in the round of this seed."""
        dropped = self.race["dropped"] if self.race else {}
        return self.seeds.index(seed) >= dropped.get(method.name, len(self.seeds))

    def own_cells(self) -> Iterator[Cell]:
        """The cells of the shard. A shard has whole (seed, pair) groups, because those are trained together."""
        groups = groupby(self.cells(), key=lambda cell: (cell.seed, cell.pair))
        for index, (_, cells) in enumerate(groups):
            if self.shard.holds(index):
                yield from cells

    def manifest(self, throughput: Sequence[PlannedMeasurement]) -> Manifest:
        """The manifest to write before anything runs."""
        manifest = Manifest(
            schema=SCHEMA,
            suite=self.suite.name,
            protocol=self.suite.protocol,
            command=self.command,
            methods=[method.name for method in self.methods],
            roles={method.name: method.role for method in self.methods},
            pairs=[pair.name for pair in self.pairs],
            hetero=[pair.name for pair in self.pairs if self.suite.is_hetero(pair)],
            seeds=list(self.seeds),
            cells=[
                PlannedCell(key=cell.key, pair=cell.pair.name, method=cell.method.name, seed=cell.seed)
                for cell in self.cells()
            ],
            throughput=list(throughput),
            published=PublishedNames(
                protocol=self.suite.published,
                models={name: model.published for name, model in self.suite.models.items() if model.published},
                methods={
                    method.name: list(names) for method in self.methods if (names := method.plugin.method.published)
                },
            ),
            differs={method.name: what for method in self.methods if (what := method.plugin.method.differs)},
            setting=self.setting,
            notes={method.name: method.note for method in self.methods},
        )
        if altered := {method.name: list(method.altered) for method in self.methods if method.altered}:
            manifest["altered"] = altered
        if self.race is not None:
            manifest["race"] = self.race
        if self.tuned is not None:
            manifest["tuned"] = self.tuned
        if self.frozen is not None:
            manifest["frozen"] = self.frozen
        return manifest


def settle(
    suite: Suite, plugins: Sequence[Plugin], settings: dict[str, dict[str, Any]], tuned: Tuned | None = None
) -> list[MethodPlan]:
    """Methods with their hyperparameters: defaults, then the suite's preset, then what was `tuned`, then `settings`.

    Raises:
        KdbenchError: an unknown method or hyperparameter in `settings` or `tuned`, or two methods with one of the
            special roles.
    """
    methods = []
    unused = set(settings) - {plugin.name for plugin in plugins}
    if unused:
        names = ", ".join(sorted(unused))
        raise KdbenchError(f"--set names the method {names}, which is not among --methods")
    for plugin in plugins:
        preset = plugin.method.presets.get(suite.preset, {})
        chosen = tuned.values[plugin.name] if tuned else {}
        usual = validate(plugin.name, plugin.hyperparameters, preset)
        values = validate(plugin.name, plugin.hyperparameters, preset, chosen, settings.get(plugin.name, {}))
        label = tuned.label if tuned and chosen else ""
        altered = tuple(f"{name}={canonical_json(value)}" for name, value in values.items() if value != usual[name])
        methods.append(MethodPlan(plugin, plugin.method.role, values, label, altered))
    for role in ("control", "baseline"):
        holders = [method.name for method in methods if method.role == role]
        if len(holders) > 1:
            raise KdbenchError(
                f"{' and '.join(holders)} both have the role '{role}'; leave `role` alone in your own methods"
            )
    return methods


def make_plan(
    suite: Suite,
    plugins: Sequence[Plugin],
    pairs: Sequence[PairSpec],
    seeds: Sequence[int],
    *,
    compute: Compute,
    data_root: Path,
    settings: dict[str, dict[str, Any]] | None = None,
    split: Split = "test",
    best: bool = False,
    tuned: Tuned | None = None,
    shard: Shard | None = None,
    command: str = "",
) -> Plan:
    """Settle hyperparameters and what the keys depend on; the arguments are the attributes of `Plan`.

    Args:
        settings: hyperparameters set by hand, by method.

    Raises:
        KdbenchError: an unknown method or hyperparameter in `settings`, a broken plug-in, a missing teacher or data.
    """
    methods = settle(suite, plugins, settings or {}, tuned)
    data = opening.open_dataset(suite.data, data_root)
    identities = {}
    for pair in pairs:
        # What cannot be trained is told before anything is written.
        opening.fitted_recipe(suite.recipe_of(pair.student), suite.data, data_root, suite.data.held_out(split))
        teacher = current_metadata(suite, pair.teacher, data_root)
        identities[pair.name] = {
            "data": {**suite.data.model_dump(exclude={"source", "teacher_source"}), "sha256": data.sha256},
            "teacher": {
                "model": suite.models[pair.teacher].identity,
                "sha256": teacher["sha256"],
                "normalisation": teacher.get("normalisation"),
            },
            "student": suite.models[pair.student].identity,
            "recipe": suite.recipe_of(pair.student).model_dump(),
            "eval_every": suite.eval_every,
            "protocol": suite.protocol,
            "pair": pair.name,
        }
    return Plan(
        suite=suite,
        split=split,
        compute=compute,
        methods=tuple(methods),
        pairs=tuple(pairs),
        seeds=tuple(seeds),
        identities=identities,
        setting=_setting(suite, pairs, split, data_root),
        best=best,
        tuned=tuned.note if tuned else None,
        shard=shard or Shard(),
        command=command or command_line(),
    )


def _setting(suite: Suite, pairs: Sequence[PairSpec], split: Split, data_root: Path) -> Setting:
    data, recipes = suite.data, {pair.student: suite.recipe_of(pair.student) for pair in pairs}
    held_out = data.held_out(split)
    train, evaluated = (len(opening.open_split(data, data_root, part, held_out)) for part in ("train", split))
    return Setting(
        description=suite.description,
        data=data.source,
        teacher_data=data.teacher_source or data.source,
        classes=len(opening.open_dataset(data, data_root).classes),
        train_images=train,
        test_images=evaluated,
        image_size=data.image_size,
        epochs={student: recipe.epochs for student, recipe in recipes.items()},
        recipes={student: recipe.words for student, recipe in recipes.items()},
    )


def finished_keys(results: Results) -> set[str]:
    """Keys of the cells that need no further run."""
    return {cell["key"] for cell in results.cells() if cell["status"] in FINISHED}


def command_line() -> str:
    """The command of the run as a shell reads it: all of it, not of one shard; what is no text in it is escaped."""
    words = ["kdbench", *sys.argv[1:]]
    kept = [
        word
        for before, word in zip(["", *words], words, strict=False)
        if not (word.startswith("--shard=") or "--shard" in (word, before))
    ]
    return shlex.join(kept).encode(errors="backslashreplace").decode()
