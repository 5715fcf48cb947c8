"""Lift: the student's pooled feature is widened to the teacher's for good."""

from torch import Tensor, nn
from torch.nn import functional as F

from kdbench.method import Batch, LogUniform, Method, Needs, Outputs, Pair, count_parameters
from kdbench_methods.parts.losses import kl_divergence


class Lift(Method):
    """Lift: a linear map to the teacher's width, kept in front of the classifier (Tian et al., arXiv 2511.15572).

    L = ce_weight * CE(W h) + kd_weight * KL(z_t, W h) at T 1 + weight * mean (h - f_t)^2, h = P f_s + b of the
    student's pooled feature f_s and W a classifier on the teacher's width. The prediction is W h.

    A reconstruction: the paper was read in its abstract and summaries alone, its code not at all. These say that the
    projector of plain feature distillation is kept at inference, that it lifts the student to the teacher's width, and
    that the loss is the mean squared error of last features; weights and KL are those of `kd` and `feature_mse`. The
    paper's features are tokens, here they are pooled. W P is one linear map, so what is gained comes from training.

    Open division: P and W are needed at inference, (D_s + 1) * D_t + (D_t + 1) * C parameters, in place of the
    student's own classifier, which learns nothing.

    Attributes:
        weight: of the feature term.
        kd_weight: weight of the KL term.
        ce_weight: weight of the hard-label loss.
    """

    kind = "feature"
    paper = "arXiv 2511.15572"
    venue = "ICML 2026"
    differs = "answers through a wider feature and a classifier on it"

    search_space = {"weight": LogUniform(0.01, 100), "kd_weight": LogUniform(0.1, 10)}

    student_needs = teacher_needs = inference_needs = Needs(pooled=True)

    weight: float = 1.0
    kd_weight: float = 1.0
    ce_weight: float = 1.0

    def build(self, pair: Pair) -> None:
        self.lift = nn.Linear(pair.student.pooled_width, pair.teacher.pooled_width)
        self.classifier = nn.Linear(pair.teacher.pooled_width, pair.task.num_classes)
        self.inference_parameters = count_parameters(self.lift, self.classifier)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        lifted = self.lift(student.pooled)
        logits = self.classifier(lifted)
        return {
            "ce": self.ce_weight * batch.cross_entropy(logits),
            "kd": self.kd_weight * kl_divergence(logits, teacher.logits),
            "feature": self.weight * F.mse_loss(lifted, teacher.pooled),
        }

    def predict(self, student: Outputs) -> Tensor:
        return self.classifier(self.lift(student.pooled))
