"""A model as a suite names it, a timm name with keyword overrides; this module imports neither torch nor timm."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from kdbench.targets import sources_sha256
from kdbench.values import Line

Kind = Literal["cnn", "transformer", "mlp"]
"""A pair is heterogeneous when its two kinds differ."""


FILES = ("checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir", "weights")
"""Arguments of timm's and torchvision's that read files or fetch them, in ways that are not kdbench's."""
FIXED = ("num_classes", "in_chans", "features_only", "out_indices")
"""Arguments that kdbench sets itself, as the data say, or that make something else than a classifier."""


def _without_reserved(kwargs: dict[str, Any]) -> dict[str, Any]:
    for name in FILES:
        if name in kwargs:
            raise ValueError(f"may not hold {name}: weights come from `kdbench teachers` or --teacher-checkpoint")
    for name in FIXED:
        if name in kwargs:
            raise ValueError(f"may not hold {name}: kdbench sets it itself, so that the network fits the data")
    return kwargs


class ModelSpec(BaseModel):
    """A timm architecture with keyword overrides, and which of the suite's recipes trains it.

    Attributes:
        timm: name as `timm.create_model` takes it; or `FILE.py:function`, `package.module:function` of a function that
            makes any other network.
        kwargs: keyword overrides (`depth`, `embed_dim`, `channels`, ...).
        kind: what the network is made of.
        recipe: the suite's recipe for this model.
        stages: of a network that timm did not make, the modules whose outputs are its stages, the last one stage 4;
            empty where kdbench is to find them.
        pretrained: as a teacher it starts from timm's pretrained weights (the tag is part of `timm`).
        published: what the published tables call it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    timm: Line
    kind: Kind
    recipe: Line
    kwargs: Annotated[dict[Line, Any], AfterValidator(_without_reserved)] = {}
    stages: Annotated[tuple[Line, ...], Field(max_length=4)] = ()
    pretrained: bool = False
    published: Line | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """What determines results: the architecture, and the code of a function of the user's.

        The code of timm and torchvision is told by their versions, which the environment of a record holds.
        """
        where, colon, function = self.timm.partition(":")
        name = f"{Path(where).name}:{function}" if where.endswith(".py") else self.timm
        identity: dict[str, Any] = {"timm": name, "kwargs": self.kwargs}
        if self.stages:
            identity["stages"] = self.stages
        if colon and where.partition(".")[0] != "torchvision":
            identity["source"] = sources_sha256(self.timm)
        return identity
