"""The typed schema of a suite file; imports neither torch nor timm."""

from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool

from kdbench.errors import KdbenchError, unknown_name
from kdbench.models.spec import ModelSpec
from kdbench.names import slug, split_request
from kdbench.values import Amount as NotNegative
from kdbench.values import Line, Name, Title
from kdbench.values import Number as Finite
from kdbench.values import Rate as Positive

Share = Annotated[float, Field(ge=0, le=1, strict=True)]
Count = Annotated[int, Field(ge=1, le=1_000_000, strict=True)]
Side = Annotated[int, Field(ge=1, le=4096, strict=True)]
"""Of an image, in pixels."""
MOST_SEEDS = 10_000


class _Strict(BaseModel, frozen=True):
    model_config = ConfigDict(extra="forbid")


VARIANT = "@"
"""`cifar100@yaml` is the variant `yaml` of the suite `cifar100`."""


def _rising(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] > ends[1]:
        raise ValueError("should rise from the first to the second")
    return ends


Interval = Annotated[tuple[Positive, Positive], AfterValidator(_rising)]


class Augment(_Strict, frozen=True):
    """Training augmentation, in this order; timm's and torchvision's distributions.

    Attributes:
        shift: random translation by up to that many pixels each way (zeros come in); with padding p this is the
            usual random crop with padding p.
        resized_crop: range of the area share of a random resized crop, which then takes the place of `shift`.
        ratio: range of its aspect ratio.
        interpolation: of the resized crop; `random` draws one of the two for each image.
        flip: probability of a horizontal flip.
        colour_jitter: brightness, contrast and saturation are each changed by a factor in 1 -/+ that much; as in timm
            it has no effect beside `randaugment`.
        randaugment: a policy in timm's notation (`rand-m9-mstd0.5-inc1`), empty is off.
        erasing: probability that a rectangle is replaced by pixels of normal noise.
        mixup, cutmix: parameter of the Beta distribution of the mixing share, 0 is off.
        mix_probability: share of the batches that are mixed.
        switch_probability: share of the mixed batches that use cutmix where both are on.
    """

    shift: Annotated[int, Field(ge=0, le=4096, strict=True)] = 0
    resized_crop: Interval | None = None
    ratio: Interval = (3 / 4, 4 / 3)
    interpolation: Literal["random", "bilinear", "bicubic"] = "random"
    flip: Share = 0.0
    colour_jitter: NotNegative = 0.0
    randaugment: Line = ""
    erasing: Share = 0.0
    mixup: NotNegative = 0.0
    cutmix: NotNegative = 0.0
    mix_probability: Share = 1.0
    switch_probability: Share = 0.5


class Recipe(_Strict, frozen=True):
    """How a model is trained; the same for every method of a pair. In a suite file a recipe may `extends` another.

    Attributes:
        lr, min_lr, warmup_lr: as given to the optimizer, not scaled by anything.
        decay_vectors: weight decay touches biases and norms, too.
        schedule: over the whole training; `step` multiplies by `decay` at each of `milestones` (epochs).
        schedule_by: the learning rate changes with every step or every epoch.
        clip_grad: largest gradient norm over student and projectors together, 0 is off.
        ema: decay of the exponential moving average that is evaluated in place of the weights, 0 is off; over a part of
            the training images (`--limit`) the average is as much shorter as an epoch is.
        eval_crop: at evaluation, side of the centre crop over the side that the image is resized to.
    """

    epochs: Count
    batch_size: Count
    optimizer: Literal["sgd", "momentum", "adamw", "lamb"]
    lr: Positive
    min_lr: NotNegative = 0.0
    weight_decay: NotNegative = 0.0
    decay_vectors: StrictBool = False
    momentum: NotNegative = 0.9
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    schedule_by: Literal["step", "epoch"] = "step"
    warmup_epochs: Annotated[int, Field(ge=0, le=1_000_000, strict=True)] = 0
    warmup_lr: NotNegative = 0.0
    milestones: tuple[Count, ...] = ()
    decay: Positive = 0.1
    label_smoothing: Share = 0.0
    clip_grad: NotNegative = 0.0
    ema: Share = 0.0
    eval_crop: Annotated[float, Field(gt=0, le=1, strict=True)] = 1.0
    augment: Augment = Augment()

    @property
    def words(self) -> str:
        """The recipe in a line, without the augmentation."""
        extra = {"warm-up epochs": self.warmup_epochs, "gradient norm at most": self.clip_grad, "EMA": self.ema}
        parts = [
            f"{self.epochs} epoch{'s' * (self.epochs > 1)}",
            f"batches of {self.batch_size}",
            f"{self.optimizer} with learning rate {self.lr:g} ({self.schedule}) and weight decay {self.weight_decay:g}",
            *(f"{name} {value:g}" for name, value in extra.items() if value),
        ]
        return ", ".join(parts)

    def shortened(self, epochs: int) -> "Recipe":
        """The recipe with other `epochs`; warm-up, milestones and what the moving average spans keep their share."""
        share = epochs / self.epochs
        update = {
            "epochs": epochs,
            "ema": self.ema ** (1 / share),
            "warmup_epochs": round(self.warmup_epochs * share),
            "milestones": tuple(round(milestone * share) for milestone in self.milestones),
        }
        return self.model_copy(update=update)


class Data(_Strict, frozen=True):
    """The data of a suite.

    Attributes:
        source: name of a data set that `kdbench.data.sources` reads.
        classes: how many the data set has; None where that is found when it is read.
        teacher_source: what the teachers are trained on, where that is more than the transfer set.
        image_size: side in pixels that every model sees.
        fit: how an image gets to that side: `pad` puts zeros around a smaller one, `resize` scales it.
        interpolation: of `resize`, at evaluation.
        mean, std: by channel, of the [0, 1] pixel range.
        holdout: share of each class of the training split that `--split val` evaluates and does not train on.
        reserve_holdout: never train on it, under `--split test` neither; the transfer set is the rest.
        curve_limit: number of the held-out images that learning curves are measured on, where those are not of the
            headline's split; curves of few are noisier, and cheaper.
        limit, test_limit: number of images (the same share of every class) where a run asks for fewer than all.
    """

    source: Line
    classes: Annotated[int, Field(ge=2, le=1_000_000, strict=True)] | None = None
    teacher_source: Line | None = None
    image_size: Side
    fit: Literal["pad", "resize"] = "pad"
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    mean: Annotated[tuple[Finite, ...], Field(min_length=1, max_length=4)]
    std: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=4)]
    holdout: Annotated[float, Field(gt=0, lt=1, strict=True)] = 0.1
    reserve_holdout: StrictBool = False
    curve_limit: Count | None = None
    limit: Count | None = None
    test_limit: Count | None = None

    def held_out(self, split: str) -> float:
        """The share of each class that is not trained on where `split` (`test` or `val`) is evaluated."""
        return self.holdout if self.reserve_holdout or split == "val" else 0.0

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, side, side) of what a model sees."""
        return len(self.mean), self.image_size, self.image_size


class Timing(_Strict, frozen=True):
    """Size of the throughput measurement (timing protocol t/1)."""

    blocks: Count = 30
    block_seconds: Positive = 0.05
    warmup_steps: Count = 20
    warmup_seconds: NotNegative = 2.0


class PairSpec(_Strict, frozen=True):
    """A teacher and a student by their names in the suite."""

    teacher: Title
    student: Title

    @property
    def name(self) -> str:
        return f"{self.teacher}:{self.student}"


class Suite(_Strict, frozen=True):
    """A benchmark: data, models, pairs, recipes.

    Attributes:
        protocol: version of everything that determines accuracy; results of two protocols never share a table.
        preset: name under which methods look up their hyperparameters for this protocol.
        seeds: default number of seeds.
        eval_every: epochs between two evaluations of the learning curve.
        eval_batch_size: images at a time in an evaluation; on a CPU about 100 are fastest and take least memory.
        published: the protocol's name in the published numbers; none (in a variant: empty) where nothing is comparable.
        variants: other settings of the same suite, by name: keys of this file with other values.
        folder: where the suite file lies; teachers may come with it, laid out as in a data folder.
    """

    name: Name
    description: Line
    protocol: Line
    preset: Line
    seeds: Annotated[int, Field(ge=1, le=MOST_SEEDS, strict=True)] = 3
    eval_every: Count = 1
    eval_batch_size: Count = 500
    published: Line | None = None
    data: Data
    timing: Timing = Timing()
    recipes: dict[Line, Recipe]
    models: dict[Name, ModelSpec]
    pairs: tuple[PairSpec, ...] = ()
    variants: dict[Name, dict[str, Any]] = {}
    folder: Path

    @property
    def pair_names(self) -> list[str]:
        return [pair.name for pair in self.pairs]

    @property
    def usual_pairs(self) -> str:
        """What is run where nobody asks for certain pairs."""
        return "hetero" if any(self.is_hetero(pair) for pair in self.pairs) else "all"

    def is_hetero(self, pair: PairSpec) -> bool:
        """A pair is heterogeneous when its two networks are of different kinds."""
        return self.models[pair.teacher].kind != self.models[pair.student].kind

    def recipe_of(self, model: str) -> Recipe:
        """The recipe that trains `model` of this suite."""
        return self.recipes[self.models[model].recipe]

    def teacher_path(self, teacher: str, root: Path) -> Path:
        """Where the trained weights of `teacher` lie: in the data folder `root`, else beside the suite file."""
        users_file = self.own_teachers(root) / teacher_file(teacher)
        shipped = self.own_teachers(self.folder) / teacher_file(teacher)
        return shipped if shipped.is_file() and not users_file.is_file() else users_file

    def own_teachers(self, root: Path) -> Path:
        """The folder in the data folder `root` where the teachers of this suite, and of all its variants, are."""
        return root / "teachers" / self.name.partition(VARIANT)[0]

    def reduced(self, epochs: int | None = None, limit: int | None = None, test_limit: int | None = None) -> "Suite":
        """The suite with other epochs or fewer images, under a protocol of its own, so that results are never mixed up.

        Warm-up and milestones keep their share of the epochs.
        """
        given = {"epochs": epochs, "limit": limit, "test_limit": test_limit}
        changed = {name: value for name, value in given.items() if value is not None}
        if not changed:
            return self
        data = self.data.model_copy(update={name: value for name, value in changed.items() if name != "epochs"})
        recipes = {name: recipe.shortened(epochs) if epochs else recipe for name, recipe in self.recipes.items()}
        label = ",".join(f"{name}={value}" for name, value in changed.items())
        update = {"protocol": f"{self.protocol}+{label}", "data": data, "recipes": recipes}
        return self.model_copy(update=update)

    def select_pairs(self, request: str) -> list[PairSpec]:
        """The pairs of a request such as `hetero`, `homo`, `all`, `vit-t:resnet-s,swin-t:mixer-s`.

        Raises:
            KdbenchError: no such pair in this suite.
        """
        chosen: dict[str, PairSpec] = {}
        by_name = {pair.name: pair for pair in self.pairs}
        groups = {
            "all": self.pairs,
            "hetero": [pair for pair in self.pairs if self.is_hetero(pair)],
            "homo": [pair for pair in self.pairs if not self.is_hetero(pair)],
        }
        for word in split_request(request):
            if word in groups:
                chosen |= {pair.name: pair for pair in groups[word]}
            elif word in by_name:
                chosen[word] = by_name[word]
            else:
                raise unknown_name(f"pair of suite {self.name}", word, [*groups, *by_name])
        if not chosen:
            raise KdbenchError(
                "no pair named; try --pairs hetero"
                if self.pairs
                else f"suite {self.name} has no pairs; name some, as in --pairs TEACHER:STUDENT"
            )
        return list(chosen.values())

    @cached_property
    def problem(self) -> str | None:
        """What is wrong with it that no value alone shows, None where all is well."""
        if len(self.data.mean) != len(self.data.std):
            return f"data.mean has {len(self.data.mean)} channels, data.std {len(self.data.std)}"
        names = self.pair_names
        if len(set(names)) < len(names):
            return f"pair {max(names, key=names.count)} is there twice"
        for name, model in self.models.items():
            if model.recipe not in self.recipes:
                return f"model {name} names the recipe '{model.recipe}', which is not under [recipes]"
        for pair in self.pairs:
            for end in (pair.teacher, pair.student):
                if end not in self.models:
                    return f"pair {pair.name} names the model '{end}', which is not under [models]"
        return None


def teacher_file(name: str) -> str:
    """Name of the file of a teacher's weights; the overrides in a model's name may hold what a path cannot."""
    return f"{slug(name)}.safetensors"
