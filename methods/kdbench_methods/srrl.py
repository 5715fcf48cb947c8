"""SRRL: the student's projected feature, read by the teacher's classifier."""

from torch import Tensor
from torch.nn import functional as F

from kdbench.method import Batch, LogUniform, Method, Needs, Outputs, Pair
from kdbench_methods.parts.projectors import activation_of, conv_norm, init_projector, probe


class SRRL(Method):
    """SRRL: softmax regression representation learning (Yang et al., ICLR 2021, section 3).

    L = ce_weight * CE + feature_weight * mean (h - f_t)^2 + regression_weight * mean (W_t h + b_t - z_t)^2, with
    h = mean over the grid of ReLU(BN(conv1x1(F_s,4))) and f_t, z_t, (W_t, b_t) the teacher's pooled feature, logits and
    classifier, which stays frozen.

    Weights 1 as in the released code (the authors searched {1, 5, 10}, its issue 3). The paper writes squared norms
    where the code, which is followed, takes means. The code is of CNNs whose pooled feature is never negative; where
    the teacher's is, which a probe tells, the projector ends without ReLU. Tokens are taken on their grid. Refused
    where the teacher has no classifier that takes its pooled feature alone. Extra parameters: D_t * (C_s + 2).

    Attributes:
        ce_weight, feature_weight, regression_weight: weights of the terms.
    """

    kind = "feature"
    paper = "OpenReview ZzwDy_wiWv"
    venue = "ICLR 2021"

    search_space = {
        "feature_weight": LogUniform(0.1, 10),
        "regression_weight": LogUniform(0.1, 10),
    }

    ce_weight: float = 1.0
    feature_weight: float = 1.0
    regression_weight: float = 1.0

    student_needs = Needs(stages=frozenset({4}))
    teacher_needs = Needs(pooled=True)

    def build(self, pair: Pair) -> None:
        pooled = probe(pair.teacher, Needs(pooled=True)).pooled
        # A teacher without such a classifier is refused here.
        pair.teacher.classify(pooled)
        self.project = conv_norm(pair.student.stages[4].channels, pooled.shape[1], activation=activation_of(pooled))
        init_projector(self)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        feature = self.project(student.stages[4].map).mean(dim=(2, 3))
        logits = self.pair.teacher.classify(feature)
        return {
            "ce": self.ce_weight * batch.cross_entropy(student.logits),
            "feature": self.feature_weight * F.mse_loss(feature, teacher.pooled),
            "regression": self.regression_weight * F.mse_loss(logits, teacher.logits),
        }
