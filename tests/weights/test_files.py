"""Weights on disk."""

from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from kdbench.errors import KdbenchError
from kdbench.weights.files import load_weights, save_weights, weights_sha256


def test_round_trip_is_exact(tmp_path: Path) -> None:
    path = tmp_path / "a" / "w.safetensors"
    source, target = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last), nn.Conv2d(3, 4, 3)  # type: ignore[call-overload]
    save_weights(path, source, {"top1": 12.5, "name": "ä"})
    load_weights(path, target)
    assert weights_sha256(source) == weights_sha256(target)
    with torch.no_grad():
        target.bias += 1e-7  # type: ignore[operator]
    assert weights_sha256(source) != weights_sha256(target)


def test_bad_files_are_told_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    with pytest.raises(KdbenchError, match="cannot read weights"):
        load_weights(path, nn.Linear(2, 2))
    path.write_bytes(b"\x80\x04pickle")
    with pytest.raises(KdbenchError, match="not a whole safetensors file"):
        load_weights(path, nn.Linear(2, 2))
    save_weights(path, nn.Linear(2, 2), {})
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(KdbenchError, match="not a whole safetensors file"):
        load_weights(path, nn.Linear(2, 2))
    save_weights(path, nn.Linear(2, 3), {})
    with pytest.raises(KdbenchError, match="weights of another model than Linear"):
        load_weights(path, nn.Linear(2, 2))
    safetensors.torch.save_file({"weight": torch.full((2, 2), float("nan")), "bias": torch.zeros(2)}, path)
    with pytest.raises(KdbenchError, match=r"not finite \(weight\)"):
        load_weights(path, nn.Linear(2, 2))


def test_an_unwritable_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(KdbenchError, match="cannot write"):
        save_weights(tmp_path / "file" / "w.safetensors", nn.Linear(2, 2), {})
