"""Teachers: their weights at the start of a training and on disk, and loading trained ones frozen."""

import hashlib
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
from kdbench.values import Line, Number, Percent, Sha256, misfit
from kdbench.weights.files import load_weights, read_metadata, weights_sha256
from kdbench.weights.foreign import fit, read_checkpoint


class TeacherMetadata(TypedDict):
    """What is read of a teacher file's metadata; there is more."""

    sha256: Sha256
    top1: Percent
    normalisation: NotRequired[Annotated[list[list[Number]], Field(min_length=2, max_length=2)]]
    """Mean and standard deviation by channel."""
    imported_from: NotRequired[dict[str, Line]]
    started_from: NotRequired[dict[str, Line]]
    trained_on: NotRequired[Line]


def normalisation_of(suite: Suite) -> Normalisation:
    """What the images of a suite are normalised with, for every model that brings no normalisation of its own."""
    return suite.data.mean, suite.data.std


def timm_normalisation(suite: Suite, name: str) -> Normalisation:
    """What timm's pretrained weights of a model expect, where the images of the suite have as many channels."""
    weights = timm.get_pretrained_cfg(suite.models[name].timm)
    if weights is None or len(weights.mean) != len(suite.data.mean):
        return normalisation_of(suite)
    return tuple(weights.mean), tuple(weights.std)


def new_model(suite: Suite, name: str, num_classes: int, compute: Compute) -> StagedModel:
    """A fresh staged model of a suite, on the device (weights from the global random stream)."""
    model = create_model(suite.models[name], num_classes, len(suite.data.mean), suite.data.image_size)
    return stage_model(suite, name, model, normalisation_of(suite), compute)


def stage_model(
    suite: Suite, name: str, model: nn.Module, normalisation: Normalisation, compute: Compute
) -> StagedModel:
    """The staged form of a timm model of a suite, on the device."""
    data = suite.data
    # Convolutional networks run faster with channels last, on CPUs too; token networks do not care.
    memory_format = torch.channels_last if suite.models[name].kind == "cnn" else torch.contiguous_format
    model = model.to(compute.device, memory_format=memory_format)  # type: ignore[call-overload]
    return StagedModel(model, (len(data.mean), data.image_size, data.image_size), normalisation)


def pretrained_model(
    suite: Suite, name: str, num_classes: int, source: Path | None = None, as_they_are: bool = False
) -> tuple[nn.Module, dict[str, str]]:
    """A timm model of a suite on the host, with pretrained weights: timm's own, or those of the file `source`.

    A classifier for another number of classes stays behind; the model's is fresh then (global random stream).

    Args:
        as_they_are: the classifier must come along.

    Returns:
        The model, and for its metadata where the weights are from.

    Raises:
        KdbenchError: the weights cannot be had, do not fit or are for other classes.
    """
    spec, channels, size = suite.models[name], len(suite.data.mean), suite.data.image_size
    if source is None:
        weights = _timm_weights(spec)
        _check_classes(f"timm's {spec.timm}", weights.num_classes, suite, name, num_classes, as_they_are)
        arguments = create_arguments(spec, num_classes, channels, size)
        return _timm_pretrained(spec, weights, arguments), {"timm": str(weights.hf_hub_id or weights.url)}
    model = create_model(spec, num_classes, channels, size)
    fitted = fit(read_checkpoint(source), model, headless=not as_they_are)
    _check_classes(str(source), fitted.num_classes, suite, name, num_classes, as_they_are)
    fresh = model.state_dict()
    model.load_state_dict({n: t for n, t in fitted.state.items() if t.shape == fresh[n].shape}, strict=False)
    return model, {"file": source.name, "sha256": file_sha256(source), "matched": fitted.matched}


def file_sha256(path: Path) -> str:
    """The hash of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_classes(what: str, theirs: int | None, suite: Suite, name: str, num_classes: int, as_they_are: bool) -> None:
    if as_they_are and theirs != num_classes:
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


def load_teacher(
    suite: Suite, name: str, num_classes: int, compute: Compute, root: Path
) -> tuple[StagedModel, TeacherRecord]:
    """The trained teacher, frozen and in eval mode, with what the records say of it.

    Its input is normalised as its file tells; where that is silent, as the suite's images are.

    Raises:
        KdbenchError: no weights, weights of another model, or weights that are not those their metadata tells of.
    """
    path = stored_teacher(suite, name, root)
    metadata = teacher_metadata(path)
    spec = suite.models[name]
    with torch.random.fork_rng(devices=[]):
        model = create_model(spec, num_classes, len(suite.data.mean), suite.data.image_size)
    load_weights(path, model)
    mean, std = metadata.get("normalisation", normalisation_of(suite))
    teacher = stage_model(suite, name, model, (tuple(mean), tuple(std)), compute)
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
