"""Pairs of models that no suite lists."""

from pathlib import Path

import pytest
import timm
from timm.models import save_for_hf

from kdbench.errors import KdbenchError
from kdbench.models.create import create_model
from kdbench.names import pair_ends
from kdbench.suites.anymodel import request_of, select_pairs, with_checkpoint, with_model
from kdbench.suites.loading import load_suite
from kdbench.suites.schema import Suite

OWN = """
from torch import nn

def build(num_classes=10, in_chans=1, width=8):
    def block(i, o):
        return nn.Sequential(nn.Conv2d(i, o, 3, 2, 1), nn.BatchNorm2d(o), nn.ReLU())
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, num_classes)
    return nn.Sequential(block(in_chans, width), block(width, 2 * width), block(2 * width, 4 * width), *head)
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "mine.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return "./mine.py:build"


def test_the_suites_own_stay_as_they_are(proxy: Suite) -> None:
    suite, pairs = select_pairs(proxy, "homo,vit-t:resnet-s")
    assert suite is proxy
    assert [pair.name for pair in pairs] == ["resnet-t:resnet-s", "vit-t:vit-s", "vit-t:resnet-s"]


@pytest.mark.parametrize(
    ("word", "kinds", "recipes"),
    [
        ("swin_tiny_patch4_window7_224:resnet18", ("transformer", "cnn"), ("teacher-token", "cnn")),
        ("resnet18[layers=[1,1,1,1]]:vit-s", ("cnn", "transformer"), ("teacher-cnn", "token")),
        ("levit_128s:mixer_s32_224[num_blocks=2]", ("transformer", "mlp"), ("teacher-token", "token")),
        ("convmixer_768_32:gmlp_ti16_224", ("cnn", "mlp"), ("teacher-cnn", "token")),
        ("torchvision.models:resnet18:resnet-s", ("cnn", "cnn"), ("teacher-cnn", "cnn")),
        ("vit-t:./mine.py:build[width=16]", ("transformer", "cnn"), ("teacher-token", "cnn")),
    ],
)
def test_others_are_trained_as_those_of_their_kind(
    proxy: Suite, own: str, word: str, kinds: tuple[str, str], recipes: tuple[str, str]
) -> None:
    suite, (pair,) = select_pairs(proxy, word)
    ends = suite.models[pair.teacher], suite.models[pair.student]
    assert tuple(model.kind for model in ends) == kinds
    assert suite.is_hetero(pair) == (kinds[0] != kinds[1])
    assert ends[1].recipe == recipes[1] and ends[0].recipe in suite.recipes
    assert (ends[0].recipe.startswith("teacher")) and ends[0].recipe == recipes[0]
    again, same = select_pairs(suite, f"{request_of(suite, pair.teacher)}:{request_of(suite, pair.student)}")
    assert same == [pair] and again.models == suite.models


def test_functions_are_named_without_colon_and_path(proxy: Suite, own: str) -> None:
    suite, pairs = select_pairs(proxy, f"{own}:resnet-s,{own}[width=4]:resnet-s,all")
    assert [pair.name for pair in pairs[:2]] == ["mine.build:resnet-s", "mine.build[width=4]:resnet-s"]
    assert len(pairs) == 2 + len(proxy.pairs)
    assert suite.models["mine.build[width=4]"].kwargs == {"width": 4}
    Path("other").mkdir()
    Path("other/mine.py").write_text(OWN)
    with pytest.raises(KdbenchError, match=r"would both be called mine\.build"):
        select_pairs(suite, "other/mine.py:build:resnet-s")


def test_a_checkpoint_stands_beside_the_suites_own_teacher(proxy: Suite) -> None:
    file = Path("runs/best.pt")
    suite, pairs = with_checkpoint(proxy, proxy.select_pairs("vit-t:resnet-s,vit-t:vit-s"), file)
    assert [pair.name for pair in pairs] == ["vit-t@best:resnet-s", "vit-t@best:vit-s"]
    assert suite.models["vit-t@best"] == proxy.models["vit-t"]
    with pytest.raises(KdbenchError, match="the pairs have 2"):
        with_checkpoint(proxy, proxy.select_pairs("vit-t:resnet-s,swin-t:mixer-s"), file)


@pytest.mark.parametrize("name", ["cifar100", "imagenet1k", "cifar100-32"])
def test_any_suite_takes_any_pair(name: str) -> None:
    suite, (pair,) = select_pairs(load_suite(name), "regnetx_002:pit_ti_224")
    assert suite.is_hetero(pair) and {suite.models[pair.teacher].recipe, suite.models[pair.student].recipe} <= set(
        suite.recipes
    )


def test_a_colon_in_an_override_divides_no_pair(proxy: Suite, own: str) -> None:
    Path("mine.py").write_text(OWN.replace("width=8", 'width=8, note=""'))
    _, (pair,) = select_pairs(proxy, f'vit-t:{own}[note="a:b"]')
    assert pair_ends(pair.name) == (pair.teacher, pair.student) == ("vit-t", 'mine.build[note="a:b"]')
    _, (pair,) = with_checkpoint(proxy, [pair.model_copy(update={"student": "resnet-s"})], Path("runs/epoch:1.pt"))
    assert pair_ends(pair.name) == ("vit-t@epoch-1", "resnet-s")


def test_names_that_timm_has_changed(proxy: Suite) -> None:
    suite, (pair,) = select_pairs(proxy, "tv_resnet34[channels=[8,8,8,8]]:xception")
    assert pair.name == "resnet34.tv_in1k[channels=[8,8,8,8]]:legacy_xception"
    assert suite.models[pair.teacher].timm == "resnet34.tv_in1k"


@pytest.mark.parametrize("word", ["osi:build:resnet-s", "vit-t:osi:build", "resnet-s:osi.net:build"])
def test_a_module_that_is_not_there_is_told(proxy: Suite, word: str) -> None:
    with pytest.raises(
        KdbenchError, match=r"no module osi(\.net)? for the model .*path, as in \./osi(/net)?\.py:build"
    ):
        select_pairs(proxy, word)


def test_a_file_imports_what_lies_beside_it(proxy: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("one", "two"):
        (tmp_path / folder / "parts_beside").mkdir(parents=True)
        (tmp_path / folder / "net.py").write_text("from parts_beside.blocks import build\n")
        (tmp_path / folder / "parts_beside/__init__.py").touch()
        (tmp_path / folder / "parts_beside/blocks.py").write_text(OWN)
    suite, name = with_model(proxy, "./one/net.py:build", as_teacher=False)
    before = suite.models[name].identity
    (tmp_path / "one/parts_beside/blocks.py").write_text(OWN + "\n# another\n")
    assert suite.models[name].identity["source"] != before["source"], "what it imports is part of it"
    with pytest.raises(KdbenchError, match=r"has the name of .*one/parts_beside/\w+\.py, which is loaded already"):
        with_model(proxy, "./two/net.py:build", as_teacher=False)


def test_networks_of_a_config(proxy: Suite, tmp_path: Path) -> None:
    arguments = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 16], "num_classes": 10, "in_chans": 1}
    network = timm.create_model("resnet18", **arguments)
    save_for_hf(network, str(tmp_path / "out"), model_args=arguments)
    suite, (pair,) = select_pairs(proxy, f"local-dir:{tmp_path / 'out'}:resnet-s")
    assert pair.teacher == 'resnet18[layers=[1, 1, 1, 1],channels=[8, 8, 8, 16],global_pool="avg"]'
    built = create_model(suite.models[pair.teacher], 10, 1, 32)
    assert {n: t.shape for n, t in built.state_dict().items()} == {n: t.shape for n, t in network.state_dict().items()}
    again, (same,) = select_pairs(proxy, f"{pair.teacher}:resnet-s")
    assert same == pair and again.models == suite.models
    with pytest.raises(KdbenchError, match="cannot read what model local-dir:nowhere is"):
        select_pairs(proxy, "local-dir:nowhere:resnet-s")


def test_a_suite_without_pairs(proxy: Suite, own: str) -> None:
    bare = proxy.model_copy(update={"pairs": ()})
    suite, (pair,) = select_pairs(bare, f"{own}:resnet-s")
    assert suite.models[pair.teacher].recipe in suite.recipes
    with pytest.raises(KdbenchError, match="suite proxy has no pairs; name some"):
        select_pairs(bare, bare.usual_pairs)
