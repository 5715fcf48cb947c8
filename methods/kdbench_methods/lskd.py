"""Vanilla KD of standardised logits."""

from typing import Annotated

from pydantic import Field

from kdbench.method import LogUniform
from kdbench_methods.kd import KD


class LSKD(KD):
    """LSKD: KD of logits standardised image by image (Sun et al., arXiv 2403.01427).

    L = ce_weight * CE + kd_weight * T^2 * KL(softmax(s(z_t) / T) || softmax(s(z_s) / T)), s(z) = (z - mean) / (std +
    1e-7) over the classes: the student need not match the range of the teacher's logits. It needs logits alone and
    costs no parameters. The deviation is that of a sample, as in the released code. Other methods take the same step
    with their option `standardise`.

    Defaults are those of the released command for CIFAR-100 (its runs vary T in 2-4 and the weight in 1-18 by pair);
    for ImageNet that leaves the CE weight at 1 (ResNet34 -> ResNet18; 0.5 for ResNet50 -> MobileNet).

    Attributes:
        temperature: T, the base temperature.
        ce_weight: weight of the hard-label loss.
        kd_weight: weight of the KL term.
        standardise: off, it is vanilla KD.
        entropy_weights: temperature of the entropies that images are weighed by (EA-KD, arXiv 2311.13621); 0 is off.
    """

    aliases = ("logitstd",)
    paper = "arXiv 2403.01427"
    venue = "CVPR 2024"
    published = ("KD+LogitStd",)
    role = "method"
    presets = {"ofa-imagenet": {"ce_weight": 1.0}}

    search_space = {"temperature": LogUniform(1, 8), "kd_weight": LogUniform(1, 20)}

    temperature: Annotated[float, Field(gt=0)] = 2.0
    ce_weight: float = 0.1
    kd_weight: float = 9.0
    standardise: bool = True
