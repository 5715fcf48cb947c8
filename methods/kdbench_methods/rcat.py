"""RCAT: the student's last map learns the teacher's, is fused with what it learned, and class attention is matched."""

from typing import Annotated

import torch
from pydantic import Field
from timm.layers.squeeze_excite import SEModule
from torch import Tensor, nn
from torch.nn import functional as F

from kdbench.method import Batch, LogUniform, Method, Needs, Outputs, Pair, UnsupportedPair, count_parameters
from kdbench_methods.parts.projectors import conv_norm, init_projector, probe


class RCAT(Method):
    """RCAT: residual class attention transfer to a CNN, as its code has it (Flycattle/RCAT, 2025; no paper was found).

    On the teacher's grid, with F the student's last map there: A = LayerNorm(adapter(F)) in the teacher's width, X =
    ReLU(BN(F + attention(F, A))), Y = SE(X), z = V mean(Y). The adapter is conv1x1, conv3x3, conv1x1 with batch norm
    and GELU; the attention's queries are F, keys and values A. With T the teacher's last map, W its classifier, CAM(F,
    W) the class activation maps pooled to `side` x `side` cells and of length 1 over the classes, and random entries,

        L = ce_weight * CE(z) + feature_weight * (1 - cos(A, T)) + attention_weight * mean (CAM(Y, V) - CAM(T, W))^2

    Weights, widths and the share of entries are the code's. It has students of CNN kind alone; tokens are taken on
    their grid here. T is what the teacher's classifier pools, behind its last norm; refused where that is no mean or
    class token of a map of the pooled feature's width.

    Open division: adapter, attention, squeeze-and-excitation and V are needed at inference; the student's own
    classifier learns nothing.

    Attributes:
        width, attention_width, heads: of the adapter's middle and the attention.
        side: of the pooled class activation maps.
        share: of their entries that count in a step (rho).
        ce_weight, feature_weight, attention_weight: weights of the terms.
    """

    kind = "feature"
    paper = "code Flycattle/RCAT"
    venue = "2025"
    published = ("RCAT",)
    differs = "answers through a further attention block and a classifier of its own"

    search_space = {"feature_weight": LogUniform(1, 500), "attention_weight": LogUniform(1, 3000)}

    student_needs = inference_needs = Needs(stages=frozenset({4}))
    teacher_needs = Needs(stages=frozenset({4}))

    width: Annotated[int, Field(ge=1)] = 192
    attention_width: Annotated[int, Field(ge=1)] = 256
    heads: Annotated[int, Field(ge=1)] = 4
    side: Annotated[int, Field(ge=1)] = 4
    share: Annotated[float, Field(gt=0, le=1)] = 0.8
    ce_weight: float = 1.0
    feature_weight: float = 50.0
    attention_weight: float = 300.0

    _weight: Tensor

    def build(self, pair: Pair) -> None:
        last, channels = pair.teacher.stages[4], pair.student.stages[4].channels
        weight = getattr(pair.teacher.model.get_classifier(), "weight", None)  # type: ignore[operator]
        found = self._last(probe(pair.teacher, Needs(stages=frozenset({4})))).shape[1:]
        if found != (last.channels, *last.grid) or not isinstance(weight, Tensor) or weight[0].numel() != last.channels:
            kind = type(pair.teacher.model).__name__
            raise UnsupportedPair(f"{kind} has no classifier that takes the cells of its last map")
        if self.attention_width % self.heads:
            raise UnsupportedPair(f"a width of {self.attention_width} cannot be shared by {self.heads} heads")
        self.register_buffer("_weight", weight.detach().flatten(1), persistent=False)
        self.adapter = Adapter(channels, self.width, last.channels)
        self.fusion = CrossAttention(channels, last.channels, self.attention_width, self.heads)
        self.excite = SEModule(channels, rd_channels=max(channels // 16, 1), bias=False)
        init_projector(self)
        self.classifier = nn.Linear(channels, pair.task.num_classes)
        self.starved = {"excite": "a ReLU of few units may rest for all images"}
        self.inference_parameters = count_parameters(self)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        adapted, fused = self._fused(student)
        logits = self.classifier(fused.mean(dim=(2, 3)))
        target = self._last(teacher)
        cosine = F.cosine_similarity(adapted.flatten(1), target.flatten(1), dim=1)
        own = class_activations(fused, self.classifier.weight, self.side)
        theirs = class_activations(target, self._weight, self.side)
        errors, counts = (own - theirs).square(), torch.rand_like(own) < self.share
        return {
            "ce": self.ce_weight * batch.cross_entropy(logits),
            "feature": self.feature_weight * (1 - cosine).mean(),
            "attention": self.attention_weight * (errors * counts).sum() / counts.sum().clamp_min(1),
        }

    def predict(self, student: Outputs) -> Tensor:
        return self.classifier(self._fused(student)[1].mean(dim=(2, 3)))

    def _fused(self, student: Outputs) -> tuple[Tensor, Tensor]:
        """A and Y."""
        own = F.interpolate(
            student.stages[4].map, self.pair.teacher.stages[4].grid, mode="bilinear", align_corners=False
        )
        adapted = self.adapter(own)
        return adapted, self.excite(self.fusion(own, adapted))

    def _last(self, teacher: Outputs) -> Tensor:
        """T (B, C, H, W): the teacher's stage 4 behind what follows it, a last norm say."""
        feature, info = teacher.stages[4], self.pair.teacher.stages[4]
        if info.tap is None:
            return feature.map
        tail = self.pair.teacher.tail(4)
        final = tail.final(feature.map, feature.prefix)
        if final.ndim == 3:
            return final[:, info.prefix :].transpose(1, 2).unflatten(2, info.grid)
        return final.permute(0, 3, 1, 2) if tail.layout == "NHWC" else final


def class_activations(feature: Tensor, weight: Tensor, side: int) -> Tensor:
    """Class activation maps (B, classes, side, side) of a map (B, C, H, W), of length 1 over the classes.

    What is shorter than 0.001 is divided by that: a student whose feature is all but zero in the first steps would get
    gradients of any size.
    """
    maps = torch.einsum("bchw,kc->bkhw", feature, weight)
    return F.normalize(F.adaptive_avg_pool2d(maps, side), dim=1, eps=1e-3)


class Adapter(nn.Module):
    """conv1x1, conv3x3, conv1x1 with batch norm, GELU between them, and a LayerNorm over the channels."""

    def __init__(self, before: int, middle: int, after: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            conv_norm(before, middle, activation=nn.GELU),
            conv_norm(middle, middle, 3, nn.GELU),
            conv_norm(middle, after, activation=nn.Identity),
        )
        self.norm = nn.LayerNorm(after)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.convs(x).movedim(1, -1)).movedim(-1, 1)


class CrossAttention(nn.Module):
    """ReLU(BN(F + attention)): the cells of one map (B, C, H, W) ask those of another (B, C', H, W)."""

    def __init__(self, own: int, other: int, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Conv2d(own, width, 1, bias=False)
        self.key, self.value = (nn.Conv2d(other, width, 1, bias=False) for _ in range(2))
        self.leave, self.norm = nn.Conv2d(width, own, 1, bias=False), nn.BatchNorm2d(own)

    def forward(self, own: Tensor, other: Tensor) -> Tensor:
        query, key, value = (
            x.flatten(2).unflatten(1, (self.heads, -1)).transpose(2, 3)
            for x in (self.query(own), self.key(other), self.value(other))
        )
        gathered = F.scaled_dot_product_attention(query, key, value).transpose(2, 3).flatten(1, 2)
        return self.norm(self.leave(gathered.unflatten(2, own.shape[2:])) + own).relu()
