"""Several processes that train one cell together (torchrun): each sees a part of every batch.

Gradients are averaged after the backward pass, in one message for each contender: students are small, what overlapping
the message with the backward pass would save is small too, and any method works without being wrapped.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn

from kdbench.errors import KdbenchError

TIMEOUT = timedelta(minutes=30)
"""How long a process waits for the others; the first compiles and evaluates in between."""


@dataclass(frozen=True)
class Replica:
    """One of several processes that train a cell together: each trains on a part of every batch."""

    rank: int = 0
    world: int = 1

    def of(self, batch: Tensor) -> Tensor:
        """The part of a batch that this replica trains on.

        It takes images in pairs from both ends: mixup and cutmix mix a batch with its own reverse, so that an image's
        partner is in the same part, and the replicas together see what one process would.
        """
        if self.world == 1:
            return batch
        half = len(batch) // 2
        first = batch[:half][self.rank :: self.world]
        last = batch.flip(0)[:half][self.rank :: self.world].flip(0)
        return torch.cat([first, last])


ALONE = Replica()
"""The only process, which trains on whole batches."""


def launched() -> bool:
    """This process was started by torchrun, with others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def join(device: torch.device) -> Replica:
    """Meet the other processes that torchrun started; alone, there is nothing to do.

    Raises:
        KdbenchError: they cannot meet.
    """
    if not launched():
        return ALONE
    if not distributed.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(device)
        try:
            distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
        except (RuntimeError, ValueError) as error:
            raise KdbenchError(f"the processes of this run cannot meet: {str(error).splitlines()[0]}") from error
    return Replica(distributed.get_rank(), distributed.get_world_size())


def leave() -> None:
    """Part from the other processes."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def wait_for_all() -> None:
    """Go on when every process has come here."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()


def gather(local: Tensor) -> Tensor:
    """`local` (B, ...) of every process, in order of their ranks: (B * processes, ...), with gradients.

    For losses that compare the images of a batch with each other. In a single process it is `local` itself.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return local
    return _Gather.apply(local)


def everyone(local: Tensor) -> list[Tensor]:
    """`local` of every process, in order of their ranks; alone, that of this one."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return [local]
    # NCCL sends what is on the GPU only.
    device = torch.device("cuda", torch.cuda.current_device()) if distributed.get_backend() == "nccl" else local.device
    parts = [torch.empty_like(local, device=device) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, local.to(device))
    return [part.to(local.device) for part in parts]


def agreed(wish: bool) -> bool:
    """What the first process wishes, in all of them."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return wish
    wishes: list[bool | None] = [wish]
    distributed.broadcast_object_list(wishes)
    return bool(wishes[0])


class _Gather(torch.autograd.Function):
    """All-gather whose backward adds up what every process's loss says of this process's part."""

    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        ctx.count = len(local)
        parts = [torch.empty_like(local) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, local.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        # A copy: autograd may hand the same tensor on to others.
        everybodys = grads[0].clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(everybodys)
        first = distributed.get_rank() * ctx.count
        return everybodys[first : first + ctx.count]


def average_gradients(parameters: Sequence[Tensor]) -> None:
    """Replace every gradient by its mean over the processes."""
    average([parameter.grad for parameter in parameters if parameter.grad is not None])


def average_buffers(model: nn.Module) -> None:
    """Replace the floating-point buffers (running statistics of batch norm) by their means over the processes."""
    average([buffer for buffer in model.buffers() if buffer.is_floating_point()])


def average(tensors: Iterable[Tensor]) -> None:
    """Replace tensors of one type by their means over the processes, in one message."""
    tensors = list(tensors)
    if not tensors:
        return
    message = torch.cat([tensor.flatten() for tensor in tensors])
    distributed.all_reduce(message)
    message /= distributed.get_world_size()
    means = message.split([tensor.numel() for tensor in tensors])
    torch._foreach_copy_(  # type: ignore[attr-defined]
        tensors, [mean.view_as(tensor) for mean, tensor in zip(means, tensors, strict=True)]
    )
