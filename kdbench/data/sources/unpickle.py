"""Reading a pickle of numpy arrays without running anything that the pickle names.

A pickle may call any function it can name. This reader knows five names, and all five stand for code of this file: not
even numpy's own functions are called, because `ndarray.__setstate__` believes what it is told about a buffer.
"""

import io
import pickle
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray


def loads(content: bytes) -> Any:
    """The plain Python content of a pickle, of Python 2 too, its integer arrays as `PickledArray`.

    Raises:
        pickle.UnpicklingError: it names anything but an array of integers.
        Exception: any other, where the pickle is damaged.
    """
    return _Unpickler(io.BytesIO(content), encoding="latin1").load()


class PickledArray:
    """An array as a pickle describes it."""

    def __init__(self, *_: object) -> None:
        # Made empty (`_reconstruct(ndarray, (0,), b"b")`), then given its state.
        self.array: NDArray[Any] = np.empty(0, np.uint8)

    def __setstate__(self, state: tuple[int, tuple[int, ...], "_Dtype", bool, bytes | str]) -> None:
        _, shape, dtype, fortran, content = state
        # A string of Python 2 comes as text, a character for each byte.
        raw = content.encode("latin1") if isinstance(content, str) else content
        self.array = np.frombuffer(raw, dtype.resolve()).reshape(shape, order="F" if fortran else "C")


class _Dtype:
    def __init__(self, code: str, *_: object) -> None:
        if not re.fullmatch(r"[iu][1248]", code):
            raise pickle.UnpicklingError(f"an array of type {code!r}")
        self.code = code
        self.order: Any = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]

    def resolve(self) -> np.dtype:
        return np.dtype(self.code).newbyteorder(self.order)


def _from_buffer(buffer: bytes, dtype: _Dtype, shape: tuple[int, ...], order: str) -> PickledArray:
    array = PickledArray()
    array.__setstate__((1, shape, dtype, order == "F", bytes(buffer)))
    return array


def _encode(text: str, encoding: str) -> bytes:
    # How Python 3 writes bytes for readers of Python 2.
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"text in {encoding}")
    return text.encode("latin1")


# numpy has called its core both ways.
_PERMITTED = {
    "numpy.ndarray": PickledArray,
    "numpy.dtype": _Dtype,
    "numpy.core.multiarray._reconstruct": PickledArray,
    "numpy._core.multiarray._reconstruct": PickledArray,
    "numpy.core.numeric._frombuffer": _from_buffer,
    "numpy._core.numeric._frombuffer": _from_buffer,
    "_codecs.encode": _encode,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str, /) -> Any:
        full = f"{module}.{name}"
        if full not in _PERMITTED:
            raise pickle.UnpicklingError(f"it asks for {full}, which no array of integers needs")
        return _PERMITTED[full]
