"""A run in TensorBoard and in Weights & Biases, read back by their own readers and compared with the records."""

import json
import re
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdbench.cli import track
from kdbench.files import read_json, write_json
from kdbench.names import slug
from kdbench.results.folder import CellId, Position, Results, cell_id, read_record
from kdbench.results.locks import claimed
from kdbench.results.schema import CellRecord
from tests.support.command import COMMAND, kdbench

pytestmark = pytest.mark.runs

REFERENCE = Results(Path(__file__).parents[2] / "results" / "reference" / "proxy")
EPOCHS = 6


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is uploaded, whoever is logged in."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_PROJECT", raising=False)


@pytest.fixture(scope="module")
def stages(short_suite: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folder of a run that was interrupted in the middle, and as it was when it had gone on to the end."""
    begun = tmp_path_factory.mktemp("tracking") / "begun"
    grid = ["--methods", "kd", "--pairs", "vit-t:resnet-s", "--seeds", "1", "--limit", "200,200", "--device", "cpu"]
    rest = ["--best", "--no-throughput", "--no-report", "--checkpoint-every", "0.1s", "--out", str(begun)]
    suite = short_suite(EPOCHS, lambda text: re.sub(r"(?m)^eval_every = \d+", "eval_every = 1", text))
    words = ["run", "--suite", str(suite), *grid, *rest]
    process = subprocess.Popen([*COMMAND, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    limit = time.monotonic() + 400
    while not [path for path in begun.rglob("*.pt") if "@0." not in path.name] and time.monotonic() < limit:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.wait(180) == 130, process.communicate()[1]
    finished = begun.with_name("finished")
    shutil.copytree(begun, finished)
    done = kdbench(*words[:-1], str(finished))
    assert done.returncode == 0, done.stdout + done.stderr
    return begun, finished


@pytest.fixture
def reference(tmp_path: Path) -> Results:
    """The first pair and seed of the reference run, five methods."""
    results, manifest = Results(tmp_path / "results"), REFERENCE.manifest()
    pair = manifest["pairs"][0]
    methods = ["scratch", "kd", "assistant", "fitnet", "ofa"]
    wanted = {(pair, method, 0) for method in methods}
    cells = [cell for cell in manifest["cells"] if (cell["pair"], cell["method"], cell["seed"]) in wanted]
    for cell in cells:
        home = results.record_path(CellId(**cell))
        home.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REFERENCE.record_path(CellId(**cell)), home)
    for name in ("environments", f"throughput/{slug(pair)}"):
        shutil.copytree(REFERENCE.folder / name, results.folder / name)
    measured = [one for one in manifest["throughput"] if (one["pair"], one["method"], 0) in wanted]
    changes = {"cells": cells, "throughput": measured, "seeds": [0]}
    write_json(results.manifest_path, manifest | changes)
    return results


def go(folder: Path, to: str, *options: object) -> dict[str, Any]:
    done = kdbench("track", folder, "--to", to, "--json", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def events(folder: Path, record: CellRecord) -> Any:
    """What TensorBoard's own reader finds of a cell."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    home = Path(slug(record["pair"])) / record["method"] / f"s{record['seed']}"
    found = EventAccumulator(str(folder / "tracked" / "tensorboard" / home))
    found.Reload()
    return found


def points(found: Any, name: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in found.Scalars(name)]


def runs(folder: Path) -> dict[str, Any]:
    """What W&B has kept, by the name of the run; each name once."""
    from tests.tracking.wandb_file import read

    files = [read(path) for path in (folder / "tracked" / "wandb").rglob("*.wandb")]
    assert len({file.name for file in files}) == len(files)
    return {file.name: file for file in files}


def curves(record: CellRecord) -> dict[str, list[tuple[int, float]]]:
    """The curves of a record by the names that dashboards see."""
    assert "curves" in record
    own = record["curves"]
    found = {f"loss/{term}": list(zip(own["epoch"], values, strict=True)) for term, values in own["loss"].items()}
    found["loss"] = [(epoch, sum(own["loss"][term][epoch - 1] for term in own["loss"])) for epoch in own["epoch"]]
    found["lr"] = list(zip(own["epoch"], own["lr"], strict=True))
    return found | {f"top1/{own['eval_split']}": list(zip(own["eval_epoch"], own["eval_top1"], strict=True))}


def single(values: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """As TensorBoard keeps them, in single precision."""
    return [(step, float(np.float32(value))) for step, value in values]


def final(results: Results, record: CellRecord) -> dict[str, float]:
    """Final metrics, straight from the records."""
    known: dict[str, Any] = {**record}
    same = {other["role"]: other.get("top1", 0.0) for other in results.cells() if other["role"] != "method"}
    found = {"top1": known["top1"], "top5": known["top5"], "gain": known["top1"] - same["control"]}
    if record["role"] == "method":
        found["gain_over_baseline"] = known["top1"] - same["baseline"]
    timing: dict[str, Any] = {**next(one for one in results.throughput() if one["method"] == record["method"])}
    ratios = [own / other for own, other in zip(timing["blocks"], timing["control_blocks"], strict=True)]
    found |= {"throughput_ratio": statistics.median(ratios), "images_per_second": statistics.median(timing["blocks"])}
    if timing["peak_memory"] is not None:
        found["peak_memory_mib"] = timing["peak_memory"] / 2**20
    return {f"final/{name}": value for name, value in found.items()}


def test_a_run_that_goes_on_is_followed_in_tensorboard(stages: tuple[Path, Path], tmp_path: Path) -> None:
    begun, finished = stages
    folder = tmp_path / "run"
    shutil.copytree(begun, folder)
    assert go(folder, "tensorboard") == {
        **{"to": "tensorboard", "folder": str(folder / "tracked" / "tensorboard")},
        **{"written": 2, "unchanged": 0, "waiting": 2},
    }
    records = list(Results(finished).cells())
    for record in records:
        found, wanted = events(folder, record), curves(record)
        assert set(found.Tags()["scalars"]) == set(wanted)
        for name, values in wanted.items():
            so_far = points(found, name)
            assert 1 <= len(so_far) <= EPOCHS - 1
            assert so_far == single(values)[: len(so_far)], name
    shutil.copytree(finished, folder, dirs_exist_ok=True)
    assert go(folder, "tensorboard")["written"] == 2
    for record in records:
        found = events(folder, record)
        for name, values in curves(record).items():
            assert points(found, name) == single(values), name
        assert points(found, "final/top1") == single([(EPOCHS, record.get("top1", 0.0))])


def test_a_run_that_goes_on_is_followed_in_wandb(stages: tuple[Path, Path], tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    begun, finished = stages
    folder = tmp_path / "run"
    shutil.copytree(begun, folder)
    own, other = [CellId(**cell) for cell in Results(folder).manifest()["cells"]]
    with claimed([Results(folder).lock_path(own)]):
        assert go(folder, "wandb", "--project", "mine")["written"] == 2
    before = runs(folder)
    status = {own[1]: "running", other[1]: "begun"}
    records = {f"{record['pair']}/{record['method']}/0": record for record in Results(finished).cells()}
    assert set(before) == set(records)
    for name, run in before.items():
        wanted = curves(records[name])
        so_far = run.curve("loss")
        assert 1 <= len(so_far) <= EPOCHS - 1 and run.exit_code == 0 and run.config["status"] == status[run.job_type]
        assert {curve: run.curve(curve) for curve in wanted} == {c: v[: len(so_far)] for c, v in wanted.items()}
    shutil.copytree(finished, folder, dirs_exist_ok=True)
    assert go(folder, "wandb", "--project", "mine") | {"folder": ""} == {
        **{"to": "wandb", "folder": "", "written": 2, "unchanged": 0, "waiting": 0}
    }
    for name, run in runs(folder).items():
        record = records[name]
        assert (run.id, run.project) == (before[name].id, "mine"), "the same run as before"
        assert (run.group, run.job_type, run.host) == (record["pair"], record["method"], "")
        assert {curve: run.curve(curve) for curve in curves(record)} == curves(record)
        assert [row["_step"] for row in run.history] == list(range(1, EPOCHS + 1))
        assert run.config["hyperparameters"] == record["hyperparameters"] and run.config["status"] == "done"
        assert run.summary["final/top1"] == record.get("top1")
    assert go(folder, "wandb", "--project", "mine")["unchanged"] == 2


def test_final_metrics_and_configuration(reference: Results) -> None:
    """Of real records: gains over the control of the same seed, ratios, and what tells runs apart."""
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    assert go(reference.folder, "tensorboard")["written"] == 5
    for record in reference.cells():
        found = events(reference.folder, record)
        wanted = final(reference, record)
        assert {name: points(found, name)[0][1] for name in wanted} == {
            name: pytest.approx(value, rel=1e-6) for name, value in wanted.items()
        }
        content = found.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
        table = HParamsPluginData.FromString(content).session_start_info.hparams
        assert table["method"].string_value == record["method"] and table["seed"].number_value == 0
        for name, value in record["hyperparameters"].items():
            cell = table[f"hp.{name}"]
            told = value if isinstance(value, str | int | float) else json.dumps(value)
            assert (cell.string_value or cell.number_value) == told
        (text,) = found.Tensors("configuration/text_summary")
        told = json.loads(text.tensor_proto.string_val[0])
        environment = read_json(reference.environment_path(record["environment"]))
        assert (told["protocol"], told["environment"]) == (record["protocol"], environment)
        assert told["teacher_sha256"] == record["teacher"]["sha256"]


def test_wandb_has_the_same(reference: Results) -> None:
    pytest.importorskip("wandb")
    failed, other, *_ = reference.cells()
    path = reference.record_path(cell_id(failed))
    gone = ("top1", "top5", "curves", "correct", "evaluated")
    kept = {name: value for name, value in read_json(path).items() if name not in gone}
    write_json(path, kept | {"status": "diverged", "error": "the loss became non-finite"})
    assert go(reference.folder, "wandb")["written"] == 5
    found = runs(reference.folder)
    ended = found[f"{failed['pair']}/{failed['method']}/0"]
    assert (ended.exit_code, ended.config["status"], ended.history) == (1, "diverged", [])
    assert ended.config["error"] == "the loss became non-finite"
    whole = found[f"{other['pair']}/{other['method']}/0"]
    assert (whole.exit_code, whole.project) == (0, "kdbench")
    wanted = final(reference, other)
    assert {name: whole.summary[name] for name in wanted} == {n: pytest.approx(v) for n, v in wanted.items()}


def event_files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in (folder / "tracked").rglob("*tfevents*")}


def test_what_has_changed_takes_the_place_of_what_was(reference: Results) -> None:
    go(reference.folder, "tensorboard")
    before = event_files(reference.folder)
    assert go(reference.folder, "tensorboard")["unchanged"] == 5
    assert event_files(reference.folder) == before
    record: dict[str, Any] = {**next(iter(reference.cells()))}
    path = reference.record_path(cell_id(record))
    # Trained again, as after its record was removed, on a device where bits differ.
    original = path.read_bytes()
    record["curves"]["loss"] = {term: [2 * value for value in v] for term, v in record["curves"]["loss"].items()}
    write_json(path, record)
    assert go(reference.folder, "tensorboard")["written"] == 1
    after = event_files(reference.folder)
    assert len(after) == 5 and len(set(before) & set(after)) == 4
    again = read_record(path)
    assert points(events(reference.folder, again), "loss") == single(curves(again)["loss"])
    # And back, as when a hyperparameter is set for one run only.
    path.write_bytes(original)
    assert go(reference.folder, "tensorboard")["written"] == 1
    assert points(events(reference.folder, again), "loss") == single(curves(read_record(path))["loss"])


def test_a_file_that_stays_behind_doubles_nothing(reference: Results) -> None:
    """Killed between the new file and the removal of the old one: the new one makes readers forget the old."""
    go(reference.folder, "tensorboard")
    path = next(iter(event_files(reference.folder)))
    shutil.copy(path, path.with_name("events.out.tfevents.1.kdbench"))
    for record in reference.cells():
        assert points(events(reference.folder, record), "lr") == single(curves(record)["lr"])


def test_it_follows_to_the_end(reference: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(track, "LOOK_SECONDS", 0.05)
    record = next(iter(reference.cells()))
    path = reference.record_path(cell_id(record))
    path.rename(path.with_suffix(".later"))
    later = threading.Timer(1.0, lambda: path.with_suffix(".later").rename(path))
    later.start()
    done = kdbench("track", reference.folder, "--to", "tensorboard", "--follow")
    later.join()
    assert done.returncode == 0
    first, *_, last = [line.partition(";")[0] for line in done.stdout.splitlines()]
    assert first == "4 cells written, 0 unchanged, 1 records to come"
    assert last.endswith(", 0 records to come")
    for one in reference.cells():
        assert points(events(reference.folder, one), "final/gain") == single(
            [(len(curves(one)["lr"]), final(reference, one)["final/gain"])]
        )


def test_odd_names_and_values(reference: Results) -> None:
    pytest.importorskip("wandb")
    record: dict[str, Any] = {**next(iter(reference.cells()))}
    odd = {"\udc80": 1, "list": [1, {"a": None}], "none": None, "lines": "a\n\x1b[31mb", "on": True, "low": "\udc80"}
    losses = {f"../{term} <b>": values for term, values in record["curves"]["loss"].items()}
    record |= {"hyperparameters": odd, "curves": record["curves"] | {"loss": losses}}
    path = reference.record_path(cell_id(record))
    path.write_text(json.dumps(record))
    for to in track.SINKS:
        assert go(reference.folder, to)["written"] == 5
    again = next(iter(reference.cells()))
    found = events(reference.folder, again)
    (name, *_) = losses
    assert points(found, f"loss/{name}") == single(curves(again)[f"loss/{name}"])
    run = runs(reference.folder)[f"{again['pair']}/{again['method']}/0"]
    assert run.config["hyperparameters"]["list"] == [1, {"a": None}]
    assert run.curve(f"loss/{name}") == curves(again)[f"loss/{name}"]


def test_a_damaged_checkpoint_is_passed_over(stages: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(stages[0], tmp_path / "run")
    results = Results(tmp_path / "run")
    first, second = [CellId(**cell) for cell in results.manifest()["cells"]]
    for path in results.checkpoints(first).values():
        path.write_bytes(path.read_bytes()[:1000])
    for path in results.checkpoints(second).values():
        path.unlink()
    results.checkpoint_path(second, Position(3, 0)).write_bytes(b"")
    assert go(results.folder, "tensorboard")["written"] == 0


def test_mistakes_are_one_line(reference: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "tensorboard.json").write_text('{"id": 1}')
    for words, message in {
        (tmp_path / "none", "--to", "tensorboard"): "no results in",
        (reference.folder, "--to", "tensorbord"): "did you mean tensorboard",
        (reference.folder, "--to", "tensorboard", "--project", "x"): "--project is of W&B",
        (reference.folder, "--to", "tensorboard", "--out", tmp_path / "file"): "choose another with --out",
        (reference.folder, "--to", "tensorboard", "--out", tmp_path / "broken"): "is broken: 'id'",
    }.items():
        done = kdbench("track", *words)
        assert done.returncode == 3 and done.stderr.count("\n") == 1, done.stderr
        assert message in done.stderr
    with claimed([reference.folder / "tracked" / "tensorboard.lock"]):
        done = kdbench("track", reference.folder, "--to", "tensorboard")
        assert done.returncode == 3 and "another `kdbench track` is at work" in done.stderr
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(("to", "package"), [("tensorboard", "tensorboard"), ("wandb", "wandb")])
def test_a_missing_package_is_told(to: str, package: str, reference: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    done = kdbench("track", reference.folder, "--to", to)
    assert done.returncode == 3
    assert done.stderr == f"kdbench: --to {to} needs {package}; run `pip install 'kdbench[{to}]'`\n"


def test_how_wandb_is_set_up(reference: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is asked and nothing is sent where nobody is logged in."""
    pytest.importorskip("wandb")
    for mode, message in {"disabled": "is switched off", "nonsense": "is set up wrongly: 'mode'"}.items():
        monkeypatch.setenv("WANDB_MODE", mode)
        done = kdbench("track", reference.folder, "--to", "wandb")
        assert done.returncode == 3 and message in done.stderr and done.stderr.count("\n") == 1
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "WANDB_CONFIG_DIR", "NETRC"):
        monkeypatch.setenv(name, str(tmp_path))
    done = kdbench("track", reference.folder, "--to", "wandb")
    assert done.returncode == 0 and "`wandb login`, then `wandb sync " in done.stdout, done.stderr
    assert len(runs(reference.folder)) == 5
