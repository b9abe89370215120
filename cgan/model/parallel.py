"""Work in parts, a thread and a core each, instead of operators that split their own work.

PyTorch's own threads wait for each other, spinning, many times in a step. Beside another busy process
that costs not a share but nearly everything: 4,200 images/s fell to 60–800 in our measurements. Parts
meet a few times a step, asleep while they wait. And their number is a parameter, so that the bits of a
result do not depend on how many cores a machine has.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

_Network = TypeVar("_Network", bound=nn.Module)
Map = Callable[..., Iterator[Any]]
_outside: int | None = None


@contextlib.contextmanager
def parts_on_threads(parts: int) -> Iterator[Map]:
    """A `map` that runs each item on one of `parts` threads with one core each; `map` for one part."""
    if parts == 1:
        yield map
        return
    global _outside
    before, outer = torch.get_num_threads(), _outside
    _outside = threads_at_hand()
    try:
        with ThreadPoolExecutor(parts, "part", torch.set_num_threads, (1,)) as pool:
            torch.set_num_threads(1)
            yield pool.map
    finally:
        _outside = outer
        torch.set_num_threads(before)  # partly global, so that the threads' setting leaks


def threads_at_hand() -> int:
    """Threads for work of its own, also between the steps of work in parts."""
    return _outside or torch.get_num_threads()


def sharing_weights(network: _Network) -> _Network:
    """A copy with the same weights, not equal ones, and buffers (batch-norm state) of its own."""
    return copy.deepcopy(network, {id(weight): weight for weight in network.parameters()})


def set_gradients(weights: Sequence[Tensor], by_part: Iterable[tuple[Tensor, ...]]) -> None:
    """`.grad` of each weight = the sum over the parts, in their order: the same bits each time.

    Gradients are copied into lasting tensors: fused optimizers need the weights' own strides, and
    CUDA graphs need addresses that stay.
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

    Activations of a step are freed and asked for again a step later; each return trip costs a page
    fault for every 4 KiB. Elsewhere than on glibc this does nothing.
    """
    with contextlib.suppress(OSError, AttributeError):
        glibc = ctypes.CDLL("libc.so.6")
        glibc.mallopt(-3, 2**30)  # M_MMAP_THRESHOLD, bytes
        glibc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD, bytes
