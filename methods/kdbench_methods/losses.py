"""Logit losses that several methods share."""

from torch import Tensor
from torch.nn import functional as F


def kl_divergence(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """T^2 * KL(softmax(teacher / T) || softmax(student / T)), summed over classes, mean over the batch.

    Args:
        student, teacher: logits (B, classes).
    """
    log_student = F.log_softmax(student / temperature, dim=1)
    log_teacher = F.log_softmax(teacher / temperature, dim=1)
    return temperature**2 * F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)


def ofa_loss(student: Tensor, teacher: Tensor, labels: Tensor, gamma: float = 1.0, temperature: float = 1.0) -> Tensor:
    """The modulated logit loss of OFA-KD (arXiv 2310.19444, as its released code computes it).

    mean_b sum_c -[(p_t,c + o_c)^gamma - o_c] log p_s,c with p = softmax(z / T) and o the one-hot label: the target
    class weighs (1 + p_t)^gamma - 1, the others p_t^gamma; gamma = 1 is the cross-entropy with the teacher's p.

    Args:
        student, teacher: logits (B, classes).
        labels: (B,) int64.
    """
    log_student = F.log_softmax(student / temperature, dim=1)
    weight = F.softmax(teacher / temperature, dim=1)
    if gamma != 1:
        target = labels[:, None]
        weight = (weight**gamma).scatter(1, target, (1 + weight.gather(1, target)) ** gamma - 1)
    return -(weight * log_student).sum(dim=1).mean()
