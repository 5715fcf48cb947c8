"""A contender: one student trained by one method, with everything that belongs to its training."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from kdbench.compute.device import Compute
from kdbench.compute.distributed import average, average_buffers, average_gradients, everyone
from kdbench.compute.failures import ending
from kdbench.compute.stopwatch import Stopwatch
from kdbench.data.batch import Batch, Draw
from kdbench.data.seeds import derive_seed
from kdbench.method import Method
from kdbench.models.features import Needs, Outputs
from kdbench.models.parameters import count_parameters
from kdbench.models.staged import StagedModel
from kdbench.results.schema import ExtremeRecord, Status
from kdbench.suites.schema import Recipe
from kdbench.training.optim import build_optimizer, build_scheduler

Mark = Callable[[str], None]
"""Called with the name of a phase when it ends; the throughput measurement passes one that reads a clock."""


def no_mark(phase: str) -> None:
    """Ignore the end of a phase."""


class RandomStream:
    """A random stream of one contender, so that its dropout draws do not depend on who trains beside it."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self._cuda = device if device.type == "cuda" else None
        with torch.random.fork_rng(devices=[device] if self._cuda else []):
            torch.manual_seed(seed)
            self._save()

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make this the process's stream for a while."""
        torch.set_rng_state(self._state)
        if self._cuda is not None:
            torch.cuda.set_rng_state(self._cuda_state, self._cuda)
        try:
            yield
        finally:
            self._save()

    @property
    def state(self) -> list[Tensor]:
        """Where the stream is: on the host, and on the GPU if there is one."""
        return [self._state] if self._cuda is None else [self._state, self._cuda_state]

    @state.setter
    def state(self, state: list[Tensor]) -> None:
        self._state = state[0]
        if self._cuda is not None:
            self._cuda_state = state[1]

    def _save(self) -> None:
        self._state = torch.get_rng_state()
        if self._cuda is not None:
            self._cuda_state = torch.cuda.get_rng_state(self._cuda)


class Extremes:
    """The loss of the first step, and the largest loss and gradient norm of a step so far.

    They stay on the device until they are asked for: reading them in a step would wait for the device.
    """

    def __init__(self, device: torch.device) -> None:
        self.step = 0
        self._first = torch.zeros((), dtype=torch.float32, device=device)
        self._largest = torch.tensor([-torch.finfo(torch.float32).max, 0.0], dtype=torch.float32, device=device)
        self._steps = torch.zeros(2, device=device, dtype=torch.int64)

    def look(self, loss: Tensor, gradient: Tensor) -> None:
        """Take in a step: its loss and the norm of its gradient before clipping, both scalars on the device."""
        self.step += 1
        if self.step == 1:
            self._first = loss
        # A number beyond all bounds is the largest there is, so that records hold a number.
        values = torch.stack([loss, gradient]).nan_to_num(nan=0.0)
        larger = values > self._largest
        self._largest = torch.where(larger, values, self._largest)
        self._steps.masked_fill_(larger, self.step)

    def record(self) -> ExtremeRecord:
        """What the record of a cell holds of them."""
        loss, gradient = self._largest.tolist()
        loss_step, gradient_step = self._steps.tolist()
        return ExtremeRecord(
            first_loss=self._first.item(),
            loss=loss,
            loss_step=loss_step,
            gradient=gradient,
            gradient_step=gradient_step,
        )

    def state(self) -> list[Any]:
        """All of it, for a checkpoint."""
        return [self.step, self._first, self._largest, self._steps]

    def restore(self, state: Sequence[Any]) -> None:
        """Go on from `state` (tensors on the host)."""
        self.step, *tensors = state
        self._first, self._largest, self._steps = (tensor.to(self._largest.device) for tensor in tensors)


class Contender:
    """One student, its method, optimizer, schedule, moving average and random stream.

    Attributes:
        name: the method's name.
        student: the staged student.
        method: the method, with its projectors.
        status: None while it trains, then how it ended.
        error: why it ended, when it did not end well.
        losses: mean of every loss term by finished epoch.
        lr: learning rate at the end of every epoch.
        extremes: the largest loss and gradient norm of a step.
        stopwatch: has the seconds that were spent on it alone.
        limit: how many of them it may take; None for any number.
        running: is entered whenever its code runs.
    """

    def __init__(
        self,
        name: str,
        student: StagedModel,
        method: Method,
        recipe: Recipe,
        compute: Compute,
        *,
        steps_per_epoch: int,
        stream: RandomStream,
    ) -> None:
        self.name = name
        self.student = student
        self.method = method
        self.status: Status | None = None
        self.error: str | None = None
        self.losses: dict[str, list[float]] = {}
        self.lr: list[float] = []
        self.stopwatch = Stopwatch(compute.device)
        self.limit: float | None = None
        self.running: Callable[[], AbstractContextManager[object]] = nullcontext
        self._recipe = recipe
        self._stream = stream
        self._compute = compute
        self._optimizer = build_optimizer(recipe, student.model, method)
        self._scheduler = build_scheduler(recipe, self._optimizer, steps_per_epoch)
        self._ema = ModelEmaV3(student.model, decay=recipe.ema, foreach=True) if recipe.ema else None
        self._parameters = [p for group in self._optimizer.param_groups for p in group["params"]]
        self.extremes = Extremes(compute.device)
        self._sums: Tensor | None = None
        self._loss: Tensor | None = None
        self._terms: list[str] = []
        # Of the batches (or parts of one) of the running epoch, those after which the sum of each term was finite.
        self._finite = torch.zeros(0, dtype=torch.int32)
        self._parts = 0
        student.train()
        method.train()

    @property
    def alone(self) -> bool:
        """No other process trains a part of this contender."""
        return self._compute.replica.world == 1

    @property
    def built_bytes(self) -> int:
        """Bytes of its tensors before its first step, after which the optimizer has some, too."""
        modules = filter(None, (self.student.model, self.method, self._ema))
        return sum(tensor.nbytes for module in modules for tensor in (*module.parameters(), *module.buffers()))

    @property
    def extra_parameters(self) -> int:
        """The number of trainable parameters of the method."""
        return count_parameters(self.method, trainable=True)

    @property
    def predictor(self) -> Method | None:
        """The method, where it is what answers at evaluation."""
        return self.method if self.method.inference_needs is not None else None

    def views(self, draw: Draw) -> list[Tensor]:
        """The images of a batch as the student takes them, and a second view if the method asks for one."""
        return [draw.view(self.student, second) for second in ((False, True) if self.method.second_view else (False,))]

    def learn(
        self, views: Sequence[Tensor], teacher: Outputs | None, batch: Batch, share: float = 1.0, mark: Mark = no_mark
    ) -> None:
        """Add the gradients of a batch, or of a part of one.

        Args:
            views: the images, normalised for this student, and a second view of them if the method asks for one.
            teacher: what the teacher said of the same images; None for a method that uses none.
            share: of this part in the batch.
        """
        with self._stream.active():
            with self._compute.autocast():
                outputs = student_outputs(self.student, views, self.method.student_needs)
                mark("student")
                terms = self.method(outputs, teacher if self.method.teacher_needs is not None else None, batch)
                loss = total(terms)
                mark("method")
            (loss if share == 1 else share * loss).backward()
            mark("backward")
        # Losses are summed on the device and read once an epoch: reading them here would wait for the device.
        losses = torch.stack([term.detach().float() for term in terms.values()])
        if share != 1:
            losses *= share
        self._loss = losses.sum() if self._loss is None else self._loss + losses.sum()
        if self._sums is None:
            self._terms, self._sums = list(terms), losses
            self._finite = torch.isfinite(losses).int()
            self._parts = 0
        elif list(terms) == self._terms:
            self._sums += losses
            self._finite += torch.isfinite(self._sums)
        else:
            raise ValueError(f"the loss terms changed within an epoch, from {self._terms} to {list(terms)}")
        self._parts += 1

    def update(self, mark: Mark = no_mark) -> None:
        """One optimizer step with the gradients that were added up, then on along the schedule."""
        if self._compute.replica.world > 1:
            average_gradients(self._parameters)
        if self._recipe.clip_grad:
            norm = nn.utils.clip_grad_norm_(self._parameters, self._recipe.clip_grad)
        else:
            norm = nn.utils.get_total_norm([p.grad for p in self._parameters if p.grad is not None])
        assert self._loss is not None
        self.extremes.look(self._loss, norm)
        self._loss = None
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._scheduler.step()
        if self._ema is not None:
            self._ema.update(self.student.model)
        mark("optimizer")

    def end_epoch(self, epoch: int, steps: int) -> None:
        """Read the losses of an epoch (`epoch` epochs are finished); one that diverged is closed."""
        assert self._sums is not None
        if self._compute.replica.world > 1:
            average([self._sums])
            for model in filter(None, (self.student.model, self._ema, self.predictor)):
                average_buffers(model)
        for term, total in zip(self._terms, self._sums.tolist(), strict=True):
            self.losses.setdefault(term, []).append(total / steps)
        self.lr.append(self._optimizer.param_groups[0]["lr"])
        if not bool(torch.isfinite(self._sums).all()):
            # What is not finite makes the weights so, and those every term: the first ones tell.
            finite = dict(zip(self._terms, self._finite.tolist(), strict=True))
            bad = {
                term: finite[term]
                for term, isfinite in zip(self._terms, torch.isfinite(self._sums).tolist(), strict=True)
                if not isfinite
            }
            first = min(bad.values())
            terms = " and ".join(term for term, count in bad.items() if count == first)
            step = f", step {first * steps // self._parts + 1} of {steps}" if first < self._parts else ""
            self.close("diverged", f"the loss term {terms} became non-finite in epoch {epoch}{step}")
        self._sums = None

    def state(self) -> dict[str, Any]:
        """All that the rest of the training depends on, and what is known of the part that is done.

        Tensors, numbers, strings and containers of them, shared with the contender. Processes that train it together
        all have to ask, and get the same.
        """
        return {
            "student": self.student.model.state_dict(),
            "method": self.method.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scheduler": self._scheduler.state_dict(),
            "ema": None if self._ema is None else self._ema.module.state_dict(),
            "random": [everyone(state) for state in self._stream.state],
            "extremes": self.extremes.state(),
            "sums": self._sums,
            "finite": self._finite,
            "parts": self._parts,
            "terms": self._terms,
            "losses": self.losses,
            "lr": self.lr,
            "seconds": self.stopwatch.seconds,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from where `state` was taken (tensors on the host); its tensors are not to be used again."""
        self.student.model.load_state_dict(state["student"])
        # Parameters and buffers would be copied to the device in any case; a method's extra state would not.
        device = self._compute.device
        self.method.load_state_dict(tree_map_only(Tensor, lambda tensor: tensor.to(device), dict(state["method"])))
        self._optimizer.load_state_dict(state["optimizer"])
        self._scheduler.load_state_dict(state["scheduler"])
        if self._ema is not None:
            self._ema.module.load_state_dict(state["ema"])
        self._stream.state = [each[self._compute.replica.rank] for each in state["random"]]
        self.extremes.restore(state["extremes"])
        self._sums = None if state["sums"] is None else state["sums"].to(device)
        self._finite, self._parts = state["finite"].to(device), state["parts"]
        self._terms, self.losses, self.lr = state["terms"], state["losses"], state["lr"]
        self.stopwatch = Stopwatch(device, state["seconds"])

    @contextmanager
    def evaluated(self) -> Iterator[StagedModel]:
        """The student as it is to be evaluated and kept: with the averaged weights where the recipe averages."""
        if self._ema is None:
            yield self.student
            return
        raw = self.student.model
        self.student.model = self._ema.module
        try:
            yield self.student
        finally:
            self.student.model = raw

    def close(self, status: Status, error: str | None = None) -> None:
        """End this contender; its memory is given back, the others go on."""
        self.status, self.error = status, error
        self._optimizer.zero_grad(set_to_none=True)
        self._optimizer.state.clear()
        self._ema = None if status != "done" else self._ema


def student_outputs(run: Callable[[Tensor, Needs], Outputs], views: Sequence[Tensor], needs: Needs) -> Outputs:
    """What a student makes of a view, and of a second one where there is one."""
    outputs, *again = (run(images, needs) for images in views)
    return outputs.with_second(again[0]) if again else outputs


def total(terms: Mapping[str, Tensor]) -> Tensor:
    """The sum of loss terms, what a student is trained on."""
    first, *others = terms.values()
    return sum(others, start=first)


@contextmanager
def isolated(contender: Contender) -> Iterator[None]:
    """The code inside is a contender's own: what goes wrong there closes it with the fitting status, and no other.

    Where several processes train a cell together it ends the run: the others would wait for this one for ever.
    """
    with contender.running(), contender.stopwatch.running():
        if contender.alone:
            with _closing(contender):
                yield
        else:
            yield
    if contender.limit is not None and contender.status is None and contender.stopwatch.seconds > contender.limit:
        contender.close("timeout", f"it took more than {contender.limit:.0f} seconds; give it more with --time-limit")


@contextmanager
def _closing(contender: Contender) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        contender.close(*ending(error))


def build_contender(
    name: str,
    make_student: Callable[[], StagedModel],
    make_method: Callable[[StagedModel], Method],
    recipe: Recipe,
    compute: Compute,
    *,
    steps_per_epoch: int,
    seed: int,
    pair: str,
) -> Contender:
    """A contender at its fair start: the student's weights and the streams depend on seed and pair, not on the method.

    Raises:
        UnsupportedPair: the method cannot work on this pair.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "init", pair))
        student = make_student()
        torch.manual_seed(derive_seed(seed, "projectors", pair))
        # As features have it: those of convolutional networks, and those of token networks seen as maps.
        method = make_method(student).to(compute.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    # Processes that share a cell drop different units; the first, or only, one draws as a single process does.
    rank = (compute.replica.rank,) if compute.replica.rank else ()
    stream = RandomStream(derive_seed(seed, "dropout", pair, *rank), compute.device)
    return Contender(name, student, method, recipe, compute, steps_per_epoch=steps_per_epoch, stream=stream)
