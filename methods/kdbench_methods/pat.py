"""PAT: the teacher's stages are prompted with what the student does not follow; regions of all stages attend."""

import math
from typing import Annotated

import torch
from pydantic import Field
from timm.layers.squeeze_excite import SEModule
from torch import Tensor, nn

from kdbench.method import Batch, Feature, LogUniform, Method, Needs, Outputs, Pair, StageInfo, UnsupportedPair
from kdbench_methods.parts.feature_losses import context_loss
from kdbench_methods.parts.losses import kl_divergence
from kdbench_methods.parts.regions import RegionAttention, aligner


class PAT(Method):
    """PAT: a teacher prompted by the student's gap to it, and regions of all stages (Lin et al., arXiv 2501.08885).

    S_k, the student in the format of stage k, comes from one attention over regions of all its stages and an aligner.
    T_k, the prompted teacher, enters stage k with T_{k-1} + beta_k * Prompt(Fuse[T_{k-1}, align(gap_k)]), beta_k = 0
    at first, gap_k = S_k - T_k of the previous batch, a constant. Gradients pass through the frozen teacher. With z_t
    of the teacher as it is and z' of the prompted one,

        L = ce_weight * CE + kd_weight * KL(z_t, z_s) + hint_weight * sum_k HCL(S_k, T_k) + prompt_weight * KL(z_t, z')

    Defaults are those of the released code (jimmylin0979/PAT), which the modules follow but for its defects: positions
    count regions (code: images of the batch); squeeze-and-excitation multiplies by its gate, as in the paper's source
    of it (code: returns the gate); class tokens pass a prompt by, and no loss sees them (code: takes the last patch for
    the class token, and hands prompted tokens on in another order). Deviations of ours: prompts are where the teacher
    can be entered in general, behind its first stage and those after it (code: before the first one, too, and in a Swin
    behind the down-sampling); the teacher is in evaluation mode (code: training mode); the first gap is zero, and a
    batch of another size takes gaps in turn. Costs a second pass through the teacher, with gradients, 5x5 convolutions
    of its full width and the attention.

    Attributes:
        side: regions per side of a stage; 4 stages of 4 x 4 are the code's 64 queries.
        width: of a region; the proxy's networks are narrower than the code's 512, and so are its regions.
        heads: of the attention.
        ce_weight, kd_weight, hint_weight, prompt_weight: weights of the terms; on the proxy that of the hint is 0.1,
            as with 1 some students of an MLP diverge there: the gap grows through its own prompt.
    """

    aliases = ("fofa",)
    kind = "feature"
    paper = "arXiv 2501.08885"
    venue = "ICCV 2025"
    published = ("PAT",)
    presets = {"proxy": {"width": 64, "hint_weight": 0.1}}

    search_space = {
        "kd_weight": LogUniform(0.1, 10),
        "hint_weight": LogUniform(0.01, 10),
        "prompt_weight": LogUniform(0.1, 10),
    }

    side: Annotated[int, Field(ge=1)] = 4
    width: Annotated[int, Field(ge=2, multiple_of=2)] = 512
    heads: Annotated[int, Field(ge=1)] = 8
    ce_weight: float = 1.0
    kd_weight: float = 1.0
    hint_weight: float = 1.0
    prompt_weight: float = 1.0

    def build(self, pair: Pair) -> None:
        infos = pair.teacher.stages
        self._stages = sorted({*pair.student.stages} & {*infos})
        if len(self._stages) < 2:
            raise UnsupportedPair("it prompts a stage that follows another, and the two networks share fewer than two")
        if self.width % self.heads:
            raise UnsupportedPair(f"a width of {self.width} cannot be shared by {self.heads} heads")
        self._segments = [pair.teacher.segment(k) for k in self._stages[:-1]]
        own = [pair.student.stages[k] for k in self._stages]
        self.attention = RegionAttention(own, self.side, self.width, self.heads)
        grid = self.side, self.side
        self.aligners = nn.ModuleList(aligner(self.width, grid, infos[k]) for k in self._stages)
        self.prompts = nn.ModuleList(Prompt(infos[s.stage], infos[s.following]) for s in self._segments)
        gates = (name for name, part in self.named_modules() if isinstance(part, SEModule))
        self.starved = dict.fromkeys(gates, "a ReLU of few units may rest for all images")
        self._gaps: list[Tensor] = []
        self.student_needs = self.teacher_needs = Needs(stages=frozenset(self._stages))

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        targets = self._prompted([teacher.stages[k] for k in self._stages])
        regions = self.attention([student.stages[k].map for k in self._stages])
        aligned = [align(x) for align, x in zip(self.aligners, regions, strict=True)]
        pairs = list(zip(aligned, (target.map for target in targets), strict=True))
        self._gaps = [(mine - theirs).detach() for mine, theirs in pairs[1:]]
        prompted = self.pair.teacher.finish(targets[-1]).logits
        return {
            "ce": self.ce_weight * batch.cross_entropy(student.logits),
            "kd": self.kd_weight * kl_divergence(student.logits, teacher.logits),
            "hint": self.hint_weight * torch.stack([context_loss(*both) for both in pairs]).sum(),
            "prompt": self.prompt_weight * kl_divergence(prompted, teacher.logits),
        }

    def get_extra_state(self) -> list[Tensor]:
        return self._gaps

    def set_extra_state(self, state: list[Tensor]) -> None:
        self._gaps = state

    def _prompted(self, stages: list[Feature]) -> list[Feature]:
        """What the teacher's stages become when each but the first is entered through its prompt."""
        gaps = self._gaps or [torch.zeros_like(stage.map) for stage in stages[1:]]
        turn = torch.arange(len(stages[0].map), device=stages[0].map.device) % len(gaps[0])
        found = stages[:1]
        for segment, prompt, gap in zip(self._segments, self.prompts, gaps, strict=True):
            entering = prompt(found[-1].map, gap[turn])
            found.append(segment(entering, found[-1].prefix))
        return found


class Prompt(nn.Module):
    """Adds to a feature what a fusion of it with the gap at the next stage suggests; nothing at first."""

    def __init__(self, entering: StageInfo, gap: StageInfo) -> None:
        super().__init__()
        width, groups = entering.channels, math.gcd(4, entering.channels)
        alike = (entering.channels, entering.grid) == (gap.channels, gap.grid)
        self.align = nn.Identity() if alike else aligner(gap.channels, gap.grid, entering)
        self.fuse = nn.Sequential(
            nn.Conv2d(2 * width, width, 1),
            nn.Conv2d(width, width, 5, padding=2),
            nn.Conv2d(width, width, 1),
            SEModule(width, rd_channels=max(4, width // 16)),
            nn.Conv2d(width, width, 1),
        )
        self.prompt = nn.Sequential(
            nn.Conv2d(width, width, 1, groups=groups),
            nn.Conv2d(width, width, 5, padding=2, groups=width),
            nn.Conv2d(width, width, 1),
            SEModule(width, rd_channels=max(4, width // 16)),
            nn.Conv2d(width, width, 1, groups=groups),
        )
        self.beta = nn.Parameter(torch.zeros(1))

    def forward(self, feature: Tensor, gap: Tensor) -> Tensor:
        fused = self.fuse(torch.cat([feature, self.align(gap)], dim=1))
        return feature + self.beta * self.prompt(fused)
