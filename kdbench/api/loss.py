"""The loss of a method, for a training loop of one's own."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from kdbench.data.batch import Batch
from kdbench.errors import KdbenchError
from kdbench.hyperparameters import validate
from kdbench.method import Method, Pair, Task
from kdbench.models.adapter import Adapted
from kdbench.models.features import Needs, Outputs
from kdbench.models.staged import StagedModel
from kdbench.registry import Registry

_TO_PASS = {
    "num_classes": "num_classes, the width of the logits",
    "image_shape": "image_shape, the channels, height and width of an image",
    "labels": "labels, those of all training images in the order that index counts in",
    "epochs": "epochs, how many the training has",
    "index": "index, the position of each image in the training set",
    "epoch": "epoch, how many epochs are finished",
    "progress": "progress, the share of the training that is done, in [0, 1)",
}


class DistillationLoss(nn.Module):
    """The loss of a method on a pair of networks. Its parameters are the method's projectors; train them too.

    With the two networks, a step is:

        student, teacher = criterion.outputs(images)
        terms = criterion(student, teacher, labels)
        sum(terms.values()).backward()

    Attributes:
        method: the method.
    """

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def forward(
        self,
        student: Outputs | Tensor,
        teacher: Outputs | Tensor | None,
        labels: Tensor,
        *,
        targets: Tensor | None = None,
        smoothing: float = 0.0,
        index: Tensor | None = None,
        epoch: int | None = None,
        progress: float | None = None,
    ) -> dict[str, Tensor]:
        """The named terms of the loss of one batch, each a scalar; the loss is their sum.

        Args:
            student: what the student puts out: its logits (B, classes), or what `outputs` returns.
            teacher: the same of the teacher; not used by a method that needs no teacher.
            labels: (B,) int64 hard labels.
            targets: (B, classes) soft targets where images are mixed.
            smoothing: label smoothing of the hard-label loss, which `targets` have in them already.
            index: (B,) int64 positions of the images in the training set.
            epoch: how many epochs are finished.
            progress: the share of the training that is done, in [0, 1).

        Raises:
            KdbenchError: the method needs one of these arguments, and it is not given.
        """
        batch = _GivenBatch(labels, targets, smoothing, index, epoch, progress)  # type: ignore[arg-type]
        needed = None if self.method.teacher_needs is None or teacher is None else _as_outputs(teacher)
        return self.method(_as_outputs(student), needed, batch)

    def outputs(
        self,
        images: Tensor,
        teacher_images: Tensor | None = None,
        *,
        second: Tensor | None = None,
        teacher_second: Tensor | None = None,
    ) -> tuple[Outputs, Outputs | None]:
        """What the student and the teacher put out for a batch of images, with the features that the method needs.

        The teacher runs without gradients, and not at all for a method that needs no teacher.

        Args:
            images: (B, C, H, W), normalised as the student takes them.
            teacher_images: the same images normalised as the teacher takes them, where that is different.
            second: another view of the images, for a method with `second_view`.
            teacher_second: that view as the teacher takes it, where that is different.

        Raises:
            KdbenchError: the method needs a second view of the images.
        """
        method, pair = self.method, self.method.pair
        if method.second_view and second is None:
            raise KdbenchError("this method compares two views of each image: pass second")
        views = [images, second] if method.second_view else [images]
        student = _of_views(pair.student, views, method.student_needs)
        if method.teacher_needs is None:
            return student, None
        own = [
            images if teacher_images is None else teacher_images,
            second if teacher_second is None else teacher_second,
        ]
        with torch.no_grad():
            return student, _of_views(pair.teacher, own[: len(views)], method.teacher_needs)


def loss(
    method: str,
    *,
    teacher: nn.Module | None = None,
    student: nn.Module | None = None,
    image_shape: tuple[int, int, int] | None = None,
    num_classes: int | None = None,
    labels: Tensor | None = None,
    epochs: int | None = None,
    preset: str = "",
    **hyperparameters: Any,
) -> DistillationLoss:
    """The loss of a method, for a training loop of one's own.

        criterion = kdbench.loss("dist")                          # logits alone
        criterion = kdbench.loss("ofa", teacher=teacher, student=student, image_shape=(3, 224, 224))

    The loss is on the student's device. The teacher is frozen and put into eval mode.

    Args:
        method: the name of a method, a file or a dotted name.
        teacher, student: the networks, timm's or others that kdbench can find stages in; a method that looks at logits
            alone needs neither.
        image_shape: (channels, height, width) of the images that the networks take.
        num_classes: width of the logits; by default that of the student.
        labels: (N,) int64 labels of all training images, for methods that keep something for each image or class.
        epochs: how many the training has, for methods that go by it.
        preset: the protocol whose hyperparameters are taken, such as "cifar100"; by default the method's own.
        hyperparameters: by name, where they are not those.

    Raises:
        KdbenchError: there is no such method, hyperparameter or preset, or the method needs an argument that is not
            given.
        UnsupportedPair: the method cannot work on these networks; the message says why.
    """
    (plugin,) = Registry.installed().select(method)
    presets = plugin.method.presets
    if preset and preset not in presets:
        raise KdbenchError(f"{plugin.name} has no preset {preset!r}; it has {', '.join(presets) or 'none'}")
    values = validate(plugin.name, plugin.hyperparameters, presets.get(preset, {}), hyperparameters)
    pair = _staged("teacher", teacher, image_shape), _staged("student", student, image_shape)
    pair[0].requires_grad_(False).eval()
    classes = num_classes if student is None else pair[1].num_classes
    task = _GivenTask(classes, image_shape, labels, epochs)  # type: ignore[arg-type]
    built = plugin.method(Pair(*pair, task), values)
    device = next((p.device for p in pair[1].parameters()), torch.device("cpu"))
    return DistillationLoss(built.to(device, memory_format=torch.channels_last))  # type: ignore[call-overload]


class _Given:
    """A part of the arguments of a method; reading one that is not there says how to pass it."""

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if value is None and name in _TO_PASS:
            raise KdbenchError(f"this method needs a value that was not given: pass {_TO_PASS[name]}")
        return value


class _GivenBatch(_Given, Batch):
    """A batch of which the user may have given a part."""


class _GivenTask(_Given, Task):
    """A task of which the user may have given a part."""


class _NoNetwork(nn.Module):
    """In the place of a network for a method that looks at logits alone."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def __getattr__(self, name: str) -> Any:
        if name in ("stages", "pooled_width", "model", "num_classes") or hasattr(StagedModel, name):
            raise KdbenchError(f"this method looks at more than logits: pass {self.__dict__['_name']}, the network")
        return super().__getattr__(name)


def _staged(name: str, network: nn.Module | None, image_shape: tuple[int, int, int] | None) -> StagedModel:
    """The network with its stages.

    Raises:
        KdbenchError: it cannot be seen into, or the shape of its images is not given.
    """
    if network is None:
        return cast(StagedModel, _NoNetwork(name))
    if isinstance(network, StagedModel):
        return network
    if image_shape is None:
        raise KdbenchError(f"the stages of {name} are found by running it once: pass {_TO_PASS['image_shape']}")
    seen = network if hasattr(network, "forward_intermediates") else Adapted(network, image_shape)
    channels = image_shape[0]
    # Images come normalised, so what a network expects is not asked for.
    return StagedModel(seen, image_shape, ((0.0,) * channels, (1.0,) * channels))


def _as_outputs(given: Outputs | Tensor) -> Outputs:
    return given if isinstance(given, Outputs) else Outputs(given)


def _of_views(model: StagedModel, views: Sequence[Tensor | None], needs: Needs) -> Outputs:
    first, *others = (model(images, needs) for images in views if images is not None)
    return first.with_second(others[0]) if others else first
