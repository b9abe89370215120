"""Work in parts on threads.

On the CPU a batch is worked on in parts, a thread and a core each, instead of by operators that split their
own work: PyTorch's threads spin while they wait for each other, and beside a busy process 4,200 images/s fell
to 60–800. Parts meet a few times a step, and sleep while they wait. Callers say how work is divided, so that
a result's bits do not depend on how many cores a machine has.
"""

import contextlib
import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

_Network = TypeVar("_Network", bound=nn.Module)
_threads_outside: int | None = None  # that torch had before `parts_on_threads` began
Map = Callable[..., Iterator[Any]]  # a function like `map`: the results for each item, in order


@contextlib.contextmanager
def parts_on_threads(threads: int) -> Iterator[Map]:
    """A `map` that runs each item on one of the threads, with a core each; `map` itself for one thread."""
    if threads == 1:
        yield map
        return
    global _threads_outside
    before, before_outside = torch.get_num_threads(), _threads_outside
    _threads_outside = available_threads()
    try:
        with ThreadPoolExecutor(threads, "part", torch.set_num_threads, (1,)) as pool:
            torch.set_num_threads(1)
            yield pool.map
    finally:
        _threads_outside = before_outside
        torch.set_num_threads(before)  # the pool's setting is partly global


def available_threads() -> int:
    """The number of threads that the process may use, also when asked during work in parts."""
    return _threads_outside or torch.get_num_threads()


def copy_sharing_weights(network: _Network) -> _Network:
    """A copy that has the same weights, not equal ones, and buffers of its own (batch-norm state)."""
    return copy.deepcopy(network, {id(weight): weight for weight in network.parameters()})


def set_gradients(weights: Sequence[Tensor], part_gradients: Iterable[tuple[Tensor, ...]]) -> None:
    """Set `.grad` of each weight to the sum over the parts, added in their order: the same bits each time. It
    has the weight's strides, which fused optimizers need."""
    sums = []
    for weight in weights:
        if weight.grad is None:
            weight.grad = torch.empty_like(weight)
        sums.append(weight.grad)
    for part, gradients in enumerate(part_gradients):
        if part == 0:
            torch._foreach_copy_(sums, gradients)
        else:
            torch._foreach_add_(sums, gradients)
