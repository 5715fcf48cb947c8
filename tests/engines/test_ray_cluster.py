"""Runs on a Ray cluster of several nodes, all on this machine; minutes, so they are run by `pytest -m bench -s`."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.study.test_interruptions import records, weights
from tests.support.command import COMMAND, kdbench

pytest.importorskip("ray")

from ray.cluster_utils import Cluster

pytestmark = pytest.mark.bench

Short = Callable[..., Path]
Grid = tuple[list[str], Path, float]

NODES = 3
PAIRS = "vit-t:resnet-s,resnet-t:mixer-s,vit-t:vit-s"


@pytest.fixture(scope="module")
def local(short_suite: Short, tmp_path_factory: pytest.TempPathFactory) -> Grid:
    """The arguments of a run, the results of the local engine, and how many seconds that took."""
    grid = ["--pairs", PAIRS, "--seeds", "2", "--methods", "kd,fitnet", "--limit", "250,250"]
    quick = ["--no-throughput", "--no-report", "--device", "cpu", "--checkpoint-every", "0.5s"]
    arguments = ["run", "--suite", str(short_suite(4)), *grid, *quick]
    folder = tmp_path_factory.mktemp("local") / "results"
    started = time.monotonic()
    done = subprocess.run([*COMMAND, *arguments, "--out", str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return arguments, folder, time.monotonic() - started


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A head that does nothing else."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    yield cluster
    cluster.shutdown()


def start(arguments: list[str], folder: Path, cluster: Cluster) -> subprocess.Popen[str]:
    engine = ["--engine", "ray", "--ray-address", cluster.address]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([*COMMAND, *arguments, *engine, "--out", str(folder)], start_new_session=True, **pipes)


def check_equal(folder: Path, expected: Path) -> None:
    """Records less timings, students, and nothing left over; the environment is that of the same machine."""
    assert records(folder) == records(expected)
    assert weights(folder) == weights(expected)
    assert not [path for path in (folder / "unfinished").rglob("*") if path.is_file()]
    assert not list(folder.rglob("*.part"))


def wait_for(what: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 300
    while not what() and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    assert what()


def checkpointed(folder: Path) -> set[Path]:
    """The pairs and seeds that are being trained and have a checkpoint."""
    return {path.parent.parent / path.name.partition("-")[0] for path in (folder / "unfinished").rglob("*@*.pt")}


def test_a_node_is_lost_half_way(local: Grid, cluster: Cluster, tmp_path: Path) -> None:
    arguments, expected, alone = local
    nodes = [cluster.add_node(num_cpus=1) for _ in range(NODES)]
    started = time.monotonic()
    process = start(arguments, tmp_path / "undisturbed", cluster)
    output = process.communicate()[0]
    undisturbed = time.monotonic() - started
    assert process.returncode == 0, output
    check_equal(tmp_path / "undisturbed", expected)

    folder = tmp_path / "results"
    started = time.monotonic()
    process = start(arguments, folder, cluster)
    wait_for(lambda: len(checkpointed(folder)) == NODES, process)
    cluster.remove_node(nodes[0], allow_graceful=False)
    output = process.communicate()[0]
    disturbed = time.monotonic() - started
    assert process.returncode == 0, output
    output = " ".join(output.split())
    assert output.count("it was lost with its node and goes on from the last checkpoint there is") == 1, output
    assert "raylet" not in output, "what Ray says of itself is not for our users"
    check_equal(folder, expected)
    print(
        f"\n{len(records(folder))} cells: {alone:.0f} s by the local engine, {undisturbed:.0f} s on {NODES} nodes of "
        f"one core, {disturbed:.0f} s with one of them lost; this machine has {os.cpu_count()} cores"
    )


def test_stopped_on_the_cluster_it_goes_on_here(local: Grid, cluster: Cluster, tmp_path: Path) -> None:
    arguments, expected, _ = local
    cluster.add_node(num_cpus=1)
    folder = tmp_path / "results"
    process = start([word if word != "0.5s" else "1h" for word in arguments], folder, cluster)
    wait_for(lambda: any((folder / "unfinished").rglob("*.lock")), process)
    os.killpg(process.pid, signal.SIGINT)
    output = process.communicate()[0]
    assert process.returncode == 130, output
    assert checkpointed(folder), "it was stopped within a training"
    done = kdbench(*arguments, "--out", folder)
    assert done.returncode == 0, done.stdout + done.stderr
    check_equal(folder, expected)


def test_what_is_not_shared_comes_back(local: Grid, cluster: Cluster, tmp_path: Path) -> None:
    """A node that sees an empty folder where the others see the results."""
    arguments, expected, _ = local
    if not shutil.which("unshare") or subprocess.run(["unshare", "--mount", "true"], check=False).returncode:
        pytest.skip("no mount namespace can be made here")
    folder = tmp_path / "hidden" / "results"
    folder.parent.mkdir()
    ray = f"{sys.executable} -m ray.scripts.scripts start --address {cluster.address} --num-cpus 2 --block"
    hide = f"mount -t tmpfs none {folder.parent} && exec {ray}"
    node = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", hide], stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
    )
    try:
        wait_for_nodes(cluster, 2)
        process = start(arguments, folder, cluster)
        output, seen = "", False
        while process.poll() is None:
            seen = seen or any((folder / "unfinished").rglob("*.lock"))
            time.sleep(0.05)
        output = process.communicate()[0]
        assert process.returncode == 0, output
        assert not seen, "the node has worked in a folder of its own"
        check_equal(folder, expected)
        assert list((folder / "environments").iterdir())
    finally:
        node.terminate()
        node.wait()


def wait_for_nodes(cluster: Cluster, count: int) -> None:
    deadline = time.monotonic() + 60
    while sum(node["Alive"] for node in cluster.global_state.node_table()) < count:
        assert time.monotonic() < deadline
        time.sleep(0.2)
