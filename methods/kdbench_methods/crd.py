"""CRD: which image a feature is of, told from thousands of others in a memory bank."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from kdbench.method import Batch, LogUniform, Method, Needs, Outputs, Pair, UnsupportedPair
from kdbench_methods.parts.contrastive import MemoryBank
from kdbench_methods.parts.precision import full_precision

unit = full_precision(F.normalize)
"""Rows of unit length."""


class CRD(Method):
    """CRD: student and teacher agree which image is which, against a memory bank (arXiv 1910.10699, section 3).

    L = ce_weight * CE + weight * [nce(e^s, bank^t) + nce(e^t, bank^s)], with e = normalise(linear(pooled feature)) and

        nce(u, m) = mean_b {-log[p_b / (p_b + K/N)] - sum_k log[(K/N) / (p_k + K/N)]},  p = exp(<u, m> / tau) / Z

    over the image's own row b and K rows k of images of other classes; Z is N times the mean of the first batch. Both
    embeddings are learned; banks hold them for all N images, moved by `momentum` and of unit length again.

    Defaults are those of OFA-KD; the `crd` preset is RepDistiller's. As in its code p is divided by Z, which the paper
    leaves out; its guard of 1e-7 in the denominators is not needed. It draws K of the images of other classes anew for
    each image; here the images of a batch take theirs in one random order (also without replacement): the distribution
    for each is the same, and one product does instead of B * K gathered rows. K is at most what the training set offers
    to every class. Under mixup an image counts as the one that `Batch.index` names. Extra parameters:
    width * (D_s + D_t + 2); memory of 2 * N * width numbers. In a distributed run each process contrasts its own
    images; the banks are written with all.

    Attributes:
        ce_weight, weight: weights of the terms.
        width: of the embeddings.
        negatives: K.
        tau: temperature.
        momentum: of the banks.
    """

    kind = "contrastive"
    paper = "arXiv 1910.10699"
    venue = "ICLR 2020"
    published = ("CRD",)
    presets = {"crd": {"weight": 0.8}}

    search_space = {"weight": LogUniform(0.08, 8), "tau": LogUniform(0.02, 0.2)}

    ce_weight: float = 1.0
    weight: float = 1.0
    width: Annotated[int, Field(ge=1)] = 128
    negatives: Annotated[int, Field(ge=1)] = 16384
    tau: Annotated[float, Field(ge=0.02)] = 0.07
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.5

    student_needs = teacher_needs = Needs(pooled=True)

    def build(self, pair: Pair) -> None:
        labels = pair.task.labels
        largest = int(labels.bincount().max())
        self._count = min(self.negatives, len(labels) - largest)
        if self._count < 1:
            raise UnsupportedPair("it contrasts images of different classes, and all training images are of one")
        # So many images in any order hold the negatives of every class.
        self._enough = self._count + largest
        self.embed_s = nn.Linear(pair.student.pooled_width, self.width)
        self.embed_t = nn.Linear(pair.teacher.pooled_width, self.width)
        self.bank_s, self.bank_t = (MemoryBank(len(labels), self.width, self.tau, self.momentum) for _ in range(2))
        # A stream of its own, the same in all processes: the student's dropout does not depend on the negatives.
        self._random = torch.Generator(labels.device).manual_seed(int(torch.randint(2**62, ())))

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        e_s, e_t = unit(self.embed_s(student.pooled)), unit(self.embed_t(teacher.pooled))
        sample = batch.index, *self.draw(batch.index), self._count
        terms = {
            "ce": self.ce_weight * batch.cross_entropy(student.logits),
            "crd s": self.weight * self.bank_t(e_s, *sample),
            "crd t": self.weight * self.bank_s(e_t, *sample),
        }
        self.bank_s.update(batch.index, e_s)
        self.bank_t.update(batch.index, e_t)
        return terms

    def get_extra_state(self) -> Tensor:
        return self._random.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        self._random.set_state(state.cpu())

    def draw(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Images (M,) in random order, and which of them (B, M) are the negatives of each of `index` (B,)."""
        labels = self.pair.task.labels
        order = torch.randperm(len(labels), generator=self._random, device=labels.device)[: self._enough]
        other = labels[order] != labels[index][:, None]
        return order, other & (other.cumsum(dim=1, dtype=torch.int32) <= self._count)
