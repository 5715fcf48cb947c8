"""FCFD: features of one network are run through the rest of the other, and must come out as the teacher's."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from kdbench.method import (
    Batch,
    Feature,
    LogUniform,
    Method,
    Needs,
    Outputs,
    Pair,
    StagedModel,
    UnsupportedPair,
)
from kdbench_methods.parts.losses import kl_divergence, warm_up
from kdbench_methods.parts.projectors import activation_of, common_stages, init_projector, probe


class FCFD(Method):
    """FCFD: function-consistent feature distillation (Liu et al., arXiv 2304.11832, section 3).

    A path runs one network up to a stage, a bridge there, and the other network from there on; `paths` of all are drawn
    for each batch. With z_m the logits of a path m and r the ramp min(1, (epoch + 1) / warmup_epochs),

        L = ce_weight * CE + kd_weight * T^2 KL(z_t, z_s) + path_weight * sum_m T^2 KL(z_t, z_m)
            + feature_weight * r * sum_k sum_x mean (x - F_t,k)^2

    where x are all features that there are in the teacher's place at stage k: the student's behind its bridge, and
    those that paths have brought there through the teacher. At stage 4 their means over the grid are compared, too.
    A bridge is a 3x3 convolution (with a stride, or transposed, where the grids differ), batch norm and, where the
    target is never negative, a leaky ReLU. Costs 9 * C_s * C_t parameters a bridge and, a step, two passes through
    parts of the networks. Both have to be resumable behind their stages and without class tokens, which no bridge
    makes; their grids whole multiples of each other.

    Defaults are the released code's for ResNet34 -> ResNet18 on ImageNet (5 for ResNet50 -> MobileNet), the `crd`
    preset its CIFAR-100 configuration. A path's batch-norm statistics are kept apart there and are of no use at
    inference; here they are not kept.

    Attributes:
        stages: where paths may change the network; `crd` has the three groups of residual blocks, without the stem.
        paths: how many are drawn.
        temperature: T.
        warmup_epochs: of the ramp; 0 is none.
        kd_weight, path_weight, feature_weight: weights of the terms; with a path_weight of 0 no path is run.
        ce_weight: weight of the hard-label loss.
    """

    kind = "feature"
    paper = "arXiv 2304.11832"
    venue = "ICLR 2023"
    presets = {"crd": {"stages": (2, 3, 4), "temperature": 4.0, "feature_weight": 5.0, "warmup_epochs": 20}}

    search_space = {"path_weight": LogUniform(0.1, 10), "feature_weight": LogUniform(0.01, 30)}

    stages: tuple[Annotated[int, Field(ge=1, le=4)], ...] = (1, 2, 3, 4)
    paths: Annotated[int, Field(ge=1)] = 2
    temperature: Annotated[float, Field(gt=0)] = 1.0
    warmup_epochs: Annotated[int, Field(ge=0)] = 0
    ce_weight: float = 1.0
    kd_weight: float = 1.0
    path_weight: float = 1.0
    feature_weight: float = 0.02

    def build(self, pair: Pair) -> None:
        student, teacher = pair.student, pair.teacher
        self._stages = common_stages(pair, self.stages)
        if self._stages[-1] != 4 or len(self._stages) < 2:
            raise UnsupportedPair(f"paths lead from a stage to stage 4, and the networks share {tuple(self._stages)}")
        if any(info.prefix for model in (student, teacher) for info in model.stages.values()):
            raise UnsupportedPair("a bridge makes no class token, and one of the networks has some")
        for model in (student, teacher):
            # What cannot be run from stage to stage, and on to the end, is refused here.
            for k in sorted(model.stages):
                if self._stages[0] <= k < 4:
                    model.segment(k)
            if model.stages[4].tap is not None:
                model.tail(4)
        self.to_teacher = _bridges(student, teacher, self._stages)
        self.to_student = _bridges(teacher, student, self._stages[:-1])
        # A stream of its own on the host, the same in all processes: to read the device would wait for it.
        self._random = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        self._paths = [(k, ahead) for k in self._stages[:-1] for ahead in (False, True)]
        self._rectified = activation_of(probe(teacher, Needs(stages=frozenset({4}))).stages[4].map) is nn.ReLU
        self.starved = {"to_student": "a path through it is drawn now and then"}
        if not (self.path_weight or self.feature_weight):
            self.starved["to_teacher"] = "its weights are 0"
        self.student_needs = self.teacher_needs = Needs(stages=frozenset(self._stages))

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        arrived = {k: [self.to_teacher[str(k)](student.stages[k].map)] for k in self._stages}
        mixed = []
        for k, student_first in self.drawn() if self.path_weight else ():
            if student_first:
                passed, logits = _run_on(self.pair.teacher, k, arrived[k][0])
                for stage in passed.keys() & arrived.keys():
                    arrived[stage].append(passed[stage])
            else:
                _, logits = _run_on(self.pair.student, k, self.to_student[str(k)](teacher.stages[k].map))
            mixed.append(kl_divergence(logits, teacher.logits, self.temperature))
        errors = [F.mse_loss(x, teacher.stages[k].map) for k, features in arrived.items() for x in features]
        means = [self._mean(x) for x in arrived[4]]
        errors += [F.mse_loss(x, self._mean(teacher.stages[4].map)) for x in means]
        ramp = warm_up(batch, self.warmup_epochs)
        terms = {
            "ce": self.ce_weight * batch.cross_entropy(student.logits),
            "kd": self.kd_weight * kl_divergence(student.logits, teacher.logits, self.temperature),
            "feature": self.feature_weight * ramp * torch.stack(errors).sum(),
        }
        return terms | ({"paths": self.path_weight * torch.stack(mixed).sum()} if mixed else {})

    def get_extra_state(self) -> Tensor:
        return self._random.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        self._random.set_state(state.cpu())

    def drawn(self) -> list[tuple[int, bool]]:
        """Some of the paths: the stage, and whether the student comes first."""
        order = torch.randperm(len(self._paths), generator=self._random)
        return [self._paths[number] for number in order[: self.paths].tolist()]

    def _mean(self, last: Tensor) -> Tensor:
        """The mean (B, C) of a stage-4 map, rectified where the teacher's is."""
        return (last.relu() if self._rectified else last).mean(dim=(2, 3))


def _run_on(model: StagedModel, stage: int, feature: Tensor) -> tuple[dict[int, Tensor], Tensor]:
    """The maps of the stages that follow `stage`, whose map is given, and the logits.

    Raises:
        UnsupportedPair: the network cannot be resumed there.
    """
    state, passed = Feature(feature, None, model.stages[stage].layout), {}
    while stage != 4:
        segment = model.segment(stage)
        state, stage = segment(state.map), segment.following
        passed[stage] = state.map
    return passed, model.finish(state).logits


def _bridges(source: StagedModel, target: StagedModel, stages: list[int]) -> nn.ModuleDict:
    """From the maps of one network's stages to those of the other's.

    Raises:
        UnsupportedPair: a grid is no whole multiple of the other.
    """
    bridges = nn.ModuleDict()
    like = probe(target, Needs(stages=frozenset(stages))).stages
    for k in stages:
        (height, width), (tall, wide) = source.stages[k].grid, target.stages[k].grid
        down, up = height // tall, tall // height
        channels = source.stages[k].channels, target.stages[k].channels
        if (height, width) == (down * tall, down * wide):
            conv: nn.Module = nn.Conv2d(*channels, 3, stride=down, padding=1, bias=False)
        elif (tall, wide) == (up * height, up * width):
            half = up // 2
            conv = nn.ConvTranspose2d(*channels, up + 2 * half, stride=up, padding=half, bias=False)
        else:
            raise UnsupportedPair(f"no bridge at stage {k}: {height}x{width} cells to {tall}x{wide}")
        rectified = activation_of(like[k].map) is nn.ReLU
        end = nn.LeakyReLU(0.1) if rectified else nn.Identity()
        bridges[str(k)] = nn.Sequential(conv, nn.BatchNorm2d(channels[1]), end)
    init_projector(bridges)
    return bridges
