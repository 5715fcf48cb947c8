"""The contract of a KD method: one class, one file. This is the page a plug-in writer reads.

    from kdbench.method import Batch, Method, Outputs
    from torch import Tensor
    from torch.nn import functional as F


    class Mine(Method):
        \"\"\"What it transfers, in one line.

        Attributes:
            weight: weight of the term (paper, table 3).
        \"\"\"

        weight: float = 1.0

        def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
            return {
                "ce": batch.cross_entropy(student.logits),
                "mine": self.weight * F.mse_loss(student.logits, teacher.logits),
            }

Annotated class attributes are the hyperparameters: they are typed, have a default, and can be set by a suite's preset
or with `--set mine.weight=2`. What a method says of itself has no annotation: `kind = "logit"`, `paper = "arXiv ..."`,
`presets = {"crd": {"weight": 2.0}}`. The sum of the returned terms is what the student is trained on.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from kdbench.compute.distributed import gather
from kdbench.data.batch import Batch
from kdbench.errors import UnsupportedPair
from kdbench.hyperparameters import Choice, LogUniform, SearchSpace, Uniform
from kdbench.models.features import Feature, Layout, Needs, Outputs, StageInfo
from kdbench.models.parameters import count_parameters
from kdbench.models.resume.tails import Segment, Tail
from kdbench.models.staged import StagedModel
from kdbench.results.schema import Role

Kind = Literal["logit", "feature", "relation", "contrastive", "other"]
"""What a method transfers: outputs, features one by one, how images or classes relate, which image is which."""

__all__ = [
    "Batch",
    "Choice",
    "Feature",
    "Kind",
    "Layout",
    "LogUniform",
    "Method",
    "Needs",
    "Outputs",
    "Pair",
    "Role",
    "SearchSpace",
    "Segment",
    "StageInfo",
    "StagedModel",
    "Tail",
    "Task",
    "Uniform",
    "UnsupportedPair",
    "count_parameters",
    "gather",
]


@dataclass(frozen=True)
class Task:
    """What is learned.

    Attributes:
        num_classes: width of the logits.
        image_shape: (channels, side, side).
        labels: (N,) int64 of the training images, in the order that `Batch.index` counts in.
        epochs: of the training.
    """

    num_classes: int
    image_shape: tuple[int, int, int]
    labels: Tensor
    epochs: int


@dataclass(frozen=True)
class Pair:
    """What a method is built from: the two staged models, with their shapes known, and the task.

    Both are to be looked at, and run, not to be changed: the optimizer alone changes the student, nothing the teacher.
    It is no module on purpose: a method that keeps it as `self.pair` does not thereby own the models' parameters.
    """

    teacher: StagedModel
    student: StagedModel
    task: Task


class Method(nn.Module):
    """A KD method. Its own parameters are its projectors: trained with the student, dropped at inference.

    An interrupted training goes on from a checkpoint: what a method keeps from batch to batch is in its state dict, as
    buffers or by torch's `get_extra_state` and `set_extra_state` (tensors and containers of them: no pickle is read),
    whose tensors come back on the device of the training.

    Attributes:
        aliases: further names it is known by.
        published: what the tables of published numbers (`kdbench published`) call it.
        kind: what it transfers.
        paper, venue: where it was published, such as "arXiv 1503.02531" and "CVPR 2022".
        role: leave it; `control` and `baseline` are the two methods every other is compared with.
        presets: hyperparameters by protocol; a suite names the protocol whose values apply to all its methods.
        search_space: what `kdbench tune` draws hyperparameters from, by name; it is the same for every pair.
        differs: what it does that the closed division fixes (docs/rules.md), such as "starts the student from the
            teacher's weights"; a method that says so is in the open division, in a table of its own.
        starved: trainable parameters (by prefix) that the loss does not reach, with the reason; may be set in `build`.
        student_needs: what it needs of the student besides the logits. Set it in `build` where it depends on options.
        teacher_needs: the same for the teacher; None when it uses no teacher at all.
        second_view: whether it compares two views of each image: outputs carry those of the other one in `second`.
        inference_needs: what `predict` needs of the student, for a method that overrides it; such a method is in the
            open division.
        inference_parameters: what `predict` adds to the parameters of the student.
        pair: the models and the task it was built for.
    """

    aliases: ClassVar[tuple[str, ...]] = ()
    published: ClassVar[tuple[str, ...]] = ()
    kind: ClassVar[Kind] = "other"
    paper: ClassVar[str] = ""
    venue: ClassVar[str] = ""
    role: ClassVar[Role] = "method"
    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    search_space: ClassVar[SearchSpace] = {}
    differs: ClassVar[str] = ""

    starved: Mapping[str, str] = MappingProxyType({})
    student_needs = Needs()
    teacher_needs: Needs | None = Needs()
    second_view: bool = False
    inference_needs: Needs | None = None
    inference_parameters: int = 0

    def __init__(self, pair: Pair, hyperparameters: dict[str, Any]) -> None:
        """Built by the harness, which has validated `hyperparameters`; a method overrides `build`."""
        super().__init__()
        self.pair = pair
        for name, value in hyperparameters.items():
            setattr(self, name, value)
        self.build(pair)

    def build(self, pair: Pair) -> None:
        """Create the projectors from the shapes of `pair`. A method without projectors has nothing to do.

        Raises:
            UnsupportedPair: the method cannot work on this pair; the message says why.
        """

    def no_weight_decay(self) -> set[str]:
        """Names of own parameters that weight decay must not touch, besides biases and norms."""
        return set()

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        """The named loss terms of one batch, each a scalar; the hard-label loss is one of them.

        Args:
            student: logits and what `student_needs` asks for, with gradients.
            teacher: logits and what `teacher_needs` asks for, without; None where `teacher_needs` is None.
            batch: labels, targets, sample indices and the progress of the training.

        What it is given is shared with other methods: none of it may be changed in place, but the student's outputs.
        """
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def predict(self, student: Outputs) -> Tensor:
        """The logits (B, classes) that count at evaluation; usually the student's own, which this is not asked for.

        Args:
            student: logits and what `inference_needs` asks for, in eval mode.
        """
        return student.logits
