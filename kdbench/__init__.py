"""kdbench: compare knowledge-distillation methods across architectures, accuracy gain and cost side by side."""

__version__ = "0.1.0"
