"""Results folders of invented numbers, written through `kdbench.results.folder` as a run writes them."""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kdbench.analysis.published import find_published
from kdbench.files import content_key, write_json
from kdbench.results.folder import CellId, Results
from kdbench.results.schema import SCHEMA, TIMING_PROTOCOL, PublishedNames, Role

METHODS = ["scratch", "kd", "fitnet", "ofa", "assistant"]
PAIRS = [
    *("vit-t:resnet-s", "swin-t:mobilenet-s", "mixer-t:resnet-s", "convnext-t:swin-n"),
    *("resnet-m:deit-n", "convnext-t:mlp-s", "resnet-m:resnet-s", "resnet-m:mobilenet-s"),
    *("vit-t:mobilenet-s", "swin-t:deit-n", "mixer-t:mlp-s", "convnext-t:vit-n"),
]
HOMO = ("resnet-m:resnet-s", "resnet-m:mobilenet-s", "mixer-t:mlp-s")
PUBLISHED = "ofa-300ep-224px"
"""A protocol of the published table, and the names that its models and methods go by there."""
PUBLISHED_MODELS = {"swin-t": "Swin-T", "vit-s": "ViT-S", "convnext-t": "ConvNeXt-T"} | {
    "resnet18": "ResNet18",
    "mobilenetv2": "MobileNetV2",
    "deit-t": "DeiT-T",
    "resmlp-s12": "ResMLP-S12",
    "swin-p": "Swin-P",
}
PUBLISHED_METHODS = {"scratch": ["scratch"], "kd": ["KD", "KD(T=4)"], "fitnet": ["FitNet"], "ofa": ["OFA"]} | {
    "assistant": ["FBT", "TAS"]
}
PUBLISHED_PAIRS = [
    *("swin-t:resnet18", "vit-s:resnet18", "vit-s:mobilenetv2"),
    *("convnext-t:deit-t", "convnext-t:resmlp-s12", "convnext-t:swin-p"),
]
ENVIRONMENT = "env0"
DATE = "2026-11-23"

Place = tuple[str, str]


@dataclass
class Plan:
    """What to invent: cells named in `missing` have no record, those in `broken` end in that status and error."""

    methods: list[str] = field(default_factory=lambda: list(METHODS))
    pairs: list[str] = field(default_factory=lambda: PAIRS[:3])
    seeds: int = 3
    epochs: int = 30
    throughput: bool = True
    roles: dict[str, Role] = field(default_factory=lambda: {"scratch": "control", "kd": "baseline"})
    missing: Collection[tuple[str, str, int]] = ()
    broken: dict[tuple[str, str, int], tuple[str, str]] = field(default_factory=dict)
    random_seed: int = 0
    protocol: str = "proxy/1"
    split: str = "test"
    best: bool = True
    """The test split was read for the learning curve; else that is of held-out images."""
    published: PublishedNames | None = None
    unclean: dict[str, list[str]] = field(default_factory=dict)
    """By pair, why its throughput was not measured on a clean machine."""
    differs: dict[str, str] = field(default_factory=dict)
    """Methods of the open division."""
    altered: dict[str, list[str]] = field(default_factory=dict)
    """Hyperparameters that are not the suite's, by method."""
    equal_time: dict[str, dict[str, int]] = field(default_factory=dict)
    """By pair and method, epochs of a longer trained control; its cells are another plan's (`Results.at_epochs`)."""
    levels: dict[Place, float] = field(default_factory=dict)
    """Top-1 to invent around, where not drawn."""


def published_plan(protocol: str = "cifar100/1", pairs: int = 6, seeds: int = 3, epochs: int = 30) -> Plan:
    """A study under a published protocol that comes near the published numbers, all but for one method."""
    names = PublishedNames(protocol=PUBLISHED, models=PUBLISHED_MODELS, methods=PUBLISHED_METHODS)
    chosen = PUBLISHED_PAIRS[:pairs]
    levels = {}
    for pair in chosen:
        teacher, student = (PUBLISHED_MODELS[end] for end in pair.split(":"))
        for method, labels in PUBLISHED_METHODS.items():
            rows = find_published(protocol=PUBLISHED, pairs=[(teacher, student), ("", student)], methods=labels)
            if rows:
                levels[pair, method] = rows[0].top1 - (3.0 if method == "assistant" else 0.0)
    return Plan(pairs=chosen, seeds=seeds, epochs=epochs, protocol=protocol, published=names, levels=levels)


def many_methods(count: int) -> list[str]:
    """Names for a study of `count` methods, the five known ones first."""
    extra = ["crd", "dist", "dkd", "rkd", "attention", "reviewkd", "simkd", "mgd", "vid", "at", "sp", "pkt", "ab"]
    extra += ["ft", "nst", "correlation", "semckd", "hierarchical-kd", "logit-standard", "decoupled-x", "mlkd"]
    return [*METHODS, *extra][:count]


def cell_key(pair: str, method: str, seed: int) -> str:
    return content_key([pair, method, seed])


def timing_key(pair: str, method: str) -> str:
    return content_key([pair, method, "timing"])


def write_results(folder: Path, plan: Plan) -> Results:
    """Write manifest, cells, throughput and environment of `plan` under `folder`."""
    results = Results(folder)
    random = np.random.default_rng(plan.random_seed)
    write_json(results.environment_path(ENVIRONMENT), environment())
    cells = [
        {"key": cell_key(pair, method, seed), "pair": pair, "method": method, "seed": seed}
        for pair in plan.pairs
        for method in plan.methods
        for seed in range(plan.seeds)
    ]
    manifest = {
        "schema": SCHEMA,
        "suite": "proxy",
        "protocol": plan.protocol,
        "command": "kdbench run --suite proxy --seeds 3",
        "methods": plan.methods,
        "pairs": plan.pairs,
        "seeds": list(range(plan.seeds)),
        "roles": {method: plan.roles.get(method, "method") for method in plan.methods},
        "hetero": [pair for pair in plan.pairs if pair not in HOMO],
        "cells": cells,
        "throughput": [
            {"key": timing_key(pair, method), "pair": pair, "method": method}
            for pair in plan.pairs
            for method in plan.methods
        ],
    }
    if plan.altered:
        manifest["altered"] = plan.altered
    if plan.equal_time:
        manifest["equal_time"] = plan.equal_time
    if plan.differs:
        manifest["differs"] = plan.differs
    if plan.published is not None:
        manifest["published"] = plan.published
    write_json(results.manifest_path, manifest)
    strength = {method: random.normal(1.0, 1.2) for method in plan.methods}
    speed = {method: random.uniform(0.3, 0.95) for method in plan.methods}
    for pair in plan.pairs:
        level = random.uniform(40, 70)
        for seed in range(plan.seeds):
            shared = random.normal(0, 0.5)
            for method in plan.methods:
                control = plan.roles.get(method) == "control"
                noise = 0.0 if control else random.normal(0, 0.5)
                centre = plan.levels.get((pair, method), level + (0.0 if control else strength[method]))
                _write_cell(results, plan, (pair, method, seed), centre + shared + noise, random)
        if plan.throughput:
            _write_throughput(results, plan, pair, speed, random)
    return results


def environment() -> dict[str, Any]:
    return {
        "kdbench": "0.1.0",
        "git": {"revision": "0123456789abcdef", "dirty": False},
        "python": "3.11.7",
        "torch": "2.9.0",
        "timm": "1.0.22",
        "device": "cpu: AMD EPYC 9B14",
        "cores": 2,
        "threads": 2,
        "precision": "fp32",
        "variables": {"OMP_NUM_THREADS": "2"},
    }


def cell_record(plan: Plan, cell: tuple[str, str, int]) -> dict[str, Any]:
    """A record without the fields of a finished one."""
    pair, method, seed = cell
    teacher, student = pair.split(":")
    model = {"timm": "some_timm_model", "kind": "cnn"}
    return {
        "schema": SCHEMA,
        "key": cell_key(pair, method, seed),
        "suite": "proxy",
        "protocol": plan.protocol,
        "pair": pair,
        "hetero": pair not in HOMO,
        "teacher": {"name": teacher, **model, "parameters": 900_000, "sha256": "ab" * 32, "top1": 71.25},
        "student": {"name": student, **model, "parameters": 250_000},
        "method": method,
        "role": plan.roles.get(method, "method"),
        "hyperparameters": {},
        "preset": None,
        "seed": seed,
        "split": plan.split,
        "status": "done",
        "error": None,
        "environment": ENVIRONMENT,
        "date": DATE,
    }


def _write_cell(
    results: Results, plan: Plan, cell: tuple[str, str, int], top1: float, random: np.random.Generator
) -> None:
    if cell in plan.missing:
        return
    pair, method, seed = cell
    record = cell_record(plan, cell)
    if cell in plan.broken:
        record["status"], record["error"] = plan.broken[cell]
    else:
        epochs = np.arange(1, plan.epochs + 1)
        curve = top1 * (1 - np.exp(-5 * epochs / plan.epochs)) + random.normal(0, 0.4, len(epochs))
        curve[-1] = top1
        record |= {
            "top1": top1,
            "top5": min(top1 + 15, 100.0),
            "best_top1": float(curve.max()),
            "best_epoch": int(epochs[curve.argmax()]),
            "correct": "",
            "evaluated": 1000,
            "curves": {
                "epoch": epochs.tolist(),
                "lr": [0.1] * plan.epochs,
                "loss": {"label": [1.0] * plan.epochs},
                "eval_epoch": epochs.tolist(),
                "eval_top1": curve.tolist(),
                "eval_split": "test" if plan.best else "val",
            },
            "seconds": {"train": 12.0, "eval": 1.5},
            "extra_parameters": 1000 * plan.methods.index(method),
            "checkpoint": None,
        }
        if not plan.best:
            del record["best_top1"], record["best_epoch"]
    write_json(results.record_path(CellId(pair, method, seed, record["key"])), record)


def _write_throughput(
    results: Results, plan: Plan, pair: str, speed: dict[str, float], random: np.random.Generator
) -> None:
    drift = random.uniform(0.8, 1.2, 30)

    def blocks(role: Role, factor: float) -> list[float]:
        present = role == "method" or role in plan.roles.values()
        return (1500 * factor * drift * random.normal(1, 0.03, 30)).tolist() if present else []

    by_role = {plan.roles.get(method, "method"): speed[method] for method in plan.methods}
    control, baseline = blocks("control", 1.0), blocks("baseline", by_role.get("baseline", 0.7))
    for method in plan.methods:
        role = plan.roles.get(method, "method")
        own = {"control": control, "baseline": baseline}.get(role) or blocks("method", speed[method])
        teacher = 0.0 if role == "control" else 0.012
        record = {
            "schema": SCHEMA,
            "key": timing_key(pair, method),
            "timing_protocol": TIMING_PROTOCOL,
            "suite": "proxy",
            "pair": pair,
            "method": method,
            "role": role,
            "status": "done",
            "error": None,
            "environment": ENVIRONMENT,
            "date": DATE,
            "batch_size": 64,
            "blocks": own,
            "control_blocks": control,
            "baseline_blocks": baseline,
            "phases": {
                "data": 0.002,
                "teacher": teacher,
                "student": 0.015,
                "method": 0.001 * plan.methods.index(method),
                "backward": 0.022,
                "optimizer": 0.003,
            },
            "phases_to_step": 1.01,
            "clean": pair not in plan.unclean,
            "unclean": plan.unclean.get(pair, []),
            "repeated": 0,
            "peak_memory": None,
            "extra_parameters": 1000 * plan.methods.index(method),
            "flops": {"student": 3e6, "teacher": 2e7 if teacher else 0.0, "train": 2.9e7},
        }
        write_json(results.throughput_path(pair, method, record["key"]), record)
