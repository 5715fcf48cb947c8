"""A trained student as its checkpoint holds it, and whether an export of it still answers as it does."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from kdbench.errors import KdbenchError
from kdbench.export.cell import FinishedCell
from kdbench.models.create import create_model
from kdbench.models.spec import FIXED, ModelSpec
from kdbench.results.schema import CellRecord
from kdbench.weights.files import load_weights, read_metadata

TOLERANCE = 1e-5
"""Largest difference between logits of an export and the student's own, relative to the largest logit where that is
above 1."""
PROBED = 5
"""Images that both are asked about; another number than the exporter sees, so that a fixed batch size is found out."""


@dataclass(frozen=True)
class Student:
    """A network in eval mode, on the host, with what is known of it.

    Attributes:
        record: of the cell that trained it.
        facts: the metadata of its checkpoint: what builds it, what its input is.
        model: the network; it takes normalised images.
    """

    record: CellRecord
    facts: dict[str, Any]
    model: nn.Module

    @classmethod
    def load(cls, cell: FinishedCell) -> "Student":
        """Build the network and load its weights.

        Raises:
            KdbenchError: the student does not answer alone, or the checkpoint does not fit or is of an older kdbench.
        """
        facts, record = read_metadata(cell.checkpoint), cell.record
        if not {"timm", "arguments", "image_shape", "input", "normalisation", "alone"} <= set(facts):
            raise KdbenchError(f"{cell.checkpoint} does not tell what its student sees; train it again to export it")
        if not facts["alone"]:
            how = record.get("differs", "answers in its student's place")
            raise KdbenchError(
                f"{record['method']} {how}: the student, which is all that its checkpoint holds, would not reach the "
                f"{record.get('top1', 0.0):.2f} % of its record"
            )
        channels, side, _ = facts["image_shape"]
        overrides = {name: value for name, value in facts["arguments"].items() if name not in FIXED}
        stages = tuple(facts.get("stages", ()))
        spec = ModelSpec(timm=facts["timm"], kwargs=overrides, stages=stages, kind="cnn", recipe="-")
        with torch.random.fork_rng(devices=[]):
            model = create_model(spec, facts["arguments"]["num_classes"], channels, side).eval()
        load_weights(cell.checkpoint, model)
        return cls(record, facts, model)

    @property
    def mean(self) -> list[float]:
        """By channel, of the [0, 1] pixel range."""
        return self.facts["normalisation"][0]

    @property
    def std(self) -> list[float]:
        """By channel, of the [0, 1] pixel range."""
        return self.facts["normalisation"][1]

    @property
    def classes(self) -> int:
        return self.facts["arguments"]["num_classes"]

    @property
    def input(self) -> str:
        """What the network takes, in a sentence."""
        channels, side, _ = self.facts["image_shape"]
        how = self.facts["input"]
        if how["fit"] == "pad":
            made = f"smaller images are padded to {side} x {side} with zeros on all sides"
        else:
            made = (
                f"the shorter side is resized to {int(side / how['crop'])} px ({how['interpolation']}), the centre kept"
            )
        return (
            f"float32 (batch, {channels}, {side}, {side}): pixels in [0, 1], less mean {_list(self.mean)}, over "
            f"standard deviation {_list(self.std)}; {made}"
        )

    @property
    def origin(self) -> dict[str, Any]:
        """Where the student is from, as the record tells it."""
        record: dict[str, Any] = {**self.record}
        names = ("suite", "protocol", "pair", "method", "hyperparameters", "seed", "split", "top1", "top5")
        return {name: record[name] for name in names if name in record} | {"input": self.input}

    @cached_property
    def probe(self) -> Tensor:
        """Noise of the size and spread of normalised images, (PROBED, C, side, side)."""
        return torch.randn(PROBED, *self.facts["image_shape"], generator=torch.Generator().manual_seed(0))

    @torch.no_grad()
    def difference(self, logits: Tensor) -> float:
        """Largest absolute difference between `logits` of the probe and the student's own.

        Raises:
            KdbenchError: it is more than rounding explains.
        """
        answer = self.model(self.probe)
        largest = float((answer - logits).abs().max()) if answer.shape == logits.shape else float("nan")
        if not largest <= TOLERANCE * max(1.0, float(answer.abs().max())):
            raise KdbenchError(
                f"the exported {self.facts['timm']} answers differently (logits {largest:.2g} apart), so it is not kept"
            )
        return largest


def _list(values: list[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
