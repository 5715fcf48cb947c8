"""DIST: the student's probabilities correlate with the teacher's, over classes and over images."""

from typing import Annotated

from pydantic import Field
from torch import Tensor

from kdbench.method import Batch, LogUniform, Method, Outputs


class DIST(Method):
    """DIST: Pearson correlation of class probabilities with the teacher's (Huang et al., arXiv 2205.10536).

    L = ce_weight * CE + beta * T^2 * (1 - mean_b r(p_s,b, p_t,b)) + gamma * T^2 * (1 - mean_c r(p_s,:c, p_t,:c)) with
    p = softmax(z / T): r over the classes of an image (inter-class) and over the images of a batch (intra-class). A
    correlation does not ask for the teacher's scale. It needs logits alone and costs no parameters; several processes
    each correlate their own images, as in the released code.

    Defaults are those of OFA-KD's train.py, for both data sets; the `crd` preset is the authors' CIFAR-100
    configuration, weight 2. We follow the released code in an eps that is added to the product of the two norms, and
    fades out classes that hardly any image of the batch is given.

    Attributes:
        temperature: T.
        beta: weight of the inter-class term.
        gamma: weight of the intra-class term.
        ce_weight: weight of the hard-label loss.
    """

    kind = "logit"
    paper = "arXiv 2205.10536"
    venue = "NeurIPS 2022"
    published = ("DIST",)
    presets = {"crd": {"temperature": 4.0, "beta": 2.0, "gamma": 2.0}}

    search_space = {
        "temperature": LogUniform(1, 8),
        "beta": LogUniform(0.1, 10),
        "gamma": LogUniform(0.1, 10),
    }

    temperature: Annotated[float, Field(gt=0)] = 1.0
    beta: float = 1.0
    gamma: float = 1.0
    ce_weight: float = 1.0

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        p_s, p_t = ((outputs.logits / self.temperature).softmax(dim=1) for outputs in (student, teacher))
        scale = self.temperature**2
        return {
            "ce": self.ce_weight * batch.cross_entropy(student.logits),
            "inter": self.beta * scale * (1 - correlation(p_s, p_t).mean()),
            "intra": self.gamma * scale * (1 - correlation(p_s.T, p_t.T).mean()),
        }


def correlation(a: Tensor, b: Tensor, eps: float = 1e-8) -> Tensor:
    """Pearson's correlation (N,) of the rows of two matrices (N, M)."""
    a, b = a - a.mean(dim=1, keepdim=True), b - b.mean(dim=1, keepdim=True)
    return (a * b).sum(dim=1) / (a.norm(dim=1) * b.norm(dim=1) + eps)
