"""What kdbench sees of every family of timm: `python docs/tools/survey_models.py docs/models.md`, an hour of one core.

A family is a module of timm's; its smallest classifier stands for it. Weights are drawn at random, those that start as
constants too: a branch that is multiplied by zero would agree with anything.
"""

import argparse
import copy
import sys
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from kdbench.errors import KdbenchError, UnsupportedPair
from kdbench.files import write_bytes
from kdbench.models.create import create_model
from kdbench.models.features import Needs
from kdbench.models.kind import kind_of
from kdbench.models.parameters import count_parameters
from kdbench.models.spec import ModelSpec
from kdbench.models.staged import StagedModel
from kdbench.models.stages import STAGES

SIZES = (64, 128, 224, 256)
"""Sides in pixels; the first at which a network runs counts, then its own. At 32 most end in a single pixel."""
CLASSES = 10
SHALLOW = {"depth": 8}
"""For what has no small model."""
LARGE = 150e6
"""Parameters from which a network is made shallow, where it can."""
CONSTANT = 1e-3
"""Parameters that vary less than this are drawn anew."""
BATCH = 3

PAGE = """\
# Models

What kdbench sees of every family of timm {timm} (one module of `timm.models` each, with torch {torch}), as
`python docs/tools/survey_models.py docs/models.md` found it; `kdbench list models --stages NAME --size N` shows any
model.

* **stages**: how many there are; methods that ask for an earlier one report the pair as unsupported. **on**: what the
  network computes on at its stages, maps (B, C, H, W) or tokens, with so many class, distillation and register tokens.
* **equal**: in eval mode logits of the staged pass, all stages and the pooled feature asked for, are those of the plain
  forward bit for bit; **gradients**: so are all gradients; **autocast**: also under bfloat16 autocast;
  **channels last**: also in that memory format; **compile**: `torch.compile` makes one graph with the same logits.
* **resume**: whether the network can be run from behind that stage on, and in which layout it holds what enters there;
  "later": a little further on, where a single tensor passes. Only methods that run one network's features through
  another (`assistant`) need it. Reasons stand below.

{table}

## Why not

{reasons}
"""


@dataclass(frozen=True)
class Row:
    """A line of the table; the fields are its columns."""

    family: str
    model: str
    kind: str
    size: str
    stages: str
    on: str
    equal: str
    gradients: str
    autocast: str
    channels_last: str
    compile: str
    resume_1: str
    resume_2: str
    resume_3: str


def smallest(family: str) -> str:
    """The smallest classifier of a module of timm's, built on the meta device."""
    sizes = {}
    for name in timm.list_models(module=family):
        with torch.device("meta"):
            model: Any = timm.create_model(name, num_classes=CLASSES)
        if hasattr(model, "get_classifier") and not isinstance(model.get_classifier(), nn.Identity):
            sizes[name] = count_parameters(model)
    return min(sizes, key=lambda name: (sizes[name], name))


def look(family: str, name: str) -> tuple[Row, list[str]]:
    """What kdbench sees of a model, and why it cannot do what it cannot.

    Raises:
        KdbenchError: it runs neither at any of `SIZES` nor at its own.
    """
    spec, staged = _built(name)
    images = torch.randn(BATCH, *staged.image_shape, generator=torch.Generator().manual_seed(1))
    everything = Needs(frozenset(staged.stages), pooled=True)
    infos = staged.stages.values()
    prefix = max(info.prefix for info in infos)
    reasons: list[str] = []
    refused: dict[str, list[int]] = {}

    def attempt(what: str, check: Callable[[], bool]) -> str:
        try:
            passed = check()
        except Exception as error:
            reasons.append(f"{what}: {type(error).__name__}: {str(error).strip().partition(chr(10))[0]}")
            return "no"
        return "yes" if passed else "differs"

    def resume(stage: int) -> str:
        if stage not in staged.stages:
            return "-"
        info = staged.stages[stage]
        try:
            tail = staged.tail(stage)
        except UnsupportedPair as reason:
            refused.setdefault(str(reason).partition(": ")[2].partition(" (")[0], []).append(stage)
            return "no"
        return tail.layout + ("" if (tail.channels, tail.grid) == (info.channels, info.grid) else ", later")

    row = Row(
        family=family,
        model=f"`{name}`" + (", " + ", ".join(f"{k}={v}" for k, v in spec.kwargs.items()) if spec.kwargs else ""),
        kind=spec.kind,
        size=str(staged.image_shape[1]),
        stages=str(len(staged.stages)),
        on=", ".join(dict.fromkeys(info.layout for info in infos)) + (f" + {prefix}" if prefix else ""),
        equal=attempt("staged pass", lambda: _equal(staged, images, everything)),
        gradients=attempt("gradients", lambda: _gradients_equal(staged, images, everything)),
        autocast=attempt("autocast", lambda: _equal_under_autocast(staged, images, everything)),
        channels_last=attempt("channels last", lambda: _equal_channels_last(staged, images, everything)),
        compile=attempt("compile", lambda: _equal_compiled(staged, images, everything)),
        **{f"resume_{stage}": resume(stage) for stage in STAGES[:-1]},
    )
    for reason, stages in refused.items():
        reasons.append(f"resume from stage {', '.join(map(str, stages))}: {reason}")
    return row, reasons


def table(rows: Iterable[Row]) -> str:
    """Markdown."""
    head = [field.name.replace("_", " ") for field in fields(Row)]
    lines = [head, ["---"] * len(head), *([getattr(row, field.name) for field in fields(Row)] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _built(name: str) -> tuple[ModelSpec, StagedModel]:
    problem: KdbenchError | None = None
    own = timm.get_pretrained_cfg(name)
    for size in (*SIZES, *([own.input_size[-1]] if own else [])):
        spec = ModelSpec(timm=name, kind="cnn", recipe="-")
        try:
            with torch.device("meta"):
                parameters = count_parameters(create_model(spec, CLASSES, 3, size))
            if parameters > LARGE:
                spec = spec.model_copy(update={"kwargs": SHALLOW})
            torch.manual_seed(0)
            model = create_model(spec, CLASSES, 3, size)
            _liven(model)
            staged = StagedModel(model, (3, size, size), ((0.5,) * 3, (0.5,) * 3)).eval()
        except KdbenchError as error:
            problem = problem or error
        else:
            return spec.model_copy(update={"kind": kind_of(spec, 3, size)}), staged
    assert problem is not None
    raise problem


@torch.no_grad()
def _liven(model: nn.Module) -> None:
    """Draw what starts as a constant."""
    for parameter in model.parameters():
        if parameter.numel() < 2 or parameter.std() < CONSTANT:
            parameter += 0.05 * torch.randn_like(parameter)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.8, 1.2)  # type: ignore[union-attr]


@torch.no_grad()
def _equal(staged: StagedModel, images: Tensor, needs: Needs) -> bool:
    logits = staged(images, needs).logits
    return bool(logits.isfinite().all()) and torch.equal(logits, staged.model(images))


def _gradients_equal(staged: StagedModel, images: Tensor, needs: Needs) -> bool:
    weights = torch.randn(BATCH, CLASSES, generator=torch.Generator().manual_seed(2))
    found = []
    for forward in (lambda: staged(images, needs).logits, lambda: staged.model(images)):
        staged.zero_grad()
        (forward() * weights).sum().backward()
        found.append([None if p.grad is None else p.grad.clone() for p in staged.parameters()])
    staged.zero_grad()
    return all(
        (one is None and other is None) or (one is not None and other is not None and torch.equal(one, other))
        for one, other in zip(*found, strict=True)
    )


def _equal_under_autocast(staged: StagedModel, images: Tensor, needs: Needs) -> bool:
    with torch.autocast("cpu", torch.bfloat16):
        return _equal(staged, images, needs)


def _equal_channels_last(staged: StagedModel, images: Tensor, needs: Needs) -> bool:
    other = copy.deepcopy(staged).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return _equal(other, images.contiguous(memory_format=torch.channels_last), needs)


@torch.no_grad()
def _equal_compiled(staged: StagedModel, images: Tensor, needs: Needs) -> bool:
    torch.compiler.reset()
    compiled = torch.compile(staged, backend="eager", fullgraph=True)
    return torch.equal(compiled(images, needs).logits, staged(images, needs).logits)


def main(arguments: list[str] | None = None) -> int:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", help="families, comma-separated; prints the table instead")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows, reasons = [], []
    warnings.simplefilter("ignore")
    for family in options.only.split(",") if options.only else timm.list_modules():
        try:
            row, why = look(family, smallest(family))
        except Exception as error:
            # One family that is not understood must not cost the hour of all the others.
            reasons.append(f"* {family}: {type(error).__name__}: {error}")
            continue
        print(*vars(row).values(), *why, sep="  ", file=sys.stderr, flush=True)
        rows.append(row)
        reasons += [f"* {family}: {reason}" for reason in why]
    if options.only:
        print(table(rows))
    else:
        versions = {"timm": version("timm"), "torch": version("torch").partition("+")[0]}
        page = PAGE.format(table=table(rows), reasons="\n".join(reasons), **versions)
        write_bytes(options.out, page.encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
