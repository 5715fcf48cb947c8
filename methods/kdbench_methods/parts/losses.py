"""Logit losses that several methods share."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from kdbench.method import Batch

NEVER = -1e9
"""The log-probability of what is masked out; finite, so that a difference of two of them is 0."""


def warm_up(batch: Batch, epochs: int) -> float:
    """A linear ramp of a loss weight over the first epochs: 1 / epochs in the first, 1 from the last of them on."""
    return min(1.0, (batch.epoch + 1) / max(1, epochs))


def standardise(logits: Tensor) -> Tensor:
    """Each image's logits (B, classes) with mean 0 and standard deviation 1 (LSKD, arXiv 2403.01427).

    The deviation is that of a sample (it divides by C - 1), as in the released code.
    """
    mean, deviation = logits.mean(dim=1, keepdim=True), logits.std(dim=1, keepdim=True)
    return (logits - mean) / (deviation + 1e-7)


def entropy_weights(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Weights (B,) of the images, larger where the networks are unsure (EA-KD, arXiv 2311.13621): constants.

    (H_t + H_t * H_s / ln C) / 2 with H the entropy of softmax(z / T) over the C classes.

    Args:
        student, teacher: logits (B, classes).
    """
    h_s, h_t = (_entropy(logits.detach() / temperature) for logits in (student, teacher))
    return (h_t + h_t * h_s / math.log(student.shape[1])) / 2


def _entropy(logits: Tensor) -> Tensor:
    log_p = F.log_softmax(logits, dim=1)
    return -(log_p.exp() * log_p).sum(dim=1)


def mean_kl(log_student: Tensor, log_teacher: Tensor, weights: Tensor | None = None) -> Tensor:
    """KL(teacher || student) of log-probabilities (B, n), mean over the batch; each image times its weight (B,)."""
    if weights is None:
        return F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)
    return (weights * F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(dim=1)).mean()


def kl_divergence(
    student: Tensor, teacher: Tensor, temperature: float | Tensor = 1.0, weights: Tensor | None = None
) -> Tensor:
    """T^2 * KL(softmax(teacher / T) || softmax(student / T)), summed over classes, mean over the batch.

    Args:
        student, teacher: logits (B, classes).
        weights: (B,) of the images; all alike where there are none.
    """
    log_student = F.log_softmax(student / temperature, dim=1)
    log_teacher = F.log_softmax(teacher / temperature, dim=1)
    return temperature**2 * mean_kl(log_student, log_teacher, weights)


def binary_kl(
    student: Tensor,
    teacher: Tensor,
    student_class: Tensor,
    teacher_class: Tensor,
    temperature: float = 1.0,
    weights: Tensor | None = None,
) -> Tensor:
    """T^2 * KL((q_t, 1 - q_t) || (q_s, 1 - q_s)), mean over the batch; q is the probability of one class of each.

    Args:
        student, teacher: logits (B, classes).
        student_class, teacher_class: (B,) int64, which class that is.
        weights: (B,) of the images; all alike where there are none.
    """
    log_student, log_teacher = (
        _one_against_rest(F.log_softmax(logits / temperature, dim=1), index)
        for logits, index in ((student, student_class), (teacher, teacher_class))
    )
    return temperature**2 * mean_kl(log_student, log_teacher, weights)


def _one_against_rest(log_p: Tensor, index: Tensor) -> Tensor:
    """(B, 2) log-probabilities of a class and of all others; never the logarithm of a rounded 0."""
    rest = torch.logsumexp(log_p.scatter(1, index[:, None], NEVER), dim=1)
    return torch.stack([log_p.gather(1, index[:, None])[:, 0], rest], dim=1)


def masked_kl(
    student: Tensor, teacher: Tensor, mask: Tensor, temperature: float = 1.0, weights: Tensor | None = None
) -> Tensor:
    """T^2 * KL(teacher || student) over the classes that are not masked, mean over the batch; 0 where all are.

    Args:
        student, teacher: logits (B, classes).
        mask: (B, classes) bool, true for what is left out of both softmaxes.
        weights: (B,) of the images; all alike where there are none.
    """
    log_student, log_teacher = (masked_log_softmax(logits / temperature, mask) for logits in (student, teacher))
    return temperature**2 * mean_kl(log_student, log_teacher, weights)


def masked_log_softmax(logits: Tensor, mask: Tensor) -> Tensor:
    """Log-probabilities (B, classes) among the classes that are not masked; NEVER or less for the others."""
    # Masked behind a first softmax: its output has a type that holds NEVER, whatever that of the logits.
    return F.log_softmax(F.log_softmax(logits, dim=1).masked_fill(mask, NEVER), dim=1)


def label_mask(logits: Tensor, labels: Tensor) -> Tensor:
    """(B, classes) bool, true for each image's label (B,)."""
    return torch.zeros_like(logits, dtype=torch.bool).scatter(1, labels[:, None], True)


def ofa_loss(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    gamma: float = 1.0,
    temperature: float = 1.0,
    weights: Tensor | None = None,
) -> Tensor:
    """The modulated logit loss of OFA-KD (arXiv 2310.19444, as its released code computes it).

    mean_b sum_c -[(p_t,c + o_c)^gamma - o_c] log p_s,c with p = softmax(z / T) and o the one-hot label: the target
    class weighs (1 + p_t)^gamma - 1, the others p_t^gamma; gamma = 1 is the cross-entropy with the teacher's p.

    Args:
        student, teacher: logits (B, classes).
        labels: (B,) int64.
        weights: (B,) of the images; all alike where there are none.
    """
    log_student = F.log_softmax(student / temperature, dim=1)
    loss = -(ofa_target(teacher, labels, gamma, temperature) * log_student).sum(dim=1)
    return loss.mean() if weights is None else (weights * loss).mean()


def ofa_target(teacher: Tensor, labels: Tensor, gamma: float, temperature: float) -> Tensor:
    """What `ofa_loss` weighs the student's log-probabilities (B, classes) with."""
    weight = F.softmax(teacher / temperature, dim=1)
    if gamma != 1:
        target = labels[:, None]
        weight = (weight**gamma).scatter(1, target, (1 + weight.gather(1, target)) ** gamma - 1)
    return weight
