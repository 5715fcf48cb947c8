"""Several processes for one cell: two gloo processes end where a single one with the same global batch does."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import multiprocessing
from torch.nn.parallel import DistributedDataParallel

from kdbench.compute.device import Compute, resolve
from kdbench.compute.distributed import Replica, gather, join, leave
from kdbench.data import opening
from kdbench.errors import KdbenchError
from kdbench.models.features import Needs
from kdbench.results.folder import Results
from kdbench.testing import staged
from tests.conftest import NO_DATA
from tests.support.course import METHODS, RECIPE, Course

pytestmark = pytest.mark.runs

SGD = RECIPE.model_copy(update={"optimizer": "sgd", "lr": 0.05})
PROCESSES = 2


@pytest.mark.parametrize("world", [1, 2, 4])
def test_shards_are_the_batch_and_keep_mixing_partners_together(world: int) -> None:
    batch = torch.arange(16)
    replicas = [Replica(rank, world).of(batch) for rank in range(world)]
    assert sorted(torch.cat(replicas).tolist()) == list(range(16))
    for replica in replicas:
        assert torch.equal(replica + replica.flip(0), torch.full_like(replica, 15)), "partners mirror each other"


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _process(rank: int, port: int, work: Callable[[], Any], out: Path) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(PROCESSES),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    torch.set_num_threads(1)
    torch.save(work(), out / f"{rank}.pt")
    leave()


def _in_processes(work: Callable[[], Any], out: Path) -> list[Any]:
    """What `work` returns in each of two processes that know of each other."""
    multiprocessing.spawn(_process, args=(_free_port(), work, out), nprocs=PROCESSES)
    return [torch.load(out / f"{rank}.pt") for rank in range(PROCESSES)]


def _gathered() -> tuple[torch.Tensor, torch.Tensor]:
    rank = join(torch.device("cpu")).rank
    x = torch.arange(6.0).view(3, 2) + 10 * rank
    x.requires_grad_()
    gather(x).square().sum().backward()
    assert x.grad is not None
    return gather(x).detach(), x.grad


def test_gather_returns_everybodys_rows_with_gradients(tmp_path: Path) -> None:
    parts = [torch.arange(6.0).view(3, 2) + 10 * rank for rank in range(PROCESSES)]
    for rank, (everybodys, gradient) in enumerate(_in_processes(_gathered, tmp_path)):
        assert torch.equal(everybodys, torch.cat(parts))
        # Each process has a loss of its own over all rows; what they say of a row adds up.
        assert torch.equal(gradient, PROCESSES * 2 * parts[rank])


def _staged_gradients() -> dict[str, torch.Tensor]:
    """Under torch's own wrapper where there are several processes; a loss on everything a staged pass returns."""
    replica = join(torch.device("cpu"))
    found = {}
    for name in ("vit_tiny_patch16_224", "test_convnext"):
        model = staged(name, size=32, **({"depth": 4, "embed_dim": 48} if name.startswith("vit") else {}))
        images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(3))
        forward = DistributedDataParallel(model) if replica.world > 1 else model
        outputs = forward(images[replica.of(torch.arange(4))], Needs(frozenset(model.stages), pooled=True))
        stages = sum(feature.map.square().mean() for feature in outputs.stages.values())
        (outputs.logits.square().mean() + outputs.pooled.square().mean() + stages).backward()
        found |= {f"{name} {key}": p.grad for key, p in model.named_parameters() if p.grad is not None}
    return found


def test_a_staged_model_in_torchs_own_wrapper(tmp_path: Path) -> None:
    single = _staged_gradients()
    assert len(single) > 50
    for found in _in_processes(_staged_gradients, tmp_path):
        assert found.keys() == single.keys()
        for key, gradient in single.items():
            torch.testing.assert_close(found[key], gradient, rtol=1e-4, atol=1e-6, msg=key)


def _trained() -> dict[str, dict[str, Any]]:
    compute = resolve("cpu", "fp32")
    found = {}
    for name, contender in Course("plain", compute, SGD).train(*METHODS).items():
        with contender.evaluated() as model:
            found[name] = {
                "student": contender.student.model.state_dict(),
                "averaged": model.model.state_dict(),
                "method": contender.method.state_dict(),
                "losses": contender.losses,
            }
    return found


def test_two_processes_end_where_one_does(tmp_path: Path) -> None:
    """All methods, mixup and cutmix on; InfoNCE sees the negatives of both processes."""
    single = _trained()
    for found in _in_processes(_trained, tmp_path):
        for name in METHODS:
            for part in ("student", "averaged", "method"):
                for key, tensor in single[name][part].items():
                    torch.testing.assert_close(
                        found[name][part][key], tensor, rtol=1e-3, atol=1e-4, msg=f"{name} {part} {key}"
                    )
            for term, values in single[name]["losses"].items():
                assert found[name]["losses"][term] == pytest.approx(values, rel=1e-3), (name, term)


def test_a_run_under_torchrun(short_suite: Callable[..., Path], tmp_path: Path) -> None:
    """The first process writes the records, none writes twice, the same command then has nothing to do."""
    suite = short_suite(text=lambda text: text.replace("batch_size = 25", "batch_size = 20"))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={_free_port()}"]
    command += ["-m", "kdbench", "run", "--suite", str(suite), "--pairs", "vit-t:vit-s", "--seeds", "1"]
    command += ["--methods", "kd,assistant", "--device", "cpu", "--out", str(tmp_path)]
    for expected in ("0 finished, 3 to run", "3 finished, 0 to run"):
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert " ".join(done.stdout.split()).count(expected) == 1, done.stdout
    assert {cell["status"] for cell in Results(tmp_path).cells()} == {"done"}


def test_a_batch_that_cannot_be_shared(proxy: Any) -> None:
    compute = Compute(torch.device("cpu"), "fp32", threads=1, replica=Replica(0, 2))
    recipe = proxy.recipe_of("vit-s")
    with pytest.raises(KdbenchError, match="a batch of 25 images cannot be shared in equal pairs by 2 processes"):
        opening.open_training(proxy.data, NO_DATA, 0.1, recipe, compute, seed=0, pair="vit-t:vit-s")
