"""Accuracy of a model on a split."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from kdbench.compute.device import Compute
from kdbench.data.normalise import normalise
from kdbench.data.stream import EvaluationSet
from kdbench.method import Method
from kdbench.models.staged import LOGITS, StagedModel


@dataclass(frozen=True)
class Evaluation:
    """Top-1 and top-5 in percent, and which images were right (N,) bool.

    Attributes:
        class_images, class_hits: images of each class, and those of them that were right.
    """

    top1: float
    top5: float
    correct: NDArray[np.bool_]
    class_images: list[int]
    class_hits: list[int]

    @property
    def majority(self) -> float:
        """Top-1 in percent of who always answers with the largest class of the split."""
        return 100 * max(self.class_images) / len(self.correct)


@torch.no_grad()
def evaluate(
    model: StagedModel,
    split: EvaluationSet,
    batch_size: int,
    compute: Compute,
    predictor: Method | None = None,
    *,
    on_images: Callable[[int], None] | None = None,
) -> Evaluation:
    """Evaluate in eval mode and leave everything in the mode it was in; one device sync at the end.

    Args:
        predictor: the method, where the student's own logits are not what counts.
        on_images: called after each batch with the number of images so far.
    """
    modules = [(module, module.training) for module in (model, predictor) if module is not None]
    for module, _ in modules:
        module.eval()
    needs = predictor.inference_needs if predictor is not None else None
    first, fifth, answers, done, classes = [], [], [], 0, 1
    for raw, labels in split.batches(batch_size):
        with compute.autocast(), model.exact_classifier():
            # Not through `__call__`: a compiled model is compiled for the batches of the training.
            outputs = model.forward(normalise(raw, model.normalisation), needs or LOGITS)
            logits = (outputs.logits if predictor is None else predictor.predict(outputs)).float()
        classes = logits.shape[1]
        hits = logits.topk(min(5, logits.shape[1])).indices == labels[:, None]
        first.append(hits[:, 0])
        fifth.append(hits.any(dim=1))
        done += len(labels)
        if on_images is not None:
            on_images(done)
        answers.append(labels)
    for module, training in modules:
        module.train(training)
    correct, truth = torch.cat(first).cpu(), torch.cat(answers).cpu()
    return Evaluation(
        top1=100 * float(correct.numpy().mean()),
        top5=100 * float(torch.cat(fifth).float().mean()),
        correct=correct.numpy(),
        class_images=truth.bincount(minlength=classes).tolist(),
        class_hits=truth[correct].bincount(minlength=classes).tolist(),
    )
