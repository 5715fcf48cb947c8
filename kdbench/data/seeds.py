"""Random streams: one seed for each axis of randomness, never for a method, so that comparisons are paired."""

import hashlib
from typing import Literal, get_args

Axis = Literal[
    "init",  # the student's weights at the start
    "projectors",  # those of the method
    "dropout",  # dropout and stochastic depth in the student, and whatever a method draws
    "order",  # which images make which batch
    "augment",  # shift and flip; of streamed images everything up to the erasing
    "crop",  # boxes and filters of resized crops
    "randaugment",  # operations and their strengths
    "colour",  # colour jitter
    "erasing",  # rectangles
    "noise",  # what fills them
    "mix",  # mixup and cutmix
    "rehearsal",  # images of a self-check without data
]
"""Everything that is drawn. A seed is that of a run's seed, an axis and a pair, and where they matter of the epoch, the
image or the process: all methods of a (pair, seed) draw the same."""

AXES: tuple[Axis, ...] = get_args(Axis)


def derive_seed(base: int, axis: Axis, pair: str, *indices: int) -> int:
    """A 63-bit seed for an axis, such as (0, "init", pair) or (0, "order", pair, epoch).

    Args:
        base: the seed of the run.
        indices: epoch, image or process.
    """
    text = "/".join(map(str, (base, axis, pair, *indices)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
