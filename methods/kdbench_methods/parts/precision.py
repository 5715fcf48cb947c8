"""For losses that half precision is too coarse for."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")


def full_precision(function: Callable[..., Result]) -> Callable[..., Result]:
    """The same function without autocast: what it is given in half precision is computed on in single precision.

    Its tensors are positional arguments; integers and double precision stay as they are.
    """

    def raised(value: Any) -> Any:
        if isinstance(value, Tensor) and value.is_floating_point():
            return value.to(torch.promote_types(value.dtype, torch.float32))
        return value

    @wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Result:
        device = next(value.device for value in args if isinstance(value, Tensor))
        with torch.autocast(device.type, enabled=False):
            return function(*map(raised, args), **kwargs)

    return wrapped
