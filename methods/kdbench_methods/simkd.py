"""SimKD: the student learns the teacher's last feature and answers with the teacher's classifier."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from kdbench.method import Batch, Choice, LogUniform, Method, Needs, Outputs, Pair, count_parameters
from kdbench_methods.parts.projectors import activation_of, conv_norm, init_projector, probe


class SimKD(Method):
    """SimKD: the teacher's classifier is used again, on the student's projected feature (arXiv 2203.14001, section 3).

    L = weight * mean (P(F_s) - F_t)^2 + ce_weight * CE on the last stage's maps, both pooled to the smaller grid; P is
    conv1x1 to D_t / factor, conv3x3, conv1x1 to D_t, each with batch norm and ReLU. The prediction is
    W_t mean(P(F_s)) + b_t.

    Defaults are those of the released code (ce_weight 0: the student's own classifier learns nothing). It is of CNNs
    whose classifier takes the mean of the last map, which is never negative. What a teacher of another kind has between
    the two (a norm before or after pooling, a class token) the projector has to learn with the rest, else the
    classifier would be fed what it was never trained on: where a probe says that the pooled feature is not the mean of
    the last map, mean(P(F_s)) is regressed onto the pooled feature, on the student's grid. P ends without ReLU where
    the target can be negative. Refused where the teacher has no classifier that takes its pooled feature alone.

    Open division: the projector and the teacher's classifier are needed at inference. With m = D_t / factor that is
    C_s * m + 9 * m^2 + m * D_t + 4 * m + 2 * D_t and the classifier; all but the classifier is trained.

    Attributes:
        ce_weight, weight: weights of the terms.
        factor: by which the projector is narrower than the teacher's feature (f).
    """

    kind = "feature"
    paper = "arXiv 2203.14001"
    venue = "CVPR 2022"
    published = ("SimKD(f=2)",)
    differs = "answers through a projector and the teacher's classifier"

    search_space = {"weight": LogUniform(0.1, 10), "factor": Choice((2, 4, 8))}

    ce_weight: float = 0.0
    weight: float = 1.0
    factor: Annotated[int, Field(ge=1)] = 2

    student_needs = inference_needs = Needs(stages=frozenset({4}))

    def build(self, pair: Pair) -> None:
        outputs = probe(pair.teacher, Needs(stages=frozenset({4}), pooled=True))
        last, pooled = outputs.stages[4].map, outputs.pooled
        # A teacher without such a classifier is refused here.
        pair.teacher.classify(pooled)
        mean = last.mean(dim=(2, 3))
        self._onto_map = mean.shape == pooled.shape and torch.allclose(mean, pooled, rtol=1e-3, atol=1e-5)
        self.teacher_needs = Needs(stages=frozenset({4})) if self._onto_map else Needs(pooled=True)
        channels, hidden = pooled.shape[1], max(pooled.shape[1] // self.factor, 1)
        self.project = nn.Sequential(
            conv_norm(pair.student.stages[4].channels, hidden),
            conv_norm(hidden, hidden, kernel=3),
            conv_norm(hidden, channels, activation=activation_of(last if self._onto_map else pooled)),
        )
        init_projector(self)
        height, width = pair.student.stages[4].grid
        if self._onto_map:
            height, width = min(height, last.shape[2]), min(width, last.shape[3])
        self._grid = height, width
        classifier = pair.teacher.model.get_classifier()  # type: ignore[operator]
        self.inference_parameters = count_parameters(self.project, classifier)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        feature = self._projected(student)
        if self._onto_map:
            loss = F.mse_loss(feature, F.adaptive_avg_pool2d(teacher.stages[4].map, self._grid))
        else:
            loss = F.mse_loss(feature.mean(dim=(2, 3)), teacher.pooled)
        return {"ce": self.ce_weight * batch.cross_entropy(student.logits), "simkd": self.weight * loss}

    def predict(self, student: Outputs) -> Tensor:
        return self.pair.teacher.classify(self._projected(student).mean(dim=(2, 3)))

    def _projected(self, student: Outputs) -> Tensor:
        return self.project(F.adaptive_avg_pool2d(student.stages[4].map, self._grid))
