"""Teachers: their weights at the start of a training and on disk, and loading trained ones frozen."""

import json
import logging
import shlex
from pathlib import Path
from typing import Annotated, Any, NotRequired

import timm
import torch
from pydantic import Field
from timm.models import PretrainedCfg
from torch import nn
from typing_extensions import TypedDict

from kdbench.compute.device import Compute
from kdbench.errors import KdbenchError
from kdbench.models.create import create_arguments, create_model
from kdbench.models.features import Normalisation
from kdbench.models.parameters import count_parameters
from kdbench.models.spec import ModelSpec
from kdbench.models.staged import StagedModel
from kdbench.results.schema import TeacherRecord
from kdbench.suites.anymodel import request_of
from kdbench.suites.schema import Suite
from kdbench.targets import is_target
from kdbench.values import Line, Number, Percent, Sha256, misfit
from kdbench.weights.files import load_weights, read_metadata, weights_sha256
from kdbench.weights.foreign import Fitted, Which, checkpoint_sha256, fit, read_checkpoint


class TeacherMetadata(TypedDict):
    """What is read of a teacher file's metadata; there is more."""

    sha256: Sha256
    top1: Percent
    normalisation: NotRequired[Annotated[list[list[Number]], Field(min_length=2, max_length=2)]]
    """Mean and standard deviation by channel."""
    imported_from: NotRequired[dict[str, Line]]
    started_from: NotRequired[dict[str, Line]]
    trained_on: NotRequired[Line]
    teacher: NotRequired[Line]
    """What the suite calls it."""
    model: NotRequired[dict[str, Any]]
    """The model's `ModelSpec.identity`."""
    measured_on: NotRequired[dict[str, Any]]
    """What the accuracy depends on besides the network."""


Origin = dict[str, str]
"""Where weights are from: a file, its hash and how it was matched, or their name in timm."""


def normalisation_of(suite: Suite) -> Normalisation:
    """What the images of a suite are normalised with, for every model that brings no normalisation of its own."""
    return suite.data.mean, suite.data.std


def timm_normalisation(suite: Suite, name: str) -> Normalisation | None:
    """What timm's pretrained weights of a model expect; None where timm does not know the model."""
    spec = suite.models[name]
    found = None if is_target(spec.timm) else timm.get_pretrained_cfg(spec.timm)
    return None if found is None else (tuple(found.mean), tuple(found.std))


def pretrained_normalisation(suite: Suite, name: str) -> Normalisation:
    """What timm's pretrained weights of a model expect, or the suite's where its images have other channels."""
    found = timm_normalisation(suite, name)
    return normalisation_of(suite) if found is None or len(found[0]) != len(suite.data.mean) else found


def new_model(suite: Suite, name: str, num_classes: int, compute: Compute) -> StagedModel:
    """A fresh staged model of a suite, on the device (weights from the global random stream)."""
    model = create_model(suite.models[name], num_classes, len(suite.data.mean), suite.data.image_size)
    return stage_model(suite, name, model, normalisation_of(suite), compute, num_classes=num_classes)


def stage_model(
    suite: Suite, name: str, model: nn.Module, normalisation: Normalisation, compute: Compute, *, num_classes: int
) -> StagedModel:
    """The staged form of a model of a suite, on the device.

    Raises:
        KdbenchError: as for `StagedModel`, or it does not answer with a logit for each class.
    """
    data = suite.data
    # Convolutional networks run faster with channels last, on CPUs too; token networks do not care.
    memory_format = torch.channels_last if suite.models[name].kind == "cnn" else torch.contiguous_format
    model = model.to(compute.device, memory_format=memory_format)  # type: ignore[call-overload]
    wrapped = StagedModel(model, (len(data.mean), data.image_size, data.image_size), normalisation)
    if wrapped.num_classes != num_classes:
        raise KdbenchError(
            f"{name} answers with {wrapped.num_classes} logits, the data have {num_classes} classes; its function "
            "is called with `num_classes`, and its last linear layer should have as many outputs"
        )
    return wrapped


def pretrained_model(
    suite: Suite, name: str, num_classes: int, source: Path | None = None, which: Which | None = None
) -> tuple[nn.Module, Origin]:
    """A model of a suite on the host, to be fine-tuned: with timm's pretrained weights, or those of the file `source`.

    A classifier for another number of classes stays behind; the model's is fresh then (global random stream).

    Args:
        which: the weights to take of a file that holds averaged ones beside the trained ones.

    Returns:
        The model, and for its metadata where the weights are from.

    Raises:
        KdbenchError: the weights cannot be had or do not fit, or the file holds several and none is chosen.
    """
    if source is None:
        return timm_model(suite, name, num_classes)
    model = _built(suite, name, num_classes)
    several = fit(read_checkpoint(source), model, headless=True, which=which)
    if len(several) > 1:
        raise KdbenchError(
            f"{source} holds several sets of weights ({', '.join(found.name for found in several)}); choose with "
            "--weights ema or --weights plain, or save one of them alone"
        )
    return with_weights(model, several[0]), origin_of(source, several[0])


def timm_model(suite: Suite, name: str, num_classes: int, as_they_are: bool = False) -> tuple[nn.Module, Origin]:
    """A model of a suite with timm's pretrained weights of it; result and errors as for `pretrained_model`.

    Args:
        as_they_are: the classifier must come along.
    """
    spec = suite.models[name]
    found = _timm_weights(spec)
    if as_they_are:
        _refuse_other_classes(f"timm's {spec.timm}", found.num_classes, suite, name, num_classes)
    arguments = create_arguments(spec, num_classes, len(suite.data.mean), suite.data.image_size)
    return _timm_pretrained(spec, found, arguments), {"timm": str(found.hf_hub_id or found.url)}


def trained_weights(suite: Suite, name: str, num_classes: int, source: Path, which: Which | None) -> list[Fitted]:
    """The sets of weights of a file that fit a model of a suite with its classifier.

    Raises:
        KdbenchError: none fits, or they are for other classes.
    """
    several = fit(read_checkpoint(source), _built(suite, name, num_classes), which=which)
    for found in several:
        _refuse_other_classes(str(source), found.num_classes, suite, name, num_classes)
    return several


def model_with(suite: Suite, name: str, num_classes: int, weights: Fitted) -> nn.Module:
    """A model of a suite on the host with weights that fit it."""
    return with_weights(_built(suite, name, num_classes), weights)


def with_weights(model: nn.Module, weights: Fitted) -> nn.Module:
    """`model` with the weights that have its shapes; a classifier for other classes is left out."""
    own = model.state_dict()
    model.load_state_dict({n: t for n, t in weights.state.items() if t.shape == own[n].shape}, strict=False)
    return model


def origin_of(source: Path, weights: Fitted) -> Origin:
    """For a teacher's metadata, where its weights are from."""
    where = {"weights": weights.where} if weights.where else {}
    return {"file": source.name, "sha256": checkpoint_sha256(source), "matched": weights.matched, **where}


def _built(suite: Suite, name: str, num_classes: int) -> nn.Module:
    return create_model(suite.models[name], num_classes, len(suite.data.mean), suite.data.image_size)


def _refuse_other_classes(what: str, theirs: int | None, suite: Suite, name: str, num_classes: int) -> None:
    if theirs != num_classes:
        raise KdbenchError(
            f"{what} has {theirs} classes, suite {suite.name} has {num_classes}; to fine-tune these weights run "
            f"`kdbench teachers train --suite {suite.name} --only {name} --from FILE`"
        )


def _timm_weights(spec: ModelSpec) -> PretrainedCfg:
    """Where timm's pretrained weights of a model are, and what they expect."""
    try:
        weights = timm.get_pretrained_cfg(spec.timm)
    except RuntimeError as error:
        raise KdbenchError(f"no weights {spec.timm} in timm: {error}") from error
    if weights is None or not weights.has_weights:
        raise KdbenchError(f"timm has no pretrained weights of {spec.timm}; name a tag that has some, or a local FILE")
    return weights


def _timm_pretrained(spec: ModelSpec, weights: PretrainedCfg, arguments: dict[str, Any]) -> nn.Module:
    """`timm.create_model(pretrained=True)`: weights from the cache, else from the network."""
    hub = logging.getLogger("huggingface_hub")
    level = hub.level
    hub.setLevel(logging.ERROR)  # It tells every attempt; one line at the end says it all.
    try:
        return timm.create_model(spec.timm, pretrained=True, **arguments)
    except Exception as error:  # Every way of fetching has exceptions of its own, its HTTP library's among them.
        reason = str(error).partition("\n")[0].rstrip(".") or type(error).__name__
        raise KdbenchError(
            f"cannot get timm's pretrained weights {weights.hf_hub_id or weights.url}: {reason}; give them as a local "
            "FILE (`teachers train --from FILE`, `teachers import NAME FILE`), or set HF_HOME to a cache that has them"
        ) from error
    finally:
        hub.setLevel(level)


def stored_teacher(suite: Suite, name: str, root: Path) -> Path:
    """The file of a suite's trained teacher.

    Raises:
        KdbenchError: it is not there.
    """
    path = suite.teacher_path(name, root)
    if not path.is_file():
        word = shlex.quote(request_of(suite, name))
        raise KdbenchError(
            f"teacher {name} is not at {path}; run `kdbench teachers train --suite {suite.name} --only {word}` "
            f"or `kdbench teachers import {word} FILE --suite {suite.name}`"
        )
    return path


def teacher_metadata(path: Path) -> dict[str, Any]:
    """The metadata of a teacher file, without its weights.

    Raises:
        KdbenchError: it is no whole file, or was not written by kdbench.
    """
    metadata = read_metadata(path)
    if not {"sha256", "top1"} <= set(metadata):
        raise KdbenchError(f"{path} was not written by `kdbench teachers`: it tells no accuracy; import it")
    if problem := misfit(TeacherMetadata, metadata):
        raise KdbenchError(f"{path} has broken metadata: {problem}; train or import the teacher again")
    return metadata


def current_metadata(suite: Suite, name: str, root: Path) -> dict[str, Any]:
    """The metadata of a suite's stored teacher, which is of the network that the suite means today.

    Raises:
        KdbenchError: it is not there, not whole, or was stored with other code or other arguments of its model.
    """
    path = stored_teacher(suite, name, root)
    metadata = teacher_metadata(path)
    if not is_of_model(metadata, suite.models[name]):
        word = shlex.quote(request_of(suite, name))
        raise KdbenchError(
            f"the model of teacher {name} is not what it was when {path} was stored with {metadata['top1']:.2f} %: its "
            f"code or its arguments have changed; run `kdbench teachers import {word} FILE --suite {suite.name}` or "
            f"`kdbench teachers train --only {word} --suite {suite.name}` again"
        )
    return metadata


def is_of_model(metadata: dict[str, Any], spec: ModelSpec) -> bool:
    """Whether a teacher's metadata are of this network; those that do not tell are taken for it."""
    return metadata.get("model") in (None, json.loads(json.dumps(spec.identity)))


def load_teacher(
    suite: Suite, name: str, num_classes: int, compute: Compute, root: Path
) -> tuple[StagedModel, TeacherRecord]:
    """The trained teacher, frozen and in eval mode, with what the records say of it.

    Its input is normalised as its file tells; where that is silent, as the suite's images are.

    Raises:
        KdbenchError: no weights, weights of another model, or weights that are not those their metadata tells of.
    """
    path = stored_teacher(suite, name, root)
    metadata = current_metadata(suite, name, root)
    spec = suite.models[name]
    with torch.random.fork_rng(devices=[]):
        model = _built(suite, name, num_classes)
    load_weights(path, model)
    mean, std = metadata.get("normalisation", normalisation_of(suite))
    teacher = stage_model(suite, name, model, (tuple(mean), tuple(std)), compute, num_classes=num_classes)
    sha256 = weights_sha256(teacher.model)
    if sha256 != metadata["sha256"]:
        raise KdbenchError(f"{path}: its weights are not those it was written with; train or import the teacher again")
    teacher.requires_grad_(False)
    teacher.eval()
    record = TeacherRecord(
        name=name,
        timm=spec.timm,
        kind=spec.kind,
        parameters=count_parameters(teacher),
        sha256=sha256,
        top1=metadata["top1"],
    )
    return teacher, record
