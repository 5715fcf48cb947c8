"""What the tests share. Threads are pinned: results on a CPU are bit-identical for a fixed thread count only."""

import multiprocessing
import os
import re

os.environ["OMP_NUM_THREADS"] = "1"

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from kdbench.compute.device import Compute
from kdbench.suites.loading import load_suite
from kdbench.suites.schema import Suite
from tests.support import simulated_gpu

torch.set_num_threads(1)

NO_DATA = Path("no-such-folder")
"""The data folder where everything needed comes with kdbench."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The inner loop, `-m "not runs"`, is without what wants an idle machine, too."""
    for item in items:
        if item.get_closest_marker("bench"):
            item.add_marker(pytest.mark.runs)


@pytest.fixture
def cpu() -> Compute:
    return Compute(torch.device("cpu"), "fp32", threads=1)


@pytest.fixture(scope="session")
def on_gpu() -> Iterator[Callable[..., Any]]:
    """Calls a function of a test module, with arguments, in a process that has a simulated GPU."""
    if not simulated_gpu.AVAILABLE:
        pytest.skip("no GPU is simulated beside a real one, or elsewhere than on x86-64 Linux")
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawned, initializer=simulated_gpu.install) as pool:
        yield lambda function, *arguments: pool.submit(function, *arguments).result()


@pytest.fixture(scope="session")
def proxy() -> Suite:
    return load_suite("proxy")


@pytest.fixture(scope="session")
def short_suite(proxy: Suite, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a suite file: the proxy with its real models, teachers and data, but one epoch, and what is overridden."""

    def write(epochs: int = 1, text: Callable[[str], str] = lambda text: text) -> Path:
        source = proxy.folder / "proxy.toml"
        content = source.read_text()
        content = re.sub(r"(?m)^epochs = \d+", f"epochs = {epochs}", content)
        content = content.replace("warmup_epochs = 1", "warmup_epochs = 0")
        content = content.replace("blocks = 36", "blocks = 3").replace("warmup_seconds = 0.4", "warmup_seconds = 0")
        path = tmp_path_factory.mktemp("suite") / "short.toml"
        path.write_text(text(content))
        (path.parent / "teachers").symlink_to(proxy.folder / "teachers")
        return path

    return write
