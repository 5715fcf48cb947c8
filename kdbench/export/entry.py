"""The students that timm alone cannot build, under a name that it knows once this module is imported."""

from typing import Any

import timm
from timm.models import model_entrypoint, register_model
from torch import nn

from kdbench.models.create import create_timm


def is_plain(name: str, arguments: dict[str, Any]) -> bool:
    """Whether `timm.create_model(name, **arguments)` works without kdbench.

    It does not for kdbench's own networks, and where timm's entry point refuses an override of what it fixes.
    """
    if not model_entrypoint(name).__module__.startswith("timm."):
        return False
    try:
        timm.create_model(name, **arguments)
    except (TypeError, KeyError):
        return False
    return True


@register_model
def kdbench(pretrained: bool = False, *, name: str, **arguments: Any) -> nn.Module:
    """What the config.json of such a student names as its architecture."""
    return create_timm(name, arguments, pretrained)
