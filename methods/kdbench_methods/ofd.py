"""OFD: regression onto the teacher's stages that lets the student be where the teacher's ReLU shuts."""

import math
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from kdbench.method import Batch, LogUniform, Method, Needs, Outputs, Pair, StagedModel, UnsupportedPair
from kdbench_methods.parts.projectors import common_grid, common_stages, init_projector, probe

Position = Literal["ahead", "behind", "rectified"]
"""Of a stage's output and the batch norm that gives its margin: before it, after it, after it and the ReLU."""


class OFD(Method):
    """OFD: partial L2 to the teacher's pre-ReLU features under a margin ReLU (Heo et al., arXiv 1904.01866, section 3).

    L = ce_weight * CE + weight * sum_k 2^(k - n) / B * sum d_p(r_k(F_s,k), max(F_t,k, m_k)), with d_p(s, t) = 0 where
    s <= t <= 0 and (s - t)^2 elsewhere, r_k a 1x1 convolution with batch norm, and m_k < 0, by channel, the mean of the
    negative responses, computed from scale and shift of the teacher's batch norm there. Where that norm follows the
    stage (pre-activation networks), it is applied first. For these, and where a stage ends in it, this is the authors'
    target.

    It is not for stages that have gone through their ReLU (timm's ResNets): what was negative is lost there, and m_k
    stands for all of it, also for what was between m_k and 0. The student's stages, too, are taken as they come. Grids
    that differ are pooled. The authors' scripts leave the teacher in training mode, with batch norm of the batch; here
    it is in evaluation mode, as for all methods. Teachers without batch norm at their stages are refused. Extra
    parameters: C_t * (C_s + 2) a stage.

    Attributes:
        stages: that are regressed on. `crd` has the three groups of residual blocks, without the stem.
        weight: 1e-4 at 224 px (authors, mdistiller), 1e-3 at 32 px; it belongs to a sum over the map.
        ce_weight: weight of the hard-label loss.
    """

    kind = "feature"
    paper = "arXiv 1904.01866"
    venue = "ICCV 2019"
    presets = {"crd": {"stages": (2, 3, 4), "weight": 1e-3}}

    search_space = {"weight": LogUniform(1e-6, 1e-2)}

    stages: tuple[Annotated[int, Field(ge=1, le=4)], ...] = (1, 2, 3, 4)
    weight: float = 1e-4
    ce_weight: float = 1.0

    def build(self, pair: Pair) -> None:
        stages = common_stages(pair, self.stages)
        norms = find_norms(pair.teacher, stages)
        widths = {k: pair.student.stages[k].channels for k in stages}
        self.regressions = nn.ModuleDict({str(k): Regression(widths[k], *norms[k]) for k in stages})
        self.student_needs = self.teacher_needs = Needs(stages=frozenset(stages))

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        losses = [r(student.stages[int(k)].map, teacher.stages[int(k)].map) for k, r in self.regressions.items()]
        halved = [loss / 2**above for above, loss in enumerate(reversed(losses))]
        return {
            "ce": self.ce_weight * batch.cross_entropy(student.logits),
            "partial": self.weight * torch.stack(halved).sum(),
        }


class Regression(nn.Module):
    """Connector of a stage, and the teacher's features as it is to meet them."""

    scale: Tensor
    shift: Tensor
    margin: Tensor

    def __init__(self, width: int, norm: nn.BatchNorm2d, position: Position) -> None:
        super().__init__()
        channels = norm.num_features
        self.connect = nn.Sequential(nn.Conv2d(width, channels, 1, bias=False), nn.BatchNorm2d(channels))
        init_projector(self.connect)
        self.position = position
        assert norm.running_mean is not None and norm.running_var is not None
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        shift = norm.bias - norm.running_mean * scale
        margin = negative_mean(norm.bias, norm.weight.abs())
        for name, values in (("scale", scale), ("shift", shift), ("margin", margin)):
            self.register_buffer(name, values.detach()[:, None, None].clone())

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        if self.position == "ahead":
            teacher = teacher * self.scale + self.shift
        negative = self.margin if self.position == "rectified" else torch.maximum(teacher, self.margin)
        target = torch.where(teacher > 0, teacher, negative)
        return partial_loss(*common_grid(self.connect(student), target))


def partial_loss(student: Tensor, target: Tensor) -> Tensor:
    """Squared errors (B, C, H, W) summed, mean over the batch; none where the student is below a negative target."""
    counts = (student > target) | (target > 0)
    return (F.mse_loss(student, target, reduction="none") * counts).sum() / len(student)


def negative_mean(mean: Tensor, std: Tensor) -> Tensor:
    """E[x | x < 0] of Gaussians; -3 std where fewer than one in a thousand are negative, as in the authors' code."""
    mean, std = mean.double(), std.double().clamp(min=1e-12)
    z = mean / std
    share = torch.special.ndtr(-z)
    tail = mean - std * torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi) / share
    return torch.where(share > 0.001, tail, -3 * std).float()


@torch.no_grad()
def find_norms(teacher: StagedModel, stages: list[int]) -> dict[int, tuple[nn.BatchNorm2d, Position]]:
    """For each stage the batch norm that its output enters, else the last one it comes out of; found by one pass.

    The last is that at the end of the residual, as in the authors' code; of the shortcut in a stage of one block.

    Raises:
        UnsupportedPair: there is none.
    """
    calls: list[tuple[nn.Module, tuple, Any]] = []
    handles = [m.register_forward_hook(lambda *call: calls.append(call)) for m in teacher.model.modules()]
    try:
        outputs = probe(teacher, Needs(frozenset(stages)))
    finally:
        for handle in handles:
            handle.remove()
    found: dict[int, tuple[nn.BatchNorm2d, Position]] = {}
    for k in stages:
        feature = outputs.stages[k].map
        last: nn.Module | None = None
        made = 1 + max((i for i, call in enumerate(calls) if call[2] is feature), default=-1)
        for module, _, output in calls[:made]:
            if isinstance(module, nn.BatchNorm2d | nn.Conv2d) and output.shape == feature.shape:
                last = module
        ahead = [m for m, inputs, _ in calls if isinstance(m, nn.BatchNorm2d) and inputs[0] is feature]
        norm = ahead[0] if ahead else last
        if not isinstance(norm, nn.BatchNorm2d) or not norm.affine or norm.running_mean is None:
            kind = type(teacher.model).__name__
            raise UnsupportedPair(f"OFD's margin is made of a batch norm, and stage {k} of a {kind} ends in none")
        found[k] = norm, "ahead" if ahead else "rectified" if feature.min() >= 0 else "behind"
    return found
