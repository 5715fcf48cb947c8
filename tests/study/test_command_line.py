"""The command that a record tells is one that a shell reads as it was given."""

import shlex
from pathlib import Path

import pytest

from kdbench.errors import KdbenchError
from kdbench.results.folder import Results
from kdbench.study.plan import command_line
from kdbench.study.recorder import Recorder
from kdbench.suites.schema import Suite
from tests.conftest import NO_DATA

PAIR = "vit-t:resnet18[layers=[1,1,1,1]]"


@pytest.mark.parametrize("shard", [[], ["--shard", "2/9"], ["--shard=2/9"]])
def test_it_is_quoted_and_of_all_shards(monkeypatch: pytest.MonkeyPatch, shard: list[str]) -> None:
    words = ["run", "--pairs", PAIR, *shard, "--out", "my results", "--set", 'kd.note="a b"']
    monkeypatch.setattr("sys.argv", ["kdbench", *words])
    assert shlex.split(command_line()) == ["kdbench", *(word for word in words if word not in shard)]


def test_a_results_folder_that_is_gone_is_not_made_anew(proxy: Suite, tmp_path: Path) -> None:
    recorder = Recorder(proxy, proxy.pairs[0], Results(tmp_path / "moved"), NO_DATA)
    with pytest.raises(KdbenchError, match="moved was moved or deleted while a run wrote into it"):
        recorder.refuse_moved()
    Results(tmp_path / "moved").folder.mkdir()
    recorder.refuse_moved()


def test_a_hint_quotes_its_path(tmp_path: Path) -> None:
    with pytest.raises(KdbenchError, match=r"run --out '.*/my results'` first"):
        Results(tmp_path / "my results").manifest()
