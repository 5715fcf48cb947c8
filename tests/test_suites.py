"""Suite files: what comes with kdbench is whole, what is wrong is told in one line."""

from pathlib import Path

import pytest

from kdbench.errors import KdbenchError
from kdbench.suites.schema import Suite, available, load
from kdbench.training.teacher import teacher_metadata
from tests.conftest import NO_DATA


@pytest.mark.parametrize("name", available())
def test_shipped_suites_load(name: str) -> None:
    assert load(name).name == name


def test_the_proxy_has_every_direction(proxy: Suite) -> None:
    hetero = proxy.select_pairs("hetero")
    kinds = {(proxy.models[pair.teacher].kind, proxy.models[pair.student].kind) for pair in hetero}
    assert kinds == {(a, b) for a in ("cnn", "transformer", "mlp") for b in ("cnn", "transformer", "mlp") if a != b}
    assert len(hetero) >= 6
    assert len(proxy.select_pairs("homo")) >= 2


def test_the_proxys_teachers_are_shipped_small_and_good(proxy: Suite) -> None:
    for teacher in {pair.teacher for pair in proxy.pairs}:
        path = proxy.teacher_path(teacher, NO_DATA)
        assert path.stat().st_size <= 2 * 2**20
        metadata = teacher_metadata(path)
        assert metadata["trained_on"] == "fashion-mnist"
        assert metadata["top1"] > 84
        assert metadata["command"].startswith("kdbench teachers train")


def test_selecting_pairs(proxy: Suite) -> None:
    names = [pair.name for pair in proxy.select_pairs("vit-t:resnet-s,homo")]
    assert names[0] == "vit-t:resnet-s" and len(names) == 3
    with pytest.raises(KdbenchError, match="unknown pair of suite proxy 'vit-t:resnet'; did you mean vit-t:resnet-s"):
        proxy.select_pairs("vit-t:resnet")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds = 3", "seeds = 0", "'seeds': input should be greater than or equal to 1, got 0"),
        ("seeds = 3", "sedes = 3", "unknown key 'sedes'"),
        ('student = "resnet-s"', 'student = "resnet-x"', "names the model 'resnet-x'"),
        ('recipe = "cnn"', 'recipe = "cn"', "names the recipe 'cn'"),
        ("[data]", "[data", "is not TOML"),
    ],
)
def test_broken_suites(proxy: Suite, tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text((proxy.folder / "proxy.toml").read_text().replace(old, new))
    with pytest.raises(KdbenchError, match=message):
        load(str(path))


def test_unknown_suites() -> None:
    with pytest.raises(KdbenchError, match="unknown suite 'proxi'; did you mean proxy"):
        load("proxi")
    with pytest.raises(KdbenchError, match="cannot read suite"):
        load("no_such.toml")
