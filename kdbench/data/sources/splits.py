"""Stratified parts of a split: the same share of every class, always the same images."""

import numpy as np
from numpy.typing import NDArray


def split_holdout(labels: NDArray[np.int64], share: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices (kept, held out) of a stratified split: the same share of every class, always the same images."""
    generator = np.random.default_rng(0)
    held: list[NDArray[np.int64]] = []
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        held.append(members[: round(share * len(members))])
    mask = np.zeros(len(labels), dtype=bool)
    mask[np.concatenate(held)] = True
    return np.flatnonzero(~mask), np.flatnonzero(mask)


def stratified_subset(labels: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Sorted indices of `count` images (of all, where there are fewer), the same share of every class.

    Shares that are no whole numbers are rounded by largest remainder, so that classes of one size differ by one image
    at most.
    """
    if count >= len(labels):
        return np.arange(len(labels))
    classes, sizes = np.unique(labels, return_counts=True)
    # In whole numbers: a share in floating point could round a tie either way.
    quotas, remainders = np.divmod(sizes * count, len(labels))
    quotas[np.argsort(-remainders, kind="stable")[: count - quotas.sum()]] += 1
    generator = np.random.default_rng(0)
    chosen = [
        generator.permutation(np.flatnonzero(labels == label))[:quota]
        for label, quota in zip(classes, quotas, strict=True)
    ]
    return np.sort(np.concatenate(chosen))
