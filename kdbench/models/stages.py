"""Where the four stages of a network lie: one rule over timm's `feature_info`, no table of names."""

from collections.abc import Sequence
from itertools import groupby

STAGES = (1, 2, 3, 4)


def stage_taps(reductions: Sequence[int]) -> dict[int, int]:
    """Index into `reductions` of the last block of each stage.

    Hierarchical networks: the last entry of each of the four deepest resolutions. Isotropic ones (a single
    resolution): the depth split 2 / 2 / rest / 2 of the OFA-KD code base (its hooks on 12 blocks are 1, 3, 9, 11),
    an even split below eight blocks. With two or three resolutions the longest run is split until there are four;
    where that is impossible the stages are aligned from the deep end, so that stage 4 always is the last.

    Args:
        reductions: down-sampling factor of every feature a network offers, shallow to deep.

    Returns:
        Stage (1-4) -> index.
    """
    if not reductions:
        raise ValueError("a network without features has no stages")
    runs = [[index for index, _ in run] for _, run in groupby(enumerate(reductions), key=lambda item: item[1])]
    if len(runs) >= 4:
        taps = [run[-1] for run in runs[-4:]]
    elif len(runs) == 1:
        taps = _split_depth(runs[0], min(4, len(runs[0])))
    else:
        longest = max(range(len(runs)), key=lambda i: len(runs[i]))
        pieces = min(len(runs[longest]), 5 - len(runs))
        taps = [
            tap for i, run in enumerate(runs) for tap in (_split_evenly(run, pieces) if i == longest else [run[-1]])
        ]
    return dict(zip(STAGES[-len(taps) :], taps, strict=True))


def _split_depth(blocks: list[int], pieces: int) -> list[int]:
    if pieces == 4 and len(blocks) >= 8:
        return [blocks[i] for i in (1, 3, -3, -1)]
    return _split_evenly(blocks, pieces)


def _split_evenly(blocks: list[int], pieces: int) -> list[int]:
    return [blocks[(len(blocks) * (piece + 1)) // pieces - 1] for piece in range(pieces)]
