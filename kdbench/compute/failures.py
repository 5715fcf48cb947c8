"""What an error that ends some code says of it: out of memory, unsupported, failed, or that the device is lost."""

import traceback

import torch

from kdbench.errors import UnsupportedPair, describe
from kdbench.results.schema import Status

_NO_MEMORY = (
    "DefaultCPUAllocator: can't allocate memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUSOLVER_STATUS_ALLOC_FAILED",
)
"""How allocators say it that have no error of their own: the host's, the driver's, those of NVIDIA's libraries."""


def out_of_memory(error: Exception) -> bool:
    """Whether the code wanted more memory than there is."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(words in str(error) for words in _NO_MEMORY)


def device_lost(error: Exception) -> bool:
    """Whether nothing works on the device of this process any more, as after an assertion in a kernel."""
    return isinstance(error, torch.AcceleratorError) and not out_of_memory(error)


def ending(error: Exception) -> tuple[Status, str]:
    """How code that raised `error` ended, and why; what its calls held on the device is let go.

    Raises:
        AcceleratorError: the device is lost. This is nobody's own failure: the process that starts in the place of this
            one is told whose code ran.
    """
    if isinstance(error, UnsupportedPair):
        return "unsupported", str(error)
    if device_lost(error):
        raise error
    if not out_of_memory(error):
        return "failed", describe(error)
    # The traceback holds the calls, and these the tensors of the step.
    traceback.clear_frames(error.__traceback__)
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    return "oom", str(error).partition("\n")[0] or type(error).__name__
