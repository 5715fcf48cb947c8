"""A run from Python is a run of the command line."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import kdbench
from tests.support.command import kdbench as command

LIMIT = (100, 100)


@pytest.mark.runs
def test_a_run_from_python(short_suite: Callable[..., Path], tmp_path: Path) -> None:
    """The command line finds its cells finished; the study says how it came about."""
    suite, out = str(short_suite()), tmp_path / "out"
    asked = {"suite": suite, "pairs": "vit-t:resnet-s", "out": out, "limit": LIMIT}
    settings = {"dist": {"beta": 2.0}}
    study = kdbench.run(methods=["dist"], seeds=[0], throughput=False, hyperparameters=settings, **asked)
    assert list(study.cells["status"]) == ["done"] * 3
    assert set(study.gains()["method"]) == {"scratch", "kd", "dist"}
    call = json.loads((out / "manifest.json").read_text())["command"]
    assert call.startswith("kdbench.run(suite=") and "seeds=[0]" in call and "console" not in call
    words = f"run --suite {suite} --pairs vit-t:resnet-s --methods dist --seeds 1 --out {out} --limit 100,100".split()
    done = command(*words, "--set", "dist.beta=2.0", "--no-throughput", "--no-report")
    assert "3 finished, 0 to run" in " ".join(done.stdout.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"suite": "prxy"}, "unknown suite 'prxy'"),
        ({"methods": "dst"}, "unknown method 'dst'"),
        ({"pairs": ["vit-t:resnet-x"]}, "resnet-x"),
        ({"seeds": 0}, "names no seed"),
        ({"methods": "kd", "hyperparameters": {"dist": {"beta": 1.0}}}, "dist, which is not among"),
    ],
)
def test_mistakes_are_named(arguments: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(kdbench.KdbenchError, match=message):
        kdbench.run(**arguments, out=tmp_path)  # type: ignore[arg-type]
