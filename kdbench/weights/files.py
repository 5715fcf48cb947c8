"""Weights on disk: safetensors with timm's own keys and a few lines of metadata; no pickle is ever read."""

import argparse
import hashlib
import json
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from kdbench.errors import KdbenchError
from kdbench.files import write_bytes


def save_weights(path: Path, model: nn.Module, metadata: dict[str, Any]) -> None:
    """Write the state dict of a timm model atomically.

    Args:
        metadata: JSON-able values; each is stored as a JSON string.

    Raises:
        KdbenchError: the file cannot be written.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    texts = {name: json.dumps(value, ensure_ascii=False) for name, value in metadata.items()}
    write_bytes(path, _in_order(safetensors.torch.save(state, texts)))


def _in_order(content: bytes) -> bytes:
    """The same safetensors file with its metadata in order of their names, which the library shuffles.

    Its header is JSON, padded with spaces, behind 8 bytes that hold its length.
    """
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name, on the host.

    Raises:
        KdbenchError: no such file, or not a whole safetensors file.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise KdbenchError(f"cannot read weights {path}: {error.strerror or error}") from error
    except (safetensors.SafetensorError, ValueError) as error:
        raise KdbenchError(f"{path} is not a whole safetensors file: {error}") from error


def read_metadata(path: Path) -> dict[str, Any]:
    """What `save_weights` was given beside the weights; nothing of a file that something else wrote.

    Raises:
        KdbenchError: no such file, or not a whole one of kdbench's.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return {name: json.loads(text) for name, text in (file.metadata() or {}).items()}
    except (OSError, ValueError, RecursionError, safetensors.SafetensorError) as error:
        raise KdbenchError(f"{path} is not a whole safetensors file: {error}") from error


def refuse_bomb(path: Path) -> None:
    """Refuse an archive that says it holds more than the file has room for; `torch.save` compresses nothing.

    Raises:
        KdbenchError: it does, or is damaged.
    """
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            claimed = sum(member.file_size for member in archive.infolist())
    except (OSError, ValueError, RuntimeError, NotImplementedError, zipfile.BadZipFile) as error:
        raise KdbenchError(f"{path} is no whole torch checkpoint: {error}") from error
    size = path.stat().st_size
    if claimed > size:
        raise KdbenchError(f"{path} is {size:,} bytes that would unfold to {claimed:,}, as no torch checkpoint does")


def unpickled(path: Path) -> Any:
    """What `torch.save` wrote, as long as that is tensors and plain values: no code in it is run.

    Raises:
        KdbenchError: it would unfold beyond the file.
        Exception: any other, where the file is damaged or holds more.
    """
    refuse_bomb(path)
    # Training scripts store their options beside the weights; a namespace of plain values runs nothing.
    with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
        # That a file is odd, torch warns of; that it cannot be read, its reader tells.
        warnings.simplefilter("ignore")
        return torch.load(path, map_location="cpu", weights_only=True)


def load_weights(path: Path, model: nn.Module) -> None:
    """Load a state dict into `model`, every key of it.

    Raises:
        KdbenchError: no such file, not a safetensors file, weights of another model, or values that are not finite.
    """
    state, own = read_safetensors(path), model.state_dict()
    reasons = [f"it lacks {name}" for name in own if name not in state]
    reasons += [f"it has {name}" for name in state if name not in own]
    reasons += [
        f"{name} is {tuple(state[name].shape)}, not {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in state and state[name].shape != tensor.shape
    ]
    if reasons:
        raise KdbenchError(f"{path} holds weights of another model than {type(model).__name__}: {reasons[0]}")
    refuse_not_finite(path, state)
    model.load_state_dict(state)


def file_sha256(path: Path) -> str:
    """The hash of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def refuse_not_finite(path: Path, state: Mapping[str, Tensor]) -> None:
    """Refuse weights with values that are not finite.

    Raises:
        KdbenchError: there are some; the message names the first tensor.
    """
    for name, tensor in state.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise KdbenchError(f"{path} holds weights that are not finite ({name})")


def weights_sha256(model: nn.Module) -> str:
    """Hash of a model's state: names, shapes and bytes, in order of the names."""
    digest = hashlib.sha256()
    state: dict[str, Tensor] = model.state_dict()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
