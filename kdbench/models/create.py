"""Building timm models from specs."""

import sys
from typing import Any
from unittest.mock import patch

import timm
from timm.models import get_pretrained_cfg_value, list_models, model_entrypoint
from torch import nn

import kdbench.models.cifar  # noqa: F401  (registers its networks with timm)
from kdbench.errors import KdbenchError, unknown_name
from kdbench.models.spec import ModelSpec


def create_model(spec: ModelSpec, num_classes: int, in_chans: int, image_size: int | None) -> nn.Module:
    """A freshly initialised timm model (weights from the global random stream).

    Args:
        image_size: side in pixels; handed on where the architecture is built for one size. None for the size that timm
            gives it.

    Raises:
        KdbenchError: timm does not know the name, or refuses an override.
    """
    try:
        return _create(spec.timm, create_arguments(spec, num_classes, in_chans, image_size))
    except (TypeError, KeyError, AssertionError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise KdbenchError(f"timm cannot build {spec.timm} with {spec.kwargs}: {reason}") from error


def create_arguments(spec: ModelSpec, num_classes: int, in_chans: int, image_size: int | None) -> dict[str, Any]:
    """What `timm.create_model` gets beside the name.

    Raises:
        KdbenchError: timm does not know the name.
    """
    if not timm.is_model(spec.timm):
        raise unknown_name("timm model", spec.timm, list_models())
    arguments: dict[str, Any] = {"num_classes": num_classes, "in_chans": in_chans}
    if image_size is not None and get_pretrained_cfg_value(spec.timm, "fixed_input_size"):
        arguments["img_size"] = image_size
    return arguments | spec.kwargs


def _create(name: str, arguments: dict[str, Any]) -> nn.Module:
    """`timm.create_model`, also for entry points that fix what we override.

    Some entry points spell `dict(depth=12, **kwargs)`, which raises when `depth` is overridden; for those the
    overrides are merged one call further down, where the model class gets its arguments.
    """
    try:
        return timm.create_model(name, **arguments)
    except (TypeError, KeyError) as error:
        # Python reports the doubled keyword as a KeyError while another exception is being handled.
        if "multiple values for keyword" not in str(error) and error.args[:1] not in [(name,) for name in arguments]:
            raise
    module = sys.modules[model_entrypoint(name).__module__]
    build = module.build_model_with_cfg  # type: ignore[attr-defined]

    def merged(*args: Any, **kwargs: Any) -> nn.Module:
        return build(*args, **{**kwargs, **arguments})

    with patch.object(module, "build_model_with_cfg", merged):
        return timm.create_model(name)
