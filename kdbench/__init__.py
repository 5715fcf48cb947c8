"""kdbench: compare knowledge-distillation methods across architectures, accuracy gain and cost side by side.

study = kdbench.load("results/proxy")              # records as data frames
study = kdbench.run(methods=["dist", "ofa"], seeds=1)
criterion = kdbench.loss("dist")                   # for a training loop of one's own
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdbench.api.loss import DistillationLoss, loss
    from kdbench.api.running import list_methods, run
    from kdbench.api.studies import AnalysedStudy, load
    from kdbench.errors import KdbenchError

__version__ = "0.1.0"

_HOMES = {
    "AnalysedStudy": "kdbench.api.studies",
    "DistillationLoss": "kdbench.api.loss",
    "KdbenchError": "kdbench.errors",
    "list_methods": "kdbench.api.running",
    "load": "kdbench.api.studies",
    "loss": "kdbench.api.loss",
    "run": "kdbench.api.running",
}

__all__ = ["AnalysedStudy", "DistillationLoss", "KdbenchError", "list_methods", "load", "loss", "run"]


def __getattr__(name: str) -> Any:
    """Import what is used, when it is used: torch and pandas take seconds to load."""
    if name not in _HOMES:
        raise AttributeError(f"module 'kdbench' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
