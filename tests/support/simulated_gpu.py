"""A simulated CUDA device, for machines without one: what a training does to a GPU, counted on a CPU.

Tensors say that they are on cuda:0, to Python and to autograd and autocast in C++ alike, so that everything takes the
way that it takes on a GPU. Their numbers are computed on the CPU, or left out (`GPU.forget_values`) where only shapes
matter. An operation on tensors of two devices fails as it does on a GPU. What is counted, each with the line of kdbench
(or else of timm) that caused it:

* synchronisations: the host waits for the device, as it reads a value or copies memory that is not pinned;
* kernels: every operation that is no view and no bare allocation is one, but for those in `_SEVERAL`;
* bytes that kernels read and write, a broadcast axis counted once;
* memory that is alive, by storage.

Not shown: time, streams, CUDA graphs, compiled code, the choices of cuDNN and cuBLAS, NCCL.

A process that called `install` has the device from then on. Tests use the fixture `on_gpu`, which has a process of its
own: autograd starts its threads, one for each device, once in a process.
"""

import ctypes
import mmap
import platform
import sys
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn
from unittest.mock import Mock

import kdbench_methods
import timm
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils import _foreach_utils
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

import kdbench

AVAILABLE = not torch.cuda.is_available() and platform.machine() == "x86_64" and sys.platform == "linux"
"""Whether the device can be simulated here; where there is a real one, it is not."""
CUDA = torch.device("cuda", 0)
HALF = torch.bfloat16, torch.float16

_OURS = tuple(str(Path(str(package.__file__)).parent) for package in (kdbench, kdbench_methods))
_TIMM = str(Path(timm.__file__).parent)
_NO_KERNEL = {
    *("empty", "empty_like", "empty_strided", "empty_permuted", "new_empty", "new_empty_strided", "detach", "alias"),
    *("_unsafe_view", "_reshape_alias", "lift_fresh", "set_", "resize_", "is_same_size"),
    *("_local_scalar_dense", "equal"),
}
_SEVERAL = {"convolution_backward": 2, "linalg_qr": 20, "sort": 4, "topk": 2, "nll_loss_backward": 2}
"""Operations that are more than one kernel, roughly."""
_TENSORS_A_LAUNCH = (110, 64, 48, 36, 30)
"""How many tensors a multi-tensor kernel takes at most, by the number of its lists (ATen's MultiTensorApply.cuh)."""
_WAITS = {
    "_local_scalar_dense": "a value is read",
    "equal": "tensors are compared",
    "nonzero": "the size of the result depends on values",
    "masked_select": "the size of the result depends on values",
    "_unique2": "the size of the result depends on values",
    "bincount": "the size of the result depends on values",
    "_linalg_svd": "a decomposition is checked",
    "_linalg_eigh": "a decomposition is checked",
}
_on_host = functional.scaled_dot_product_attention
_NESTS = list, tuple, type({}.values())
_INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}
_PRODUCTS = {"convolution", "convolution_backward", "mm", "addmm", "bmm", "baddbmm", "mv", "dot"}


class SimulatedTensor(torch.Tensor):
    """A tensor on the simulated device; `held` has its numbers, on the CPU, or on meta without any."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "SimulatedTensor":
        made = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=CUDA,
        )
        made.held = held
        GPU.track(held)
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return GPU.run(func, args, kwargs or {})

    def __repr__(self) -> str:  # type: ignore[override]
        return f"simulated({self.held})"

    def __deepcopy__(self, memo: dict[int, Any]) -> "SimulatedTensor":
        if id(self) not in memo:
            with torch.no_grad():
                memo[id(self)] = self.detach().clone().requires_grad_(self.requires_grad)
            if isinstance(self, torch.nn.Parameter):
                memo[id(self)]._is_param = True
        return memo[id(self)]

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.held.__reduce_ex__(protocol)

    def numpy(self, **options: Any) -> NoReturn:  # type: ignore[override]
        raise TypeError("a tensor on cuda:0 has no numpy array; copy it to the host first")

    def tolist(self) -> Any:
        GPU.waits("a value is read")
        return self.held.tolist()

    def record_stream(self, stream: Any) -> None:  # type: ignore[override]
        """There is one stream."""


class SimulatedGpu(TorchDispatchMode):
    """The device and its counts since `reset`.

    Attributes:
        waits_at: synchronisations by (why, line).
        kernels: launches by (operation, line).
        traffic: bytes read and written by line.
        alive: bytes that are allocated, by the line that allocated them.
        peak: the most that was allocated at once.
        products: matrix products by the types of their factors and line.
        lost: every operation fails from now on, as after an assertion in a kernel.
    """

    def __init__(self) -> None:
        super().__init__()
        self.alive: Counter[str] = Counter()
        self.has_values = True
        self.lost = False
        self._allocated = 0
        self.reset()

    def reset(self) -> None:
        """Count anew; what is alive stays."""
        self.waits_at: Counter[tuple[str, str]] = Counter()
        self.kernels: Counter[tuple[str, str]] = Counter()
        self.traffic: Counter[str] = Counter()
        self.products: Counter[tuple[str, str]] = Counter()
        self.peak = self._allocated

    @property
    def allocated(self) -> int:
        return self._allocated

    def operations(self, *names: str) -> int:
        """How often these operations were launched."""
        return sum(count for (name, _), count in self.kernels.items() if name in names)

    def forget_values(self) -> None:
        """From here on shapes only, so that real sizes can be counted; reading a value is an error."""
        import gc

        self.has_values = False
        for tensor in gc.get_objects():
            if type(tensor) is SimulatedTensor:
                with _disable_current_modes():
                    tensor.held = tensor.held.to("meta")
                self.track(tensor.held)

    def waits(self, why: str) -> None:
        """The host waits for the device."""
        self.waits_at[why, _line()] += 1
        if not self.has_values:
            raise RuntimeError(f"a value is read where only shapes are known: {why} at {_line()}")

    def track(self, held: Tensor) -> None:
        """Count a storage, once, as long as it lives."""
        storage = held.untyped_storage()
        if hasattr(storage, "tracked"):
            return
        storage.tracked = True  # type: ignore[attr-defined]
        size, line = storage.nbytes(), _line()
        self._change(line, size)
        weakref.finalize(storage, self._change, line, -size).atexit = False

    def _change(self, line: str, size: int) -> None:
        self.alive[line] += size
        self._allocated += size
        self.peak = max(self.peak, self._allocated)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return self.run(func, args, kwargs or {})

    def run(self, func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        """An operation, on the device where one of its tensors is, or where it is asked for there."""
        name = func._schema.name.partition("::")[2]
        given = [*_tensors(args), *_tensors(kwargs.values())]
        own = [tensor for tensor in given if isinstance(tensor, SimulatedTensor)]
        device = kwargs.get("device")
        asked = device is not None and torch.device(device).type == "cuda"
        if not own and not asked:
            return func(*args, **kwargs)
        if self.lost:
            raise torch.AcceleratorError("CUDA error: device-side assert triggered (simulated)")
        if name in ("_to_copy", "copy_"):
            return self._copy(func, name, args, kwargs)
        self._check_devices(name, args, given, func)
        if name in _WAITS:
            self.waits(_WAITS[name])
        if name in _INDEXING and any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1]):
            self.waits("the size of the result depends on values")
        result = self._computed(func, name, *self._unwrapped(args, kwargs))
        self._count(func, name, own, result)
        return _wrapped(func, args, result)

    def _check_devices(self, name: str, args: tuple, given: list[Tensor], func: Any) -> None:
        for tensor in given:
            if isinstance(tensor, SimulatedTensor) or tensor.device.type != "cpu":
                continue
            if tensor.ndim == 0 and (torch.Tag.pointwise in func.tags or name.startswith(("_foreach", "_fused"))):
                continue
            if name in _INDEXING and tensor is not args[0]:
                self.waits("an index is copied to the device")
                continue
            raise RuntimeError(
                "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! "
                f"({name} of {tuple(tensor.shape)} at {_line()})"
            )

    def _unwrapped(self, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        place = "cpu" if self.has_values else "meta"
        given = {key: value for key, value in kwargs.items() if key != "pin_memory"}
        if given.get("device") is not None:
            given["device"] = place
        if not self.has_values and "generator" in given:
            given["generator"] = None

        def plain(value: Any) -> Any:
            if isinstance(value, SimulatedTensor):
                return value.held
            return value.to(place) if isinstance(value, Tensor) and not self.has_values else value

        return _map(plain, args), _map(plain, given)

    def _computed(self, func: Any, name: str, args: tuple, kwargs: dict[str, Any]) -> Any:
        if name.startswith("_scaled_dot_product_efficient_attention"):
            return (_attention_gradients if name.endswith("backward") else _attention)(*args, **kwargs)
        if not self.has_values and name.startswith("_fused_"):
            return None
        if name in _PRODUCTS:
            kinds = {tensor.dtype for tensor in _tensors(args)}
            self.products["x".join(sorted(str(kind).removeprefix("torch.") for kind in kinds)), _line()] += 1
            if self.has_values and len(kinds) == 1 and (kind := kinds.pop()) in HALF:
                # As tensor cores do: half the precision in what enters, not in the sums.
                found = func(*_map(lambda x: _cast(x, torch.float32), args), **kwargs)
                return _map(lambda x: _cast(x, kind), found)
        return func(*args, **kwargs)

    def _copy(self, func: Any, name: str, args: tuple, kwargs: dict[str, Any]) -> Any:
        """A conversion or a copy, perhaps between host and device."""
        if name == "copy_":
            target, source, *rest = args
            waits = not (rest and rest[0])
        else:
            source, waits = args[0], not kwargs.get("non_blocking")
            device = kwargs.get("device")
            on_device = isinstance(source, SimulatedTensor) if device is None else torch.device(device).type == "cuda"
            target = on_device
        there = isinstance(target, SimulatedTensor) or target is True
        here = isinstance(source, SimulatedTensor)
        if here and not there:
            self.waits("a value is read")
        elif there and not here and waits and not (source.ndim == 0 and name == "copy_"):
            self.waits("memory that is not pinned is copied to the device")
        args, rest_of = self._unwrapped(args, kwargs) if there else (_map(_held, args), dict(kwargs))
        if there and not here and name == "_to_copy":
            rest_of["device"] = "cpu" if self.has_values else "meta"
        result = func(*args, **rest_of)
        if not there:
            return target if name == "copy_" else result
        self._count(func, name, [source] if here else [], result)
        return target if name == "copy_" else SimulatedTensor(result)

    def _count(self, func: Any, name: str, own: list[Any], result: Any) -> None:
        if func.is_view or name in _NO_KERNEL:
            return
        launches = _SEVERAL.get(name, 1)
        if name.startswith(("_fused_", "_foreach_")):
            lists = max(
                1, sum("[]" in str(each.type) and "Tensor" in str(each.type) for each in func._schema.arguments)
            )
            launches = max(1, -(-len(own) // lists // _TENSORS_A_LAUNCH[min(lists, 5) - 1]))
        line = _line()
        self.kernels[name, line] += launches
        read = {id(tensor): _bytes(tensor.held) for tensor in own}
        put_out = 0 if name.startswith("_f") and name.endswith("_") else sum(_bytes(x) for x in _tensors(result))
        if name in ("index", "index_select", "gather"):
            # No more of the source is read than is put out.
            read = {key: min(size, put_out) for key, size in read.items()}
        self.traffic[line] += sum(read.values()) + put_out


GPU = SimulatedGpu()
"""The device; there is one."""


def _wrapped(func: Any, args: tuple, result: Any) -> Any:
    """Results on the device; an operation in place gives what it was given."""
    if func._schema.is_mutable and func._schema.returns and isinstance(args[0], SimulatedTensor):
        aliased = func._schema.returns[0].alias_info
        if aliased is not None and aliased.is_write:
            return args[0]
    return _map(lambda x: SimulatedTensor(x) if isinstance(x, Tensor) else x, result)


def _held(value: Any) -> Any:
    return value.held if isinstance(value, SimulatedTensor) else value


def _cast(value: Any, kind: torch.dtype) -> Any:
    return value.to(kind) if isinstance(value, Tensor) and value.is_floating_point() else value


def _tensors(value: Any) -> list[Tensor]:
    """Those of the arguments or results of an operation, which nest by lists and tuples alone."""
    if isinstance(value, Tensor):
        return [value]
    return [tensor for each in value for tensor in _tensors(each)] if isinstance(value, _NESTS) else []


def _map(change: Callable[[Any], Any], value: Any) -> Any:
    """The same with every leaf changed."""
    if isinstance(value, dict):
        return {key: _map(change, each) for key, each in value.items()}
    return type(value)(_map(change, each) for each in value) if isinstance(value, list | tuple) else change(value)


def _bytes(tensor: Tensor) -> int:
    """Of memory that is touched."""
    touched = 1
    for length, stride in zip(tensor.shape, tensor.stride(), strict=True):
        touched *= length if stride or length < 2 else 1
    return touched * tensor.element_size()


def _line() -> str:
    """The innermost line of kdbench and its methods, or else of timm; backward passes have a thread of their own."""
    frame: FrameType | None = sys._getframe(1)
    in_timm = ""
    while frame is not None:
        path = frame.f_code.co_filename
        if path.startswith(_OURS):
            return f"{path.removeprefix(next(filter(path.startswith, _OURS)))[1:]}:{frame.f_lineno}"
        if not in_timm and path.startswith(_TIMM):
            in_timm = f"timm{path.removeprefix(_TIMM)}:{frame.f_lineno}"
        frame = frame.f_back
    return in_timm or "backward"


def _scores(query: Tensor, key: Tensor, bias: Tensor | None, scale: float | None) -> Tensor:
    scores = query @ key.transpose(-2, -1) * (scale or query.shape[-1] ** -0.5)
    return scores if bias is None else scores + bias


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    wants_sums: bool,
    *_: Any,
    scale: float | None = None,
) -> tuple[Tensor, ...]:
    """One kernel on a GPU, computed in float32 as there."""
    sums = query.new_empty((*query.shape[:2], query.shape[2] if wants_sums else 0), dtype=torch.float32)
    state = torch.empty((), dtype=torch.int64, device=query.device)
    if query.is_meta:
        found = query.new_empty((*query.shape[:-1], value.shape[-1]))
    else:
        scores = _scores(query.float(), key.float(), bias, scale)
        found = (scores.softmax(-1) @ value.float()).to(query.dtype)
    # In memory as the kernel leaves it: heads behind positions.
    return found.transpose(1, 2).contiguous().transpose(1, 2), sums, state, state.clone()


def _attention_gradients(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, *rest: Any, scale: float | None = None
) -> tuple[Tensor | None, ...]:
    """By hand, as autograd does not look into a kernel."""
    wanted = next(each for each in rest if isinstance(each, list))
    entered = [query, key, value, *([bias] if bias is not None and wanted[3] else [])]
    if query.is_meta:
        found = [torch.empty_like(each) for each in entered]
    else:
        q, k, v, above = (each.float() for each in (query, key, value, grad))
        shares = _scores(q, k, bias, scale).softmax(-1)
        on_shares = above @ v.transpose(-2, -1)
        on_scores = shares * (on_shares - (on_shares * shares).sum(-1, keepdim=True))
        factor = scale or query.shape[-1] ** -0.5
        found = [factor * on_scores @ k, factor * on_scores.transpose(-2, -1) @ q, shares.transpose(-2, -1) @ above]
        found = [each.to(like.dtype) for each, like in zip([*found, on_scores], entered, strict=False)]
    return (*found, None)[:4]


def _attend(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0, **options: Any
) -> Tensor:
    """Attention by the memory-efficient kernel, the only one that takes a bias; torch would ask the GPU which to take.

    As torch does it for that kernel, a bias is padded so that its rows begin at multiples of 16.
    """
    if not isinstance(query, SimulatedTensor):
        return _on_host(query, key, value, attn_mask, dropout_p, **options)
    assert not dropout_p and not options.get("is_causal"), "not simulated"
    if torch.is_autocast_enabled("cuda"):
        kind = torch.get_autocast_dtype("cuda")
        query, key, value = query.to(kind), key.to(kind), value.to(kind)
    if attn_mask is not None:
        length = attn_mask.shape[-1]
        attn_mask = functional.pad(attn_mask.to(query.dtype), (0, -length % 16))[..., :length]
        attn_mask = attn_mask.expand(*query.shape[:-1], length)
    kernel = torch.ops.aten._scaled_dot_product_efficient_attention
    return kernel(query, key, value, attn_mask, torch.is_grad_enabled(), scale=options.get("scale"))[0]


class _Generator(torch.Generator):
    """A generator of the device draws on the host."""

    def __new__(cls, device: Any = "cpu") -> "_Generator":
        return super().__new__(cls, "cpu")  # type: ignore[call-arg]


class _Event:
    """A moment in the work of the device; all are a millisecond apart."""

    def __init__(self, **options: Any) -> None: ...

    def record(self) -> None: ...

    def query(self) -> bool:
        return True

    def elapsed_time(self, other: "_Event") -> float:
        return 1.0


@contextmanager
def lost_device() -> Iterator[None]:
    """An assertion has failed in a kernel: nothing works on the device any more."""
    GPU.lost = True
    try:
        yield
    finally:
        GPU.lost = False


def install() -> None:
    """Give this process the device, for good."""
    assert AVAILABLE, "there is a real GPU, or this is no x86-64 Linux"
    torch._C._ensureCUDADeviceGuardSet()
    # Autograd asks which accelerator has streams that it must care for. The answer becomes "none":
    # xor eax, eax; ret.
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib/libtorch_cpu.so"))
    for symbol in ("_ZN2at11accelerator14getAcceleratorEb", "_ZN2at11accelerator13isAcceleratorEN3c1010DeviceTypeE"):
        address = ctypes.cast(getattr(library, symbol), ctypes.c_void_p).value
        assert address is not None
        page, size = address // mmap.PAGESIZE * mmap.PAGESIZE, ctypes.c_size_t(2 * mmap.PAGESIZE)
        everything = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
        assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(page), size, everything) == 0
        ctypes.memmove(address, b"\x31\xc0\xc3", 3)
    _replace_torch_cuda()
    _foreach_utils._foreach_supported_types.append(SimulatedTensor)
    # `module.to(device)` makes new parameters.
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    # Batch norm is an operation of its own then, not one of a library that is not there.
    torch.backends.cudnn.enabled = False
    GPU.__enter__()


def _replace_torch_cuda() -> None:
    """What is asked of `torch.cuda`, answered for one device."""
    state = {"random": torch.Generator().get_state()}

    def seed(number: int) -> None:
        state["random"] = torch.Generator().manual_seed(number).get_state()

    properties = Mock(uuid="00000000-0000-0000-0000-000000000000", major=9, minor=0, multi_processor_count=132)
    answers: dict[str, Any] = {
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "is_bf16_supported": lambda *options, **more: True,
        "is_current_stream_capturing": lambda: False,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda device: None,
        "get_device_name": lambda device=None: "simulated",
        "get_device_capability": lambda device=None: (9, 0),
        "get_device_properties": lambda device=None: properties,
        "synchronize": lambda device=None: GPU.waits("the device is waited for") if GPU.has_values else None,
        "empty_cache": lambda: None,
        "memory_allocated": lambda device=None: GPU.allocated,
        "max_memory_allocated": lambda device=None: GPU.peak,
        "reset_peak_memory_stats": lambda device=None: setattr(GPU, "peak", GPU.allocated),
        "initial_seed": lambda: 0,
        "manual_seed": seed,
        "manual_seed_all": seed,
        "get_rng_state": lambda device=None: state["random"].clone(),
        "set_rng_state": lambda random, device=None: state.update(random=random.clone()),
        "Stream": Mock,
        "Event": _Event,
        "stream": lambda stream: nullcontext(),
        "current_stream": lambda device=None: Mock(),
    }
    for name, answer in answers.items():
        setattr(torch.cuda, name, answer)
    torch.Generator = _Generator  # type: ignore[misc]
    on_host = torch.tensor

    def tensor(data: Any, *, device: Any = None, **options: Any) -> Tensor:
        made = on_host(data, **options)
        return made if device is None else made.to(device)

    torch.tensor = tensor
    functional.scaled_dot_product_attention = _attend
