"""A model as a suite names it, a timm name with keyword overrides; this module imports neither torch nor timm."""

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict

from kdbench.values import Line

Kind = Literal["cnn", "transformer", "mlp"]
"""A pair is heterogeneous when its two kinds differ."""


FILES = ("checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir", "weights")
"""Arguments of timm's and torchvision's that read files or fetch them, in ways that are not kdbench's."""


def _without_files(kwargs: dict[str, Any]) -> dict[str, Any]:
    for name in FILES:
        if name in kwargs:
            raise ValueError(f"may not hold {name}: weights come from `kdbench teachers` or --teacher-checkpoint")
    return kwargs


class ModelSpec(BaseModel):
    """A timm architecture with keyword overrides, and which of the suite's recipes trains it.

    Attributes:
        timm: name as `timm.create_model` takes it; or `FILE.py:function`, `package.module:function` of a function that
            makes any other network.
        kwargs: keyword overrides (`depth`, `embed_dim`, `channels`, ...).
        kind: what the network is made of.
        recipe: the suite's recipe for this model.
        pretrained: as a teacher it starts from timm's pretrained weights (the tag is part of `timm`).
        published: what the published tables call it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    timm: Line
    kind: Kind
    recipe: Line
    kwargs: Annotated[dict[Line, Any], AfterValidator(_without_files)] = {}
    pretrained: bool = False
    published: Line | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """What determines results: the architecture, for a function in a file of the user's that file's content."""
        where, _, function = self.timm.partition(":")
        if not where.endswith(".py"):
            return {"timm": self.timm, "kwargs": self.kwargs}
        path = Path(where)
        source = hashlib.sha256(path.read_bytes()).hexdigest()
        return {"timm": f"{path.name}:{function}", "kwargs": self.kwargs, "source": source}
