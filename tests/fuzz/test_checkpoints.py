"""Weights of unknown origin: fitted or refused in one line, never run, never unfolded beyond what the file holds."""

import io
import json
import pickle
import struct
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdbench.errors import KdbenchError
from kdbench.registry import Registry
from kdbench.results.folder import Position, Results
from kdbench.study.plan import Cell, MethodPlan
from kdbench.suites.loading import available, load_suite
from kdbench.suites.schema import PairSpec
from kdbench.training.checkpoint import load_checkpoint
from kdbench.weights.files import read_safetensors
from tests.conftest import NO_DATA
from tests.support.harness import VALUES, answer, damaged, drawn, other_bytes

TEACHER = "resnet-t"


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The proxy with a few test images, so that weights which fit are measured in no time."""
    path = tmp_path_factory.mktemp("suite") / "proxy.toml"
    path.write_text(available()["proxy"].read_text().replace("curve_limit = 1000", "test_limit = 40"))
    return path


@pytest.fixture(scope="module")
def weights() -> Path:
    return load_suite("proxy").teacher_path(TEACHER, NO_DATA)


@pytest.fixture(scope="module")
def files(weights: Path) -> dict[str, bytes]:
    """The same weights in the ways in which they are published."""
    state = read_safetensors(weights)
    new, old = io.BytesIO(), io.BytesIO()
    torch.save({"state_dict": state, "epoch": 3}, new)
    torch.save(state, old, _use_new_zipfile_serialization=False)
    return {"w.safetensors": weights.read_bytes(), "w.pth": new.getvalue(), "w.pt": old.getvalue()}


@pytest.mark.runs
@drawn(24)
@given(data=st.data())
def test_damaged_weights(suite: Path, files: dict[str, bytes], data: st.DataObject, tmp_path: Path) -> None:
    name = data.draw(st.sampled_from(sorted(files)))
    # Damage to the tensors is seldom seen; damage to what describes them is what a reader trips over.
    head = data.draw(st.booleans())
    content = files[name]
    size = min(4000, len(content))
    content = data.draw(other_bytes(content[:size])) + content[size:] if head else data.draw(other_bytes(content))
    (tmp_path / name).write_bytes(content)
    done = answer("teachers", "import", TEACHER, tmp_path / name, "--suite", suite, "--data", tmp_path / "data")
    assert done.returncode == 0 or name in done.stderr or "guessing" in done.stderr


@pytest.mark.runs
@drawn(10)
@given(data=st.data())
def test_odd_weights(suite: Path, weights: Path, data: st.DataObject, tmp_path: Path) -> None:
    """Whole files that do not hold the weights of the model."""
    state: dict[Any, Any] = dict(read_safetensors(weights))
    name = data.draw(st.sampled_from(sorted(state)))
    odd = [
        *(torch.tensor(1.0), torch.zeros(3, 0), torch.ones(1).expand(10**6, 10**6), torch.ones(4, 4).to_sparse()),
        *(torch.full((4,), torch.nan), torch.ones(4, dtype=torch.bool), torch.ones(4, dtype=torch.complex64), "text"),
        *(torch.ones(2, dtype=torch.float64), torch.empty(10**9, device="meta"), {}, None, 10**400),
    ]
    what = data.draw(st.sampled_from(["replace", "delete", "add", "wrap"]))
    if what == "delete":
        del state[name]
    elif what == "wrap":
        state = {data.draw(st.sampled_from(["model", "state_dict", 3, ("a",)])): state}
    else:
        state[name if what == "replace" else data.draw(st.sampled_from([3, "x", "", name + ".y"]))] = data.draw(
            st.sampled_from(odd)
        )
    torch.save(state, tmp_path / "odd.pth")
    done = answer("teachers", "import", TEACHER, tmp_path / "odd.pth", "--suite", suite, "--data", tmp_path / "data")
    assert done.returncode in (0, 3)


@pytest.mark.runs
@drawn(20)
@given(data=st.data())
def test_stored_teachers(suite: Path, weights: Path, data: st.DataObject, tmp_path: Path) -> None:
    stored = tmp_path / "teachers" / "proxy" / weights.name
    stored.parent.mkdir(parents=True, exist_ok=True)
    stored.write_bytes(weights.read_bytes())
    metadata = data.draw(st.booleans())
    content = _other_metadata(data, weights) if metadata else data.draw(other_bytes(weights.read_bytes()[:4000]))
    with damaged(stored, content):
        command = data.draw(st.sampled_from(["list", "verify"]))
        done = answer("teachers", command, "--only", TEACHER, "--suite", suite, "--data", tmp_path, "--json")
        assert metadata or TEACHER in done.stdout + done.stderr
        plan = ["run", "--suite", suite, "--methods", "scratch", "--pairs", "resnet-t:vit-s", "--split", "val"]
        if command == "list" and "error" in json.loads(done.stdout)[0]:
            # Where the teacher is refused, nothing is trained.
            assert answer(*plan, "--data", tmp_path, "--out", tmp_path / "out").returncode == 3


def _other_metadata(data: st.DataObject, weights: Path) -> bytes:
    content = weights.read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + size])
    known = header["__metadata__"]
    name = data.draw(st.sampled_from(sorted(known)))
    known[name] = data.draw(
        st.sampled_from(["", "{", "null", "NaN", "1", '"x"', "[[1], [0]]", "[" * 5000])
    ) or json.dumps(data.draw(VALUES))
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + size :]


class Evil:
    """Unpickled, it leaves a file behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("how", ["zip", "old", "plain", "inside", "in the state"])
def test_pickles_with_code_are_never_run(how: str, suite: Path, weights: Path, tmp_path: Path) -> None:
    mark, file = tmp_path / "executed", tmp_path / "evil.pth"
    evil, state = Evil(mark), read_safetensors(weights)
    if how == "plain":
        file.write_bytes(pickle.dumps(evil))
    else:
        content = {"zip": evil, "old": evil, "inside": {"state_dict": state, "args": evil}}.get(
            how, state | {"x": evil}
        )
        torch.save(content, file, _use_new_zipfile_serialization=how != "old")
    for command in (
        ["teachers", "import", TEACHER, file],
        ["teachers", "train", "--only", TEACHER, "--from", file],
        ["run", "--methods", "scratch", "--pairs", "resnet-t:vit-s", "--teacher-checkpoint", file],
    ):
        done = answer(*command, "--suite", suite, "--data", tmp_path / "data", cwd=tmp_path)
        assert (done.returncode == 3 and "evil.pth" in done.stderr) or "idx3" in done.stderr
        assert not mark.exists()
    # The mark would have been left by a reader that trusts.
    torch.load(file, weights_only=False) if how != "plain" else pickle.loads(file.read_bytes())
    assert mark.exists()


def _unfinished(folder: Path) -> tuple[Results, Cell, Path]:
    """A cell, and where its checkpoint belongs."""
    plugin = Registry.installed().plugins["scratch"]
    cell = Cell("0" * 64, PairSpec(teacher="a", student="b"), MethodPlan(plugin, "control", {}), 0)
    path = Results(folder).checkpoint_path(cell.id, Position(1, 0))
    path.parent.mkdir(parents=True, exist_ok=True)
    return Results(folder), cell, path


@pytest.mark.runs
@drawn(30)
@given(data=st.data())
def test_checkpoints_of_unfinished_trainings(data: st.DataObject, tmp_path: Path) -> None:
    results, cell, path = _unfinished(tmp_path)
    state = {"contender": {"student": {"w": torch.ones(4)}, "lr": [0.1]}, "curve": ([1], [2.0]), "reads": {"test": 1}}
    torch.save(state, path)
    path.write_bytes(data.draw(other_bytes(path.read_bytes())))
    try:
        load_checkpoint(results, cell.id, Position(1, 0))
    except KdbenchError as error:
        assert str(path) in str(error)


def test_a_checkpoint_with_code_is_never_run(tmp_path: Path) -> None:
    results, cell, path = _unfinished(tmp_path)
    torch.save({"contender": Evil(tmp_path / "executed")}, path)
    with pytest.raises(KdbenchError, match="is broken"):
        load_checkpoint(results, cell.id, Position(1, 0))
    assert not (tmp_path / "executed").exists()


@pytest.mark.runs
def test_archives_that_unfold(suite: Path, tmp_path: Path) -> None:
    file = tmp_path / "bomb.pth"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
        archive.writestr("archive/data/0", bytes(200 << 20))
    assert file.stat().st_size < 1 << 20
    done = answer("teachers", "import", TEACHER, file, "--suite", suite, "--data", tmp_path)
    assert done.returncode == 3 and "would unfold to" in done.stderr


def test_a_pickle_that_holds_itself(suite: Path, tmp_path: Path) -> None:
    state: dict[str, Any] = {"x": torch.ones(2)}
    state["model"] = state
    torch.save(state, tmp_path / "self.pth")
    done = answer("teachers", "import", TEACHER, tmp_path / "self.pth", "--suite", suite, "--data", tmp_path)
    assert done.returncode == 3 and "does not fit the model" in done.stderr


def test_safetensors_that_claim_more_than_they_hold(suite: Path, tmp_path: Path) -> None:
    file = tmp_path / "claims.safetensors"
    head = json.dumps({"x": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}).encode()
    file.write_bytes(struct.pack("<Q", len(head)) + head + bytes(64))
    for start in (None, struct.pack("<Q", sys.maxsize), struct.pack("<Q", 0)):
        if start:
            file.write_bytes(start + head)
        done = answer("teachers", "import", TEACHER, file, "--suite", suite, "--data", tmp_path)
        assert done.returncode == 3 and "claims.safetensors" in done.stderr
    assert safetensors.torch.save({}), "the library is there"
