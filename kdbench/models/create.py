"""Building models from specs: timm's, and those of any function."""

import inspect
import sys
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import timm
from timm.models import get_pretrained_cfg_value, list_models, model_entrypoint
from torch import nn

import kdbench.models.cifar  # noqa: F401  (registers its networks with timm)
from kdbench.errors import KdbenchError, unknown_name
from kdbench.models.adapter import Adapted
from kdbench.models.spec import ModelSpec
from kdbench.targets import is_target, module_of, short

USUAL_SIZE = 224
"""Side in pixels where none is given."""


def create_model(spec: ModelSpec, num_classes: int, in_chans: int, image_size: int | None) -> nn.Module:
    """A freshly initialised model with stages (weights from the global random stream).

    Args:
        image_size: side in pixels; handed on where the architecture is built for one size. None for the size that timm
            gives it.

    Raises:
        KdbenchError: there is no such model, it refuses an override, or is no network that kdbench can see into.
    """
    network = create_network(spec, num_classes, in_chans, image_size)
    if not is_target(spec.timm) or hasattr(network, "forward_intermediates"):
        if spec.stages:
            raise KdbenchError(f"{spec.timm} tells its stages itself; leave `stages` out")
        return network
    arguments = create_arguments(spec, num_classes, in_chans, image_size)
    side = arguments.get("image_size") or arguments.get("img_size") or image_size or USUAL_SIZE
    return Adapted(network, (in_chans, side, side), spec.stages)


def create_network(spec: ModelSpec, num_classes: int, in_chans: int, image_size: int | None) -> nn.Module:
    """The network as timm or a function makes it, not looked at; arguments and errors as for `create_model`."""
    try:
        arguments = create_arguments(spec, num_classes, in_chans, image_size)
        return _function(spec.timm)(**arguments) if is_target(spec.timm) else create_timm(spec.timm, arguments)
    except (TypeError, KeyError, AssertionError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise KdbenchError(f"cannot build {spec.timm} with {spec.kwargs}: {reason}") from error


def create_arguments(spec: ModelSpec, num_classes: int, in_chans: int, image_size: int | None) -> dict[str, Any]:
    """What `timm.create_model`, or the function that a spec names, gets.

    Raises:
        KdbenchError: timm does not know the name, or the function cannot be imported.
    """
    if is_target(spec.timm):
        side = image_size or USUAL_SIZE
        candidates = {"num_classes": num_classes, "in_chans": in_chans, "img_size": side, "image_size": side}
        accepted = inspect.signature(_function(spec.timm)).parameters
        # torchvision's builders take the number of classes among their keywords.
        return {name: value for name, value in candidates.items() if name in {"num_classes", *accepted}} | spec.kwargs
    if not timm.is_model(spec.timm):
        raise unknown_name("timm model", spec.timm, list_models())
    arguments: dict[str, Any] = {"num_classes": num_classes, "in_chans": in_chans}
    if image_size is not None and get_pretrained_cfg_value(spec.timm, "fixed_input_size"):
        arguments["img_size"] = image_size
    return arguments | spec.kwargs


def _function(target: str) -> Callable[..., nn.Module]:
    try:
        return getattr(module_of(target), target.partition(":")[2])
    except Exception as error:
        raise KdbenchError(f"model {target} cannot be imported: {short(error)}") from error


def create_timm(name: str, arguments: dict[str, Any], pretrained: bool = False) -> nn.Module:
    """`timm.create_model`, also for entry points that fix what we override.

    Some entry points spell `dict(depth=12, **kwargs)`, which raises when `depth` is overridden; for those the
    overrides are merged one call further down, where the model class gets its arguments.
    """
    try:
        return timm.create_model(name, pretrained, **arguments)
    except (TypeError, KeyError) as error:
        # Python reports the doubled keyword as a KeyError while another exception is being handled.
        if "multiple values for keyword" not in str(error) and error.args[:1] not in [(name,) for name in arguments]:
            raise
    module = sys.modules[model_entrypoint(name).__module__]
    build = module.build_model_with_cfg  # type: ignore[attr-defined]

    def merged(*args: Any, **kwargs: Any) -> nn.Module:
        return build(*args, **{**kwargs, **arguments})

    with patch.object(module, "build_model_with_cfg", merged):
        return timm.create_model(name, pretrained)
