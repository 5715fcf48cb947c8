"""Optimizer and schedule of a recipe, over a student and its method's projectors."""

from typing import Any

import torch
from timm.optim import create_optimizer_v2, param_groups_weight_decay  # pyright: ignore[reportPrivateImportUsage]
from timm.scheduler import create_scheduler_v2  # pyright: ignore[reportPrivateImportUsage]
from timm.scheduler.scheduler import Scheduler
from torch import nn

from kdbench.suites.schema import Recipe


def build_optimizer(recipe: Recipe, student: nn.Module, method: nn.Module | None) -> torch.optim.Optimizer:
    """The recipe's optimizer; biases, norms and what a model or method names are free of weight decay."""
    groups: list[dict[str, Any]] = []
    for module in filter(None, (student, method)):
        if not any(parameter.requires_grad for parameter in module.parameters()):
            continue
        free = module.no_weight_decay() if hasattr(module, "no_weight_decay") else ()  # type: ignore[operator]
        groups += param_groups_weight_decay(module, recipe.weight_decay, no_weight_decay_list=tuple(free))
    # timm's "sgd" is Nesterov momentum, "momentum" the plain one.
    arguments: dict[str, Any] = {"fused": True} if recipe.optimizer != "lamb" else {}
    if recipe.optimizer in ("sgd", "momentum"):
        arguments["momentum"] = recipe.momentum
    return create_optimizer_v2(groups, opt=recipe.optimizer, lr=recipe.lr, **arguments)


def build_scheduler(recipe: Recipe, optimizer: torch.optim.Optimizer, steps_per_epoch: int) -> Scheduler:
    """The recipe's learning-rate schedule; `step_update` is to be called after every step, `step` after every epoch."""
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched={"cosine": "cosine", "step": "multistep", "constant": "multistep"}[recipe.schedule],
        num_epochs=recipe.epochs,
        decay_milestones=list(recipe.milestones) if recipe.schedule == "step" else [recipe.epochs],
        decay_rate=recipe.decay,
        min_lr=recipe.min_lr,
        warmup_epochs=recipe.warmup_epochs,
        warmup_lr=recipe.warmup_lr,
        warmup_prefix=False,
        step_on_epochs=recipe.schedule_by == "epoch",
        updates_per_epoch=steps_per_epoch,
    )
    assert scheduler is not None
    return scheduler
