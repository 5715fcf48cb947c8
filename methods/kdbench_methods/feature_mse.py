"""Feature distillation as timm has it: the pooled feature, and nothing else."""

from torch import Tensor, nn
from torch.nn import functional as F

from kdbench.method import Batch, LogUniform, Method, Needs, Outputs, Pair


class FeatureMSE(Method):
    """Pooled feature, projected linearly to the teacher's width, MSE (timm 1.0.31, FeatureDistillationTask).

    L = ce_weight * CE + weight * mean (P f_s - f_t)^2, where f is what the classifier consumes. As in timm, P is a
    linear layer with bias and PyTorch's own initialisation, and absent where the widths agree. It follows no paper;
    FitNet (arXiv 1412.6550) is the same for stages. Extra parameters: (D_s + 1) * D_t, or none.

    Attributes:
        weight: of the feature term; both weights are 1 in timm unless given.
        ce_weight: weight of the hard-label loss.
    """

    kind = "feature"

    search_space = {"weight": LogUniform(0.01, 100)}

    student_needs = teacher_needs = Needs(pooled=True)

    weight: float = 1.0
    ce_weight: float = 1.0

    def build(self, pair: Pair) -> None:
        student, teacher = pair.student.pooled_width, pair.teacher.pooled_width
        self.project = nn.Identity() if student == teacher else nn.Linear(student, teacher)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        return {
            "ce": self.ce_weight * batch.cross_entropy(student.logits),
            "feature": self.weight * F.mse_loss(self.project(student.pooled), teacher.pooled),
        }
