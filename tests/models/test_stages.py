"""The uniform rule for stages, on the reductions that real families report."""

import pytest

from kdbench.models.stages import stage_taps


@pytest.mark.parametrize(
    ("reductions", "expected"),
    [
        ([4, 8, 16, 32], {1: 0, 2: 1, 3: 2, 4: 3}),  # swin, convnext
        ([2, 4, 8, 16, 32], {1: 1, 2: 2, 3: 3, 4: 4}),  # resnet with its stem
        ([2, 4, 8, 16, 16, 32], {1: 1, 2: 2, 3: 4, 4: 5}),
        ([16] * 12, {1: 1, 2: 3, 3: 9, 4: 11}),  # vit, mixer: OFA-KD's split
        ([16] * 24, {1: 1, 2: 3, 3: 21, 4: 23}),
        ([8] * 4, {1: 0, 2: 1, 3: 2, 4: 3}),
        ([16] * 6, {1: 0, 2: 2, 3: 3, 4: 5}),
        ([8, 16, 32], {2: 0, 3: 1, 4: 2}),  # pit, levit: aligned from the deep end
        ([8, 16, 16, 16], {1: 0, 2: 1, 3: 2, 4: 3}),
        ([8, 8, 16, 16, 16, 16], {1: 1, 2: 2, 3: 3, 4: 5}),
        ([16, 16], {3: 0, 4: 1}),
    ],
)
def test_rule(reductions: list[int], expected: dict[int, int]) -> None:
    assert stage_taps(reductions) == expected


def test_no_features() -> None:
    with pytest.raises(ValueError, match="no stages"):
        stage_taps([])
