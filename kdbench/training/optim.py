"""Optimizer and schedule of a recipe, over a student and its method's projectors."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from timm.optim import create_optimizer_v2, param_groups_weight_decay  # pyright: ignore[reportPrivateImportUsage]
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from kdbench.suites.schema import Recipe


def build_optimizer(recipe: Recipe, student: nn.Module, method: nn.Module | None) -> torch.optim.Optimizer:
    """The recipe's optimizer; what a model or method names is free of weight decay, as are usually biases and norms."""
    groups: list[dict[str, Any]] = []
    for module in filter(None, (student, method)):
        if not any(parameter.requires_grad for parameter in module.parameters()):
            continue
        free = tuple(module.no_weight_decay()) if hasattr(module, "no_weight_decay") else ()  # type: ignore[operator]
        if recipe.decay_vectors:
            groups += _groups(module, recipe.weight_decay, free)
        else:
            groups += param_groups_weight_decay(module, recipe.weight_decay, no_weight_decay_list=free)
    # timm's "sgd" is Nesterov momentum, "momentum" the plain one.
    arguments: dict[str, Any] = {"fused": True} if recipe.optimizer != "lamb" else {}
    if recipe.optimizer in ("sgd", "momentum"):
        arguments["momentum"] = recipe.momentum
    optimizer = create_optimizer_v2(groups, opt=recipe.optimizer, lr=recipe.lr, **arguments)
    if arguments.get("momentum"):
        # torch's fused SGD fails where the first gradient of a parameter comes later than those of the others. A step
        # from momenta of zero is the same as one without.
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def _groups(module: nn.Module, weight_decay: float, free: Sequence[str]) -> list[dict[str, Any]]:
    """All trainable parameters with weight decay, but those named in `free`."""
    trainable = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    spared = [parameter for name, parameter in trainable.items() if name in free]
    decayed = [parameter for name, parameter in trainable.items() if name not in free]
    groups = ({"params": decayed, "weight_decay": weight_decay}, {"params": spared, "weight_decay": 0.0})
    return [group for group in groups if group["params"]]


def build_scheduler(recipe: Recipe, optimizer: torch.optim.Optimizer, steps_per_epoch: int) -> LambdaLR:
    """The recipe's learning-rate schedule; its `step` is to be called after every training step."""
    return LambdaLR(optimizer, lambda step: learning_rate(recipe, step / steps_per_epoch) / recipe.lr)


def learning_rate(recipe: Recipe, epoch: float) -> float:
    """The learning rate when `epoch` epochs (and the fraction of the running one) are done.

    A linear warm-up from `warmup_lr` takes the place of the first epochs, the schedule runs underneath, as in timm.
    """
    if recipe.schedule_by == "epoch":
        epoch = math.floor(epoch)
    if epoch < recipe.warmup_epochs:
        return recipe.warmup_lr + (recipe.lr - recipe.warmup_lr) * epoch / recipe.warmup_epochs
    if recipe.schedule == "cosine":
        share = min(1.0, epoch / recipe.epochs)
        return recipe.min_lr + 0.5 * (recipe.lr - recipe.min_lr) * (1 + math.cos(math.pi * share))
    if recipe.schedule == "step":
        return recipe.lr * recipe.decay ** sum(epoch >= milestone for milestone in recipe.milestones)
    return recipe.lr
