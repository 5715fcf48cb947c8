"""What a method sees of a batch."""

from dataclasses import dataclass, replace

from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Batch:
    """Labels and bookkeeping of one batch; the images themselves stay with the loop.

    Attributes:
        labels: (B,) int64 hard labels; the heavier of the two where images are mixed.
        targets: (B, classes) soft targets where images are mixed (mixup, cutmix), else None.
        smoothing: label smoothing of the recipe, part of `targets` already where those are given.
        index: (B,) int64 position of each image in the training set.
        epoch: epochs finished so far.
        progress: share of the training done, in [0, 1).
    """

    labels: Tensor
    targets: Tensor | None
    smoothing: float
    index: Tensor
    epoch: int
    progress: float

    def part(self, which: slice) -> "Batch":
        """What there is to see of some of the images."""
        targets = None if self.targets is None else self.targets[which]
        return replace(self, labels=self.labels[which], targets=targets, index=self.index[which])

    def cross_entropy(self, logits: Tensor) -> Tensor:
        """The recipe's hard-label loss of `logits` (B, classes), mean over the batch."""
        if self.targets is not None:
            return F.cross_entropy(logits, self.targets)
        return F.cross_entropy(logits, self.labels, label_smoothing=self.smoothing)
