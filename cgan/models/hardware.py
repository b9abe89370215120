"""Where and how torch computes: device, precision, determinism, memory."""

import contextlib
import ctypes
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from cgan.base.errors import ParamsError
from cgan.base.settings import setting

_Optimizer = TypeVar("_Optimizer", bound=torch.optim.Optimizer)


@dataclass(frozen=True)
class Hardware:
    """Where and how a training computes."""

    device: torch.device
    precision: torch.dtype

    @property
    def precision_name(self) -> str:
        return str(self.precision).removeprefix("torch.")

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.precision == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.precision)


def choose_hardware(device: str, precision: str) -> Hardware:
    """Resolve `auto` of `train.device` and `train.precision`. Raises ParamsError as `find_device` does."""
    chosen = find_device(device, setting("train.device"))
    if precision == "auto":
        precision = "bfloat16" if _has_bfloat16(chosen) else "float32"
    return Hardware(chosen, torch.bfloat16 if precision == "bfloat16" else torch.float32)


def find_device(name: str, setting_name: str) -> torch.device:
    """The device `auto` (the first CUDA device, or else the CPU), `cpu`, `cuda`, `cuda:1` or `mps`. Raises
    ParamsError, with the name of the setting, where there is no such device."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        words = str(error).partition("\n")[0]
        raise ParamsError(
            f"{setting_name} is `{name}`: {words}. Set it to `auto` or `cpu`."
        ) from None
    return device


def _has_bfloat16(device: torch.device) -> bool:
    """True for a device that computes in bfloat16; GPUs before Ampere emulate it, slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # An older torch has none.
    capabilities = getattr(torch.cpu, "get_capabilities", dict[str, bool])()
    return device.type == "cpu" and bool(
        capabilities.get("amx_tile") or capabilities.get("avx512_bf16")
    )


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    """Same inputs, same bits, on one kind of machine, inside a block or a function that this decorates.
    Operators that cannot do that raise an error.

    The debug mode is set and not `use_deterministic_algorithms`, which has the same effect, but imports
    torch's compiler: 1.8 CPU seconds a process. Torch would fill fresh memory, to find reads of what was
    never written: 5 to 7 % of a training. cuBLAS sums in any order without a size of its workspace.
    """
    mode = torch.get_deterministic_debug_mode()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_deterministic_debug_mode("error")
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)


def exact_floats() -> contextlib.AbstractContextManager[None]:
    """Have a GPU compute float32 in full, which cuDNN rounds to TF32's 10 bits of mantissa: so drawings and
    measurements differ between devices by the order of sums alone."""
    flags: contextlib.AbstractContextManager[None] = torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )
    return flags


def fits_in_memory(pixels: Tensor, device: torch.device) -> bool:
    """True where the images take at most half of a GPU's free memory; the host's holds them already."""
    return device.type != "cuda" or pixels.nbytes <= torch.cuda.mem_get_info(device)[0] / 2


def take_rows(images: Tensor, rows: Tensor, device: torch.device) -> Tensor:
    """images[rows] on `device`; `rows` int64 [N] are on the same device as `images`. From the host's memory
    to a GPU they are copied through pinned pages, for which the host need not wait."""
    selected = images.index_select(0, rows)
    if selected.device == device:
        return selected
    if device.type == "cuda":
        selected = selected.pin_memory()
    return selected.to(device, non_blocking=True)


def without_compiler(optimizer: type[_Optimizer]) -> type[_Optimizer]:
    """The same optimizer, which does not import torch's compiler to keep out of its way: that takes 1.2 to 2
    seconds of a process. torch keeps the plain functions under `__wrapped__`; else its own are used."""

    def plain(name: str) -> Any:
        method = getattr(optimizer, name)
        return getattr(method, "__wrapped__", method)

    methods = {"add_param_group": plain("add_param_group"), "step": torch.no_grad()(plain("step"))}
    return type(optimizer.__name__, (optimizer,), methods)


def keep_freed_memory() -> None:
    """Have glibc keep the memory of freed tensors: a step's activations are needed again a step later, and
    given back to the kernel in between, they would cost a page fault for every 4 KiB."""
    with contextlib.suppress(OSError, AttributeError):
        glibc = ctypes.CDLL("libc.so.6")
        m_mmap_threshold, m_trim_threshold = -3, -1  # numbers of the options, from malloc.h
        glibc.mallopt(m_mmap_threshold, 2**30)  # bytes
        glibc.mallopt(m_trim_threshold, 2**31 - 1)  # bytes
