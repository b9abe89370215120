"""Where and how torch computes: device, precision, determinism, and work in parts on threads.

On the CPU a batch is worked on in parts, a thread and a core each, instead of by operators that split
their own work. PyTorch's own threads spin while they wait for each other, many times in a step. Beside
another busy process that costs far more than its share: 4,200 images/s fell to 60–800 in our
measurements. Parts meet a few times a step, and sleep while they wait. Their number is a parameter, so
the bits of a result do not depend on how many cores a machine has.
"""

import contextlib
import copy
import ctypes
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from cgan.errors import ParamsError
from cgan.settings import setting

_Network = TypeVar("_Network", bound=nn.Module)
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
# How many threads torch had before the work in parts began; None outside of such work.
_threads_outside: int | None = None

DEVICES = ("cpu", "cuda", "mps")


class Map(Protocol):
    """Like `map`: what a function makes of each item, in their order."""

    def __call__(
        self, function: Callable[[_Item], _Result], items: Iterable[_Item], /
    ) -> Iterator[_Result]: ...


@dataclass(frozen=True)
class Hardware:
    """Where and how a training computes."""

    device: torch.device
    precision: torch.dtype

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.precision == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.precision)


def choose_hardware(device: str, precision: str) -> Hardware:
    """Resolve `auto` of `train.device` and `train.precision`. Raises ParamsError as `find_device` does."""
    chosen = find_device(device, setting("train.device"))
    if precision == "auto":
        fast = {"cpu": _cpu_has_bfloat16, "cuda": _card_has_bfloat16}.get(chosen.type)
        precision = "bfloat16" if fast and fast() else "float32"
    return Hardware(chosen, torch.bfloat16 if precision == "bfloat16" else torch.float32)


def find_device(name: str, called: str) -> torch.device:
    """`auto` (the first CUDA device, or else the CPU), `cpu`, `cuda`, `cuda:1`, `mps`, as torch knows them.

    Raises ParamsError where there is no such device; `called` is what the message calls this setting.
    """
    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if cards else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in DEVICES:
        raise ParamsError(
            f"{called} is {name!r}; expected auto, cpu, cuda, cuda:1 (or another number) or mps."
        )
    if device.type == "cuda" and (device.index or 0) >= cards:
        found = f"only {cards} CUDA device{'s' * (cards > 1)}" if cards else "no CUDA device"
        install = "" if cards else ", or install the driver and a CUDA build of torch"
        raise ParamsError(
            f"{called} is `{name}`, but torch finds {found} here. Set it to `auto` or `cpu`{install}."
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ParamsError(
            f"{called} is `mps`, but torch finds no Apple GPU here. Set it to `auto` or `cpu`."
        )
    return device


def _card_has_bfloat16() -> bool:
    """False for GPUs before Ampere, which emulate it more slowly than they compute in float32."""
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def _cpu_has_bfloat16() -> bool:
    """Whether it has instructions for bfloat16, which is emulated otherwise, and much slower than float32.
    False with an older torch, which does not say what a CPU has."""
    has = getattr(torch.cpu, "get_capabilities", dict[str, bool])()
    return any(has.get(name) for name in ("amx_tile", "avx512_bf16"))


def compute_deterministically() -> None:
    """Same inputs, same bits, on one kind of machine. Operators that cannot do that raise an error.

    The debug mode is set and not `use_deterministic_algorithms`, which has the same effect, but imports
    torch's compiler to tell it: 1.8 CPU seconds a process, and nothing here is compiled.

    Torch's filling of fresh memory is switched off. It serves to find reads of memory that was never
    written; our networks have none, and it costs 5 to 7 % of a training.

    cuBLAS reads its workspace's size when it first computes, and without one it sums in any order.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_deterministic_debug_mode("error")
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    """`compute_deterministically` for a while; then all operators of the process compute as before."""
    mode = torch.get_deterministic_debug_mode()
    filled: bool = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    compute_deterministically()
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)
        torch.utils.deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]


def exact_floats() -> contextlib.AbstractContextManager[None]:
    """On a card, float32 means float32: cuDNN would round it to TF32's 10 bits of mantissa. So what is drawn
    and measured differs between devices by the order of sums alone."""
    flags: contextlib.AbstractContextManager[None] = torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )
    return flags


def wait_for_device() -> None:
    """Wait until the GPU, if one is in use, has finished its work: before a clock is read."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def fits_in_memory(images: Tensor, device: torch.device) -> bool:
    """Whether the images take at most half of the card's free memory. A CPU and an Apple GPU share the
    host's, where they are already."""
    return device.type != "cuda" or images.nbytes <= torch.cuda.mem_get_info(device)[0] / 2


def rows_on(device: torch.device, images: Tensor, rows: Tensor) -> Tensor:
    """images[rows] on `device`; `rows` int64 [N] are on the same device as `images`. From the host's memory
    the chosen images are copied through pinned pages, for which the host need not wait."""
    chosen = images.index_select(0, rows)
    if chosen.device == device:
        return chosen
    return (chosen.pin_memory() if device.type == "cuda" else chosen).to(device, non_blocking=True)


# -- Work in parts ----------------------------------------------------------------------------------


@contextlib.contextmanager
def parts_on_threads(parts: int) -> Iterator[Map]:
    """A `map` that runs each item on one of `parts` threads with one core each; `map` for one part."""
    if parts == 1:
        yield map
        return
    global _threads_outside
    before, outer = torch.get_num_threads(), _threads_outside
    _threads_outside = available_threads()
    try:
        with ThreadPoolExecutor(parts, "part", torch.set_num_threads, (1,)) as pool:
            torch.set_num_threads(1)
            yield pool.map
    finally:
        _threads_outside = outer
        torch.set_num_threads(before)  # the pool's setting is partly global


def available_threads() -> int:
    """How many threads the process may use, also when asked during work in parts."""
    return _threads_outside or torch.get_num_threads()


def sharing_weights(network: _Network) -> _Network:
    """A copy that shares the weights themselves, and has its own buffers (batch-norm state)."""
    return copy.deepcopy(network, {id(weight): weight for weight in network.parameters()})


def set_gradients(weights: Sequence[Tensor], by_part: Iterable[tuple[Tensor, ...]]) -> None:
    """`.grad` of each weight = the sum over the parts, in their order: the same bits each time.

    Gradients are copied into lasting tensors: fused optimizers need the weights' own strides.
    """
    lasting = []
    for weight in weights:
        if weight.grad is None:
            weight.grad = torch.empty_like(weight)
        lasting.append(weight.grad)
    for part, gradients in enumerate(by_part):
        if part == 0:
            torch._foreach_copy_(lasting, gradients)
        else:
            torch._foreach_add_(lasting, gradients)


def keep_freed_memory() -> None:
    """Have glibc keep the memory of freed tensors instead of giving it back to the kernel.

    The activations of a step are freed, and needed again a step later. Giving them back in between would
    cost a page fault for every 4 KiB. With another C library this does nothing.
    """
    with contextlib.suppress(OSError, AttributeError):
        glibc = ctypes.CDLL("libc.so.6")
        glibc.mallopt(-3, 2**30)  # M_MMAP_THRESHOLD, bytes
        glibc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD, bytes
