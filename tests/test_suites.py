"""Suite files: what comes with kdbench is whole, what is wrong is told in one line."""

from pathlib import Path

import pytest
import torch

from kdbench.errors import KdbenchError
from kdbench.models.create import create_model
from kdbench.suites.loading import available, load_suite
from kdbench.suites.schema import Suite
from kdbench.training.teacher import teacher_metadata
from tests.conftest import NO_DATA


@pytest.mark.parametrize("name", available())
def test_shipped_suites_load(name: str) -> None:
    assert load_suite(name).name == name


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
        ("seeds = 3", "seeds = true", "'seeds': input should be a valid integer, got True"),
        ("seeds = 3", 'seeds = "3"', "'seeds': input should be a valid integer, got '3'"),
        ("reserve_holdout = true", "reserve_holdout = 1", "'data.reserve_holdout': input should be a valid boolean"),
        ("\nholdout = 0.8", "\nholdout = true", "'data.holdout': input should be a valid number, got True"),
        ('student = "resnet-s"', 'student = "resnet-x"', "names the model 'resnet-x'"),
        ('recipe = "cnn"', 'recipe = "cn"', "names the recipe 'cn'"),
        ("[data]", "[data", "is not TOML"),
    ],
)
def test_broken_suites(proxy: Suite, tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text((proxy.folder / "proxy.toml").read_text().replace(old, new))
    with pytest.raises(KdbenchError, match=message):
        load_suite(str(path))


@pytest.mark.parametrize(
    ("suite", "changes"),
    [
        ("cifar100@yaml", {"cnn": {"batch_size": 128, "lr": 0.05}, "mlp": {"batch_size": 128, "min_lr": 1e-5}}),
        ("cifar100@short", {"cnn": {"epochs": 60}, "teacher": {"epochs": 60, "lr": 5e-5}}),
        ("cifar100-32@cpu", {"teacher-cnn": {"batch_size": 64, "epochs": 150}}),
    ],
)
def test_variants_change_what_they_say_and_nothing_else(suite: str, changes: dict[str, dict[str, float]]) -> None:
    variant, base = load_suite(suite), load_suite(suite.partition("@")[0])
    assert variant.name == suite and variant.protocol != base.protocol
    assert (variant.pairs, variant.models, variant.data) == (base.pairs, base.models, base.data)
    for recipe, values in changes.items():
        for key, value in values.items():
            assert getattr(variant.recipes[recipe], key) == value
    assert variant.own_teachers(NO_DATA) == base.own_teachers(NO_DATA)


def test_unknown_variants() -> None:
    with pytest.raises(KdbenchError, match="unknown variant of suite cifar100 'yml'; did you mean yaml"):
        load_suite("cifar100@yml")


def test_extending_recipes(proxy: Suite, tmp_path: Path) -> None:
    text = (proxy.folder / "proxy.toml").read_text()
    path = tmp_path / "mine.toml"
    path.write_text(text + '\n[recipes.long]\nextends = "token"\nepochs = 40\naugment = { flip = 0.0 }\n')
    recipes = load_suite(str(path)).recipes
    expected = recipes["token"].model_copy(update={"epochs": 40}).model_dump()
    expected["augment"]["flip"] = 0.0
    assert recipes["long"].model_dump() == expected
    path.write_text(text + '\n[recipes.a]\nextends = "b"\n\n[recipes.b]\nextends = "a"\n')
    with pytest.raises(KdbenchError, match="unknown recipe that b extends 'a'"):
        load_suite(str(path))


def test_reduced_runs_have_a_protocol_of_their_own() -> None:
    whole = load_suite("cifar100-crd")
    less = whole.reduced(24, 5000, None)
    assert less.protocol == whole.protocol + "+epochs=24,limit=5000"
    assert (less.data.limit, less.data.test_limit) == (5000, None)
    recipe = whole.recipe_of("resnet20")
    assert less.recipe_of("resnet20").epochs == 24
    assert [10 * m for m in less.recipe_of("resnet20").milestones] == pytest.approx(list(recipe.milestones), abs=5)
    assert whole.reduced(None, None, None) is whole


# Millions of parameters as published (or counted for the reconstruction of the hybrid assistant), by suite.
SIZES = {
    "cifar100": {
        "swin-t": 27.596,
        "vit-s": 21.704,
        "mixer-b16": 59.188,
        "convnext-t": 27.897,
        "resnet18": 11.228,
        "mobilenetv2": 2.352,
        "deit-t": 5.544,
        "swin-p": 5.160,
        "resmlp-s12": 15.004,
    },
    "imagenet1k": {
        "deit-t": 5.717,
        "swin-t": 28.288,
        "mixer-b16": 59.880,
        "resnet50": 25.557,
        "convnext-t": 28.589,
        "resnet34": 21.798,
        "resnet18": 11.690,
        "mobilenetv2": 3.505,
        "swin-n": 9.600,
        "resmlp-s12": 15.351,
    },
}


@pytest.mark.parametrize(("suite", "model"), [(suite, model) for suite, sizes in SIZES.items() for model in sizes])
def test_models_have_the_published_size(suite: str, model: str) -> None:
    whole = load_suite(suite)
    classes = whole.data.classes
    assert classes is not None and set(whole.models) == set(SIZES[suite])
    with torch.device("meta"):
        built = create_model(whole.models[model], classes, 3, whole.data.image_size)
    assert sum(p.numel() for p in built.parameters()) / 1e6 == pytest.approx(SIZES[suite][model], abs=6e-4)


@pytest.mark.parametrize(("suite", "hetero"), [("cifar100", 12), ("imagenet1k", 15), ("cifar100-crd", 0)])
def test_the_pairs_of_the_literature(suite: str, hetero: int) -> None:
    whole = load_suite(suite)
    pairs = whole.select_pairs("hetero") if hetero else []
    assert len(pairs) == hetero
    if suite == "cifar100-crd":
        assert len(whole.pairs) == 13
    assert all(whole.models[end].published for pair in whole.pairs for end in (pair.teacher, pair.student))


def test_unknown_suites() -> None:
    with pytest.raises(KdbenchError, match="unknown suite 'proxi'; did you mean proxy"):
        load_suite("proxi")
    with pytest.raises(KdbenchError, match="cannot read suite"):
        load_suite("no_such.toml")
