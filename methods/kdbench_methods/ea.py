"""Vanilla KD of images weighed by how unsure the networks are."""

from typing import Annotated

from pydantic import Field

from kdbench_methods.kd import KD


class EA(KD):
    """EA-KD: KD whose images weigh more, the larger the entropies of teacher and student (Su et al., arXiv 2311.13621).

    L = ce_weight * CE + kd_weight * T^2 * mean_b w_b KL(softmax(z_t / T) || softmax(z_s / T)) with the constant w =
    (H_t + H_t * H_s / ln C) / 2, H the entropy of softmax(z / T') over the C classes. It needs logits alone and costs
    no parameters. Other methods take the same weights with their option `entropy_weights`.

    T' is 3, in the released configuration for ImageNet 2 (cpsu00/EA-KD, whose CE and KD weights these presets have).
    The code divides by 100 on CIFAR-100 in its KD and DKD, where the paper, which is followed, and its MLD and ImageNet
    settings have ln C: with 100 the student hardly counts. Its DKD weighs by standardised logits where they are
    standardised, its MLD by those before, as here.

    Attributes:
        temperature: T.
        ce_weight: weight of the hard-label loss.
        kd_weight: weight of the KL term.
        standardise: standardise the logits of both networks first (LSKD, arXiv 2403.01427).
        entropy_weights: T', temperature of the entropies; 0 is vanilla KD.
    """

    paper = "arXiv 2311.13621"
    venue = "ICCV 2025"
    published = ()
    role = "method"
    presets = {
        "crd": {"temperature": 4.0, "ce_weight": 0.1, "kd_weight": 0.9},
        "ofa-imagenet": {"entropy_weights": 2.0, "kd_weight": 0.5},
    }

    entropy_weights: Annotated[float, Field(ge=0)] = 3.0
