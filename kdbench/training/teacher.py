"""Trained teachers: where they lie, loading them frozen, training them."""

import json
from pathlib import Path
from typing import Any

import safetensors
import torch

from kdbench.data.normalise import Normalisation
from kdbench.errors import KdbenchError
from kdbench.models.create import create_model
from kdbench.models.staged import StagedModel
from kdbench.records import TeacherRecord
from kdbench.suites.schema import Suite
from kdbench.training.device import Compute
from kdbench.training.weights import load_weights, weights_sha256


def normalisation_of(suite: Suite) -> Normalisation:
    """What models trained by kdbench on a suite's data are normalised with."""
    return suite.data.mean, suite.data.std


def new_model(suite: Suite, name: str, num_classes: int, compute: Compute) -> StagedModel:
    """A fresh staged model of a suite, on the device (weights from the global random stream)."""
    data = suite.data
    channels = len(data.mean)
    spec = suite.models[name]
    model = create_model(spec, num_classes, channels, data.image_size)
    # Convolutional networks run faster with channels last, on CPUs too; token networks do not care.
    memory_format = torch.channels_last if spec.kind == "cnn" else torch.contiguous_format
    model = model.to(compute.device, memory_format=memory_format)  # type: ignore[call-overload]
    return StagedModel(model, (channels, data.image_size, data.image_size), normalisation_of(suite))


def teacher_metadata(path: Path) -> dict[str, Any]:
    """The metadata of a teacher file, without its weights.

    Raises:
        KdbenchError: the teacher is not there or was not written by kdbench.
    """
    name = path.stem
    if not path.is_file():
        raise KdbenchError(f"teacher {name} has no weights at {path}; run `kdbench teachers train` first")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = {name: json.loads(text) for name, text in (file.metadata() or {}).items()}
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise KdbenchError(f"{path} is not a whole safetensors file: {error}") from error
    if not {"sha256", "top1"} <= set(metadata):
        raise KdbenchError(f"{path} was not written by `kdbench teachers train`: it tells no accuracy")
    return metadata


def load_teacher(
    suite: Suite, name: str, num_classes: int, compute: Compute, root: Path
) -> tuple[StagedModel, TeacherRecord]:
    """The trained teacher, frozen and in eval mode, with what the records say of it.

    Raises:
        KdbenchError: no weights, weights of another model, or weights that are not those their metadata tells of.
    """
    path = suite.teacher_path(name, root)
    metadata = teacher_metadata(path)
    with torch.random.fork_rng(devices=[]):
        teacher = new_model(suite, name, num_classes, compute)
    load_weights(path, teacher.model)
    sha256 = weights_sha256(teacher.model)
    if sha256 != metadata["sha256"]:
        raise KdbenchError(f"{path}: its weights are not those it was written with; fetch or train the teacher again")
    teacher.requires_grad_(False)
    teacher.eval()
    spec = suite.models[name]
    record = TeacherRecord(
        name=name,
        timm=spec.timm,
        kind=spec.kind,
        parameters=sum(p.numel() for p in teacher.parameters()),
        sha256=sha256,
        top1=metadata["top1"],
    )
    return teacher, record
