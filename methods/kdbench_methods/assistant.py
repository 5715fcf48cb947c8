"""Hybrid assistant: the first three stages of one network, a local-to-global projector, the last stage of the other."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Literal

import torch
from pydantic import Field
from timm.models.swin_transformer import SwinTransformerBlock
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
    StageInfo,
    Tail,
    Uniform,
)
from kdbench_methods.parts.contrastive import InfoNCE
from kdbench_methods.parts.losses import ofa_loss
from kdbench_methods.parts.projectors import init_projector

NotNegative = Annotated[float, Field(ge=0)]


class Assistant(Method):
    """Hybrid assistant (TAS / FBT): teacher, assistant and student teach each other down, logits and pooled features.

    Source: arXiv 2410.12342. The assistant runs stages 1-3 of the CNN of the pair (without one, of the student), a
    local-to-global projector (patch embedding + Swin block) and the other network's stage 4 with its classifier; it
    shares the networks' modules, so that only the projector is new. Over the paths teacher -> student, teacher ->
    assistant, assistant -> student:

        L = ce_weight * CE + sum_path w_path * [nce_weight * InfoNCE(f_i, f_j) + ofa_weight * OFA(z_i, z_j)]

    The paper leaves much open to those who had only its summaries; every such choice is an option here, its default
    the most plausible reading. Stages 1-3 are not run twice: the network's own activations are taken.

    Attributes:
        order: whose stages 1-3 come first; `auto` is the CNN's, and the student's where none or both are CNNs.
        teacher_tail: `frozen` uses the teacher's stage 4 in place, `trained` a trainable copy of it.
        tail_entry: enter stage 4 behind its down-sampling (timm 0.6.5's stage 4 of a Swin) or before it.
        share_grad: the assistant's losses reach the student's modules in it.
        sg_target: the first of a path is a fixed target.
        path_weights: of teacher -> student, teacher -> assistant, assistant -> student.
        ce_weight: hard-label loss of the student.
        assistant_ce: hard-label loss of the assistant.
        nce_weight, ofa_weight: weights within a path.
        nce_proj: map between feature widths: `linear` (student's to teacher's width, none where they agree), `mlp` (the
            same with one hidden layer), `embed128` (both to 128, as in CRD).
        nce_symmetric: both directions of the contrast.
        nce_gather: negatives from all processes of a distributed run.
        tau_init: first value of the learnable InfoNCE temperature.
        tau_shared: one temperature for all paths, else one for each.
        gamma: modulation of the OFA loss.
        cls_mode: class token of a tail that has one: `learned`, `mean_token` (mean of the projected tokens), or
            `patch_mean` (learned, but the mean of the final patch tokens is read out).
    """

    aliases = ("tas", "fbt")
    kind = "contrastive"
    paper = "arXiv 2410.12342"
    venue = "ICCV 2025"
    published = ("FBT", "TAS")

    search_space = {
        "nce_weight": LogUniform(0.01, 10),
        "ofa_weight": LogUniform(0.1, 10),
        "gamma": Uniform(1.0, 1.5),
    }

    order: Literal["auto", "student_first", "teacher_first"] = "auto"
    teacher_tail: Literal["frozen", "trained"] = "frozen"
    tail_entry: Literal["downsampled", "stage"] = "downsampled"
    share_grad: bool = True
    sg_target: bool = True
    path_weights: tuple[NotNegative, NotNegative, NotNegative] = (1.0, 1.0, 1.0)
    ce_weight: NotNegative = 1.0
    assistant_ce: NotNegative = 0.0
    nce_weight: NotNegative = 1.0
    ofa_weight: NotNegative = 1.0
    nce_proj: Literal["linear", "mlp", "embed128"] = "linear"
    nce_symmetric: bool = False
    nce_gather: bool = True
    tau_init: Annotated[float, Field(gt=0)] = 0.07
    tau_shared: bool = False
    gamma: Annotated[float, Field(gt=0)] = 1.0
    cls_mode: Literal["learned", "mean_token", "patch_mean"] = "learned"

    def build(self, pair: Pair) -> None:
        self._student_first = self._is_student_first(pair)
        first, last = (pair.student, pair.teacher) if self._student_first else (pair.teacher, pair.student)
        if self._student_first and self.teacher_tail == "trained":
            last = self.trained_tail = _trainable_copy(last, self.tail_entry)
        self._tail = last.tail(3, self.tail_entry)
        self.bridge = LocalToGlobal(first.stages[3], self._tail, self.cls_mode)
        widths = pair.student.pooled_width, pair.teacher.pooled_width
        self.student_embed, self.teacher_embed = _embeddings(self.nce_proj, *widths)
        self.contrasts = nn.ModuleList(
            InfoNCE(self.tau_init, self.nce_symmetric, self.nce_gather) for _ in range(1 if self.tau_shared else 3)
        )
        self.starved = self._starved()
        third = Needs(stages=frozenset({3}), pooled=True)
        self.student_needs = third if self._student_first else Needs(pooled=True)
        self.teacher_needs = Needs(pooled=True) if self._student_first else third

    def _starved(self) -> dict[str, str]:
        """What the chosen paths and weights leave without a gradient."""
        starved: dict[str, str] = {}
        direct, to_assistant, to_student = self.path_weights
        if not (to_assistant or self.assistant_ce or (to_student and not self.sg_target)):
            starved |= dict.fromkeys(("bridge", "trained_tail"), "no loss reaches the assistant")
        if not self.nce_weight:
            starved |= dict.fromkeys(("contrasts", "student_embed", "teacher_embed"), "there is no contrast")
        if self.sg_target and not (self._student_first and to_assistant):
            starved["teacher_embed"] = "it only makes fixed targets"
        if not (direct or to_student):
            starved["student_embed"] = "the student is on no path"
        if not self.tau_shared:
            unused = [number for number, weight in enumerate(self.path_weights) if not weight]
            starved |= {f"contrasts.{number}": "its path has weight 0" for number in unused}
        if self._tail.grid == (1, 1):
            # A single token attends to itself with weight 1, whatever the logits of its attention are.
            for where in ("bridge.block.attn.relative_position_bias_table", "trained_tail"):
                starved.setdefault(where, "the tail's grid is a single token")
        return starved

    def no_weight_decay(self) -> set[str]:
        return {name for name, _ in self.named_parameters() if name.endswith(("log_scale", "prefix"))}

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        assistant = self.assist(student, teacher)
        embed_f = self.teacher_embed if self._student_first else self.student_embed
        members = {
            "t": (self.teacher_embed(teacher.pooled), teacher.logits),
            "f": (embed_f(assistant.pooled), assistant.logits),
            "s": (self.student_embed(student.pooled), student.logits),
        }
        terms = {"ce": self.ce_weight * batch.cross_entropy(student.logits)}
        if self.assistant_ce:
            terms["ce f"] = self.assistant_ce * batch.cross_entropy(assistant.logits)
        for number, (source, target) in enumerate(("ts", "tf", "fs")):
            weight = self.path_weights[number]
            if not weight:
                continue
            feature_i, logits_i = members[source]
            feature_j, logits_j = members[target]
            if self.sg_target:
                feature_i, logits_i = feature_i.detach(), logits_i.detach()
            if self.nce_weight:
                contrast = self.contrasts[0 if self.tau_shared else number]
                terms[f"nce {source}-{target}"] = weight * self.nce_weight * contrast(feature_j, feature_i)
            if self.ofa_weight:
                loss = ofa_loss(logits_j, logits_i, batch.labels, self.gamma)
                terms[f"ofa {source}-{target}"] = weight * self.ofa_weight * loss
        return terms

    def assist(self, student: Outputs, teacher: Outputs) -> Outputs:
        """Pooled feature and logits of the assistant."""
        feature = (student if self._student_first else teacher).stages[3]
        if self._student_first and not self.share_grad:
            feature = Feature(feature.map.detach(), None, feature.layout)
        shares = [] if self.share_grad or self._student_first else self._tail.parameters()
        state, prefix = self.bridge(feature)
        with _without_grad(shares):
            final = self._tail.final(state, prefix)
            if self.cls_mode == "patch_mean" and prefix is not None:
                count = prefix.shape[1]
                mean = final[:, count:].mean(dim=1, keepdim=True)
                final = torch.cat([mean.expand(-1, count, -1), final[:, count:]], dim=1)
            return self._tail.head(final)

    def _is_student_first(self, pair: Pair) -> bool:
        if self.order != "auto":
            return self.order == "student_first"
        student_is_cnn, teacher_is_cnn = (m.stages[3].layout == "map" for m in (pair.student, pair.teacher))
        return student_is_cnn or not teacher_is_cnn


class LocalToGlobal(nn.Module):
    """L2G: a patch embedding brings a stage-3 feature to the tail's width and grid, a Swin block makes it global."""

    def __init__(self, source: StageInfo, tail: Tail, cls_mode: str) -> None:
        super().__init__()
        ratio = source.grid[0] // tail.grid[0]
        divides = ratio > 0 and source.grid == (ratio * tail.grid[0], ratio * tail.grid[1])
        kernel = ratio if divides else 1
        self.grid = tail.grid
        self.embed = nn.Conv2d(source.channels, tail.channels, kernel, stride=kernel)
        self.norm = nn.LayerNorm(tail.channels)
        # A tail without attention lends no number of heads: twelve, or the most that divide its width.
        heads = tail.num_heads or max(n for n in range(1, 13) if tail.channels % n == 0)
        window = max(n for n in range(1, 8) if tail.grid[0] % n == 0 and tail.grid[1] % n == 0)
        self.block = SwinTransformerBlock(tail.channels, tail.grid, num_heads=heads, window_size=window)
        init_projector(self)
        tokens = tail.prefix_tokens
        self.prefix = nn.Parameter(tokens.clone()) if tokens is not None and cls_mode != "mean_token" else None
        self._mean_tokens = tail.prefix if cls_mode == "mean_token" else 0

    def forward(self, feature: Feature) -> tuple[Tensor, Tensor | None]:
        """The state (B, C, *grid) that enters the tail, and its prefix tokens (B, P, C)."""
        x = self.embed(feature.map)
        if x.shape[-2:] != self.grid:
            x = F.interpolate(x, self.grid, mode="bilinear", align_corners=False)
        x = self.block(self.norm(x.permute(0, 2, 3, 1)))
        prefix = None
        if self.prefix is not None:
            prefix = self.prefix.expand(len(x), -1, -1)
        elif self._mean_tokens:
            prefix = x.mean(dim=(1, 2))[:, None].expand(-1, self._mean_tokens, -1)
        return x.permute(0, 3, 1, 2), prefix


def _embeddings(kind: str, student: int, teacher: int) -> tuple[nn.Module, nn.Module]:
    """Maps of the student's and the teacher's pooled feature into one space."""
    if kind == "embed128":
        maps: tuple[nn.Module, nn.Module] = (nn.Linear(student, 128), nn.Linear(teacher, 128))
    elif kind == "mlp":
        hidden = nn.Sequential(nn.Linear(student, teacher), nn.GELU(), nn.Linear(teacher, teacher))
        maps = (hidden, nn.Identity())
    else:
        maps = (
            nn.Identity() if student == teacher else nn.Linear(student, teacher, bias=False),
            nn.Identity(),
        )
    for module in maps:
        init_projector(module)
    return maps


def _trainable_copy(teacher: StagedModel, entry: Literal["stage", "downsampled"]) -> StagedModel:
    """A copy of the teacher of which only what lies behind stage 3 is trained."""
    twin = copy.deepcopy(teacher)
    twin.requires_grad_(True)
    behind = {id(parameter) for parameter in twin.tail(3, entry).parameters()}
    for parameter in twin.parameters():
        parameter.requires_grad_(id(parameter) in behind)
    return twin


@contextmanager
def _without_grad(parameters: list[nn.Parameter]) -> Iterator[None]:
    """The given parameters are constants for what is computed inside; gradients still flow past them."""
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
