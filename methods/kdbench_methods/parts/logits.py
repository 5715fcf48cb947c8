"""What every method on logits can take besides its own loss: standardised logits, and images weighed by entropy."""

from typing import Annotated

from pydantic import Field
from torch import Tensor

from kdbench.method import Method, Pair, UnsupportedPair
from kdbench_methods.parts.losses import entropy_weights, standardise


class LogitMethod(Method):
    """A method on logits that may be standardised, and whose images may be weighed.

    Attributes:
        standardise: standardise the logits of both networks first (LSKD, arXiv 2403.01427).
        entropy_weights: temperature of the entropies that images are weighed by (EA-KD, arXiv 2311.13621: 3); 0 is off.
            They are those of the logits as they are, standardised or not.
    """

    standardise: bool = False
    entropy_weights: Annotated[float, Field(ge=0)] = 0.0

    def build(self, pair: Pair) -> None:
        """Look whether standardised logits say anything.

        Raises:
            UnsupportedPair: standardised logits of two classes are +-0.707 whatever the logits, and have no gradient.
        """
        if self.standardise and pair.task.num_classes == 2:
            raise UnsupportedPair(
                "standardised logits of two classes are always +-0.707, so nothing is learned from them"
            )

    def prepared(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """The logits (B, classes) of both networks for the loss, and the weights (B,) of its images, None for alike."""
        weights = entropy_weights(student, teacher, self.entropy_weights) if self.entropy_weights else None
        if self.standardise:
            student, teacher = standardise(student), standardise(teacher)
        return student, teacher, weights
