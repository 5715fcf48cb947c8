"""What a recipe becomes on the images that there are."""

from pathlib import Path

import pytest

from kdbench.data.opening import fitted_recipe
from kdbench.errors import KdbenchError
from kdbench.suites.schema import Recipe, Suite
from tests.conftest import NO_DATA
from tests.support.command import kdbench

RECIPE = Recipe(epochs=10, batch_size=50, optimizer="sgd", lr=0.05, ema=0.99)


def test_a_moving_average_longer_than_the_training_is_refused(proxy: Suite) -> None:
    """5,000 images less a fifth, held out, are 80 steps an epoch."""
    long = RECIPE.model_copy(update={"ema": 0.9999})
    told = r"ema = 0.9999\) would still hold 92% of the untrained weights after .* 800 steps; set ema to 0.9971 or less"
    with pytest.raises(KdbenchError, match=told):
        fitted_recipe(long, proxy.data, NO_DATA, 0.2)
    kept = RECIPE.model_copy(update={"ema": 0.9971})
    assert fitted_recipe(kept, proxy.data, NO_DATA, 0.2) == kept
    assert fitted_recipe(RECIPE, proxy.data, NO_DATA, 0.2) == RECIPE, "a whole training is as the suite says"


def test_a_moving_average_keeps_its_share_of_a_shorter_training(proxy: Suite) -> None:
    """What it holds of the untrained weights at the end is the same: 0.99 ** 800."""
    short = RECIPE.shortened(2)
    assert short.ema ** (2 * 80) == pytest.approx(RECIPE.ema**800)
    fewer = fitted_recipe(short, proxy.data.model_copy(update={"limit": 1000}), NO_DATA, 0.2)
    assert fewer.ema ** (2 * 20) == pytest.approx(RECIPE.ema**800)
    off = RECIPE.model_copy(update={"ema": 0.0})
    assert off.shortened(2).ema == 0


def test_it_is_refused_before_anything_runs(proxy: Suite, tmp_path: Path) -> None:
    content = (proxy.folder / "proxy.toml").read_text().replace("\nbatch_size = ", "\nema = 0.99999\nbatch_size = ")
    (tmp_path / "long.toml").write_text(content)
    (tmp_path / "teachers").symlink_to(proxy.folder / "teachers")
    words = ("--pairs", "vit-t:resnet-s", "--methods", "kd", "--out", tmp_path / "results")
    done = kdbench("run", "--suite", tmp_path / "long.toml", *words)
    assert done.returncode == 3 and "the moving average (ema = 0.99999)" in done.stderr
    assert not (tmp_path / "results").exists()
