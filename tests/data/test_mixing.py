"""Mixup and cutmix: pixels, targets and the share between them agree."""

import numpy as np
import pytest
import torch

from kdbench.data.mixing import Mixer
from kdbench.suites.schema import Augment


def _mix(seed: int = 0, smoothing: float = 0.0, **augment: float) -> tuple[torch.Tensor, ...]:
    mixer = Mixer(Augment(**augment), smoothing, 4, np.random.default_rng(seed))  # type: ignore[arg-type]
    # Image i is constant i, so that pixels tell the shares.
    images = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 16, 16).contiguous()
    mixed, labels, targets = mixer(images, torch.arange(4))
    assert targets is not None
    return images, mixed, labels, targets


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_targets_tell_the_share_of_pixels(kind: str, seed: int) -> None:
    images, mixed, labels, targets = _mix(seed, **{kind: 1.0})
    own, other = torch.arange(4.0), torch.arange(3.0, -1, -1)
    share = targets[torch.arange(4), torch.arange(4)]
    expected = share * own + (1 - share) * other
    torch.testing.assert_close(mixed.mean(dim=(1, 2, 3)), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(4))
    assert torch.equal(labels, targets.argmax(dim=1))
    assert torch.equal(images[:, 0, 0, 0], own), "the unmixed images stay as they are"


def test_smoothing_is_part_of_the_targets() -> None:
    *_, targets = _mix(smoothing=0.2, mixup=1.0)
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(4))
    assert targets.min() == pytest.approx(0.05)


def test_mixing_can_be_left_out_at_random() -> None:
    mixer = Mixer(Augment(mixup=1.0, mix_probability=0.25), 0.0, 4, np.random.default_rng(0))
    images = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 4, 4).contiguous()
    plain = sum(torch.equal(mixer(images, torch.arange(4))[0], images) for _ in range(400))
    assert abs(plain / 400 - 0.75) < 4 * (0.25 * 0.75 / 400) ** 0.5


def test_off_means_hard_labels() -> None:
    images, labels = torch.rand(4, 1, 4, 4), torch.arange(4)
    mixed, same, targets = Mixer(Augment(), 0.1, 4, np.random.default_rng(0))(images, labels)
    assert mixed is images and same is labels and targets is None
