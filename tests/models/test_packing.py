"""The forms in which networks hold a map: found by value, and made again."""

import pytest
import torch

from kdbench.models.resume.packing import Packing, find_packing, prefix_of

MAP = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(0))
PREFIX = torch.randn(2, 2, 5, generator=torch.Generator().manual_seed(1))
TOKENS = MAP.flatten(2).transpose(1, 2)
ORDER = torch.randperm(12, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(
    ("state", "layout", "prefix", "kind"),
    [
        (MAP, "NCHW", 0, "map"),
        (MAP.permute(0, 2, 3, 1), "NHWC", 0, "tokens"),
        (TOKENS, "NLC", 0, "tokens"),
        (torch.cat([PREFIX, TOKENS], 1), "NLC", 2, "tokens"),
        (TOKENS[:, ORDER], "NLC", 0, "tokens"),
        ((TOKENS, [3, 4]), "NLC", 0, "tokens"),
        ((7, MAP), "NCHW", 0, "map"),
        ((MAP, PREFIX), "NCHW", 2, "map"),
    ],
    ids=["NCHW", "NHWC", "NLC", "class tokens", "shuffled", "with its size", "second of two", "tokens apart"],
)
def test_found_and_made_again(state: object, layout: str, prefix: int, kind: str) -> None:
    packing = find_packing(state, MAP)
    assert packing is not None
    assert (packing.layout, packing.prefix, packing.kind) == (layout, prefix, kind)
    again = packing.pack(MAP, prefix_of(state, packing))
    torch.testing.assert_close(again, tuple(state) if isinstance(state, list | tuple) else state, rtol=0, atol=0)
    torch.testing.assert_close(packing.unpack(state, (3, 4)), MAP, rtol=0, atol=0)
    other = torch.randn(6, 5, 3, 4)
    packed = packing.pack(other, torch.randn(6, 2, 5) if prefix else None)
    found = find_packing(packed, other)
    assert found is not None and (found.layout, found.prefix, found.place) == (layout, prefix, packing.place)


@pytest.mark.parametrize(
    "state",
    [MAP + 1, MAP[:, :4], TOKENS[:, :11], "map", 3, (MAP, MAP.clone()), (TOKENS, torch.randn(2, 8, 6)), (3, 4)],
    ids=["other values", "fewer channels", "fewer tokens", "a word", "a number", "twice", "beside others", "none"],
)
def test_not_found(state: object) -> None:
    assert find_packing(state, MAP) is None


def test_tokens_that_are_alike_have_no_order() -> None:
    constant = torch.ones(2, 5, 3, 4)
    assert find_packing(torch.ones(2, 12, 5), constant) == Packing("NLC")
    half = torch.cat([constant[..., :2], MAP[..., :2]], dim=3)
    assert find_packing(half.flatten(2).transpose(1, 2)[:, ORDER], half) is None
