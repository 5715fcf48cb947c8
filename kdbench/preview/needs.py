"""What a run needs, measured on a few steps of each pair before it runs: time, memory, disk, and what is missing.

The estimate of the time is about as good as the machine is quiet: students that train side by side share its caches and
its memory, and the steps that are timed here have the machine to themselves.
"""

import math
import resource
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from kdbench.compute.device import Compute, default_workers
from kdbench.data.normalise import normalise
from kdbench.engines.local import CONTEXT
from kdbench.errors import KdbenchError, UnsupportedPair, describe
from kdbench.models.parameters import count_parameters
from kdbench.results.folder import Results
from kdbench.results.schema import Split
from kdbench.study.plan import MethodPlan, Plan, finished_keys
from kdbench.study.run import TOGETHER
from kdbench.suites.schema import PairSpec, Suite
from kdbench.training.arena import Arena
from kdbench.training.contender import Contender
from kdbench.training.lockstep import drawn, lockstep
from kdbench.training.teacher import current_metadata

STEPS = 3
"""Steps that are timed, after a first one that is not."""
RECORD = 3_000
"""Bytes of a record without its learning curves and the hits of each image."""


@dataclass(frozen=True)
class PairNeeds:
    """What the trainings of all methods on one pair with one seed need.

    Attributes:
        seconds: of all of them, one group after the other, with evaluations and setting up.
        throughput: seconds of the measurement of their throughput.
        memory: bytes of a process that trains the largest group; on a GPU, of the device.
        disk: bytes of the trained students and their records.
        failed: why a method cannot be trained, by method; what does not support the pair among them.
    """

    pair: str
    seconds: float
    throughput: float
    memory: int
    disk: int
    failed: dict[str, str]


@dataclass(frozen=True)
class RunNeeds:
    """What a run needs.

    Attributes:
        cells, finished: that are planned, and those of them that the results folder holds.
        workers: processes side by side.
        pairs: what is known of each pair that can be run.
        seconds: of what is left of the trainings, and of the measurements of throughput.
        memory, memory_free: bytes that all processes together need, and those that the machine, or the GPU, has left.
        disk, disk_free: bytes of what is still to be written, and those that are free where it goes.
    """

    cells: int
    finished: int
    workers: int
    pairs: list[PairNeeds]
    seconds: tuple[float, float]
    memory: int
    memory_free: int
    disk: int
    disk_free: int


def missing_teachers(suite: Suite, pairs: Sequence[PairSpec], data_root: Path) -> dict[str, str]:
    """The teachers of the pairs that are not there, with what the user can do about it."""
    missing = {}
    for teacher in dict.fromkeys(pair.teacher for pair in pairs):
        try:
            current_metadata(suite, teacher, data_root)
        except KdbenchError as error:
            missing[teacher] = str(error)
    return missing


def estimate(
    plan: Plan,
    results: Results,
    data_root: Path,
    *,
    workers: int | None = None,
    throughput: bool = True,
    on_pair: Callable[[str], None] = lambda pair: None,
) -> RunNeeds:
    """Time a few steps of every pair of a plan, and say what the run needs that is not finished yet.

    Args:
        workers: processes side by side; by default as many as the run takes.
        throughput: the run measures throughput.
        on_pair: called with the name of each pair before it is timed.
    """
    compute = plan.compute
    workers = workers or default_workers(compute)
    finished = finished_keys(results)
    cells = list(plan.own_cells())
    left = [cell for cell in cells if cell.key not in finished]
    pairs = []
    for pair in dict.fromkeys(cell.pair for cell in left):
        on_pair(pair.name)
        methods = tuple(dict.fromkeys(cell.method.name for cell in left if cell.pair == pair))
        chosen = [method for method in plan.methods if method.name in methods]
        with ProcessPoolExecutor(1, CONTEXT) as pool:
            pairs.append(pool.submit(_timed, plan.suite, pair, chosen, plan.split, compute, data_root).result())
    seeds = {each.pair: len({cell.seed for cell in left if cell.pair.name == each.pair}) for each in pairs}
    groups = sum(seeds[each.pair] * -(-len(plan.methods) // TOGETHER) for each in pairs)
    side_by_side = max(1, min(workers, groups))
    on_gpu = compute.device.type == "cuda"
    return RunNeeds(
        cells=len(cells),
        finished=len(cells) - len(left),
        workers=side_by_side,
        pairs=pairs,
        seconds=(
            sum(seeds[each.pair] * each.seconds for each in pairs) / side_by_side,
            sum(each.throughput for each in pairs) if throughput else 0.0,
        ),
        memory=max((each.memory for each in pairs), default=0) * (1 if on_gpu else side_by_side),
        memory_free=torch.cuda.mem_get_info(compute.device)[0] if on_gpu else psutil.virtual_memory().available,
        disk=sum(seeds[each.pair] * each.disk for each in pairs),
        disk_free=shutil.disk_usage(_existing(results.folder)).free,
    )


def _existing(folder: Path) -> Path:
    return next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())


def _timed(
    suite: Suite, pair: PairSpec, methods: Sequence[MethodPlan], split: Split, compute: Compute, data_root: Path
) -> PairNeeds:
    """What one pair needs, in a process of its own, whose memory is that of a worker."""
    started = time.perf_counter()
    arena = Arena.enter(suite, pair, 0, split, compute, data_root)
    recipe, steps = arena.stream.recipe, arena.stream.steps_per_epoch
    failed: dict[str, str] = {}
    seconds = time.perf_counter() - started
    count, parameters, step_seconds = 0, 0, 0.0
    for start in range(0, len(methods), TOGETHER):
        started = time.perf_counter()
        contenders = _contenders(arena, methods[start : start + TOGETHER], failed)
        draws = drawn(contenders, arena.stream, 0)
        first = next(draws)
        lockstep(contenders, arena.teacher, first, compute)
        compute.synchronise()
        seconds += time.perf_counter() - started
        started = time.perf_counter()
        for _, draw in zip(range(STEPS), draws, strict=False):
            lockstep(contenders, arena.teacher, draw, compute)
        compute.synchronise()
        step_seconds += (time.perf_counter() - started) / min(STEPS, max(1, steps - 1))
        failed |= {each.name: str(each.error) for each in contenders if each.error}
        going = [each for each in contenders if each.status is None]
        seconds += sum(_evaluation(arena, contender) for contender in going)
        count += len(going)
        parameters += sum(count_parameters(contender.student) for contender in going)
    timing = suite.timing
    warm_up = max(timing.warmup_seconds, timing.warmup_steps * step_seconds / max(1, count))
    images = len(arena.evaluation)
    return PairNeeds(
        pair=pair.name,
        seconds=seconds + recipe.epochs * steps * step_seconds,
        throughput=count * (warm_up + 2 * timing.blocks * timing.block_seconds),
        memory=_peak_memory(compute),
        disk=4 * parameters + count * (RECORD + images // 6),
        failed=failed,
    )


def _contenders(arena: Arena, methods: Sequence[MethodPlan], failed: dict[str, str]) -> list[Contender]:
    """Those that can be built; why another one cannot is added to `failed`."""
    contenders = []
    for plan in methods:
        try:
            contenders.append(arena.contender(plan.name, plan.plugin.method, plan.hyperparameters))
        except UnsupportedPair as error:
            failed[plan.name] = f"unsupported: {error}"
        except Exception as error:
            failed[plan.name] = describe(error).partition("\n")[0]
    return contenders


@torch.no_grad()
def _evaluation(arena: Arena, contender: Contender) -> float:
    """Seconds of all evaluations of a training, from the time of one batch."""
    suite, compute = arena.suite, arena.compute
    followed = arena.validation or arena.evaluation
    raw, _ = next(followed.batches(suite.eval_batch_size))
    contender.student.eval()
    started = time.perf_counter()
    with compute.autocast():
        contender.student.forward(normalise(raw, contender.student.normalisation))
    compute.synchronise()
    an_image = (time.perf_counter() - started) / len(raw)
    contender.student.train()
    points = math.ceil(arena.stream.recipe.epochs / suite.eval_every)
    return an_image * (points * len(followed) + len(arena.evaluation))


def _peak_memory(compute: Compute) -> int:
    if compute.device.type == "cuda":
        return torch.cuda.max_memory_allocated(compute.device)
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
