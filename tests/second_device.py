"""A device that is not the CPU, on any machine: tensors of `torch.device("meta")` with values behind them.

A GPU refuses what a CPU lets pass: an operator on tensors of two devices, random numbers of the CPU's
generator for the device, `numpy()`; and, where it has to be deterministic, operators that add up in any
order. So does this one, with the operator's name. What it computes is what the CPU computes, bit for bit.

    with SecondDevice():
        state = TrainState(data, params, Hardware(DEVICE, torch.float32))
"""

from __future__ import annotations

import contextlib
import unittest.mock
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map_only

DEVICE = torch.device("meta")
ATEN = torch.ops.aten
# They take tensors of two devices: copies, and indices that a GPU fetches from the host.
TRANSFERS = (ATEN.copy_, ATEN._to_copy, ATEN.index, ATEN.index_put, ATEN.index_put_)
# What CUDA refuses where it has to be deterministic (torch.use_deterministic_algorithms).
IN_ANY_ORDER = (
    ATEN.adaptive_max_pool2d_backward,
    ATEN._adaptive_avg_pool2d_backward,
    ATEN.cumsum,
    ATEN.cumsum_,
    ATEN.grid_sampler_2d_backward,
    ATEN.histc,
    ATEN.kthvalue,
    ATEN.reflection_pad2d_backward,
    ATEN.upsample_bilinear2d_backward,
    ATEN.upsample_bicubic2d_backward,
)


class OnSecondDevice(Tensor):
    """A tensor that says it is elsewhere; `values` are on the CPU."""

    values: Tensor

    @staticmethod
    def __new__(cls, values: Tensor) -> OnSecondDevice:
        kind = {"dtype": values.dtype, "layout": values.layout, "device": DEVICE}
        return Tensor._make_wrapper_subclass(
            cls,
            values.shape,
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            requires_grad=values.requires_grad,
            **kind,
        )

    def __init__(self, values: Tensor) -> None:
        self.values = values

    def __repr__(self, *_: object) -> str:
        return f"OnSecondDevice({self.values})"

    def tolist(self) -> Any:
        """Torch has it for no class of a tensor; on a GPU it works."""
        return self.values.tolist()

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["values"], None

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, Tensor], *_: object) -> OnSecondDevice:
        return OnSecondDevice(inner["values"])

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        return compute(func, args, kwargs or {})


class FromNumbers(TorchFunctionMode):
    """`torch.tensor` makes an empty tensor for "meta" before any operator: here it is made, then moved."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.tensor and kwargs.get("device") == DEVICE:
            return func(*args, **kwargs | {"device": "cpu"}).to(DEVICE)
        return func(*args, **kwargs)


class SecondDevice(TorchDispatchMode):
    """In this context tensors can be made on DEVICE, moved there and back."""

    def __enter__(self) -> Any:
        self.more = contextlib.ExitStack()
        self.more.enter_context(FromNumbers())
        # Fused optimizers compute on it as on every GPU.
        fused = "torch.optim.optimizer._get_fused_kernels_supported_devices"
        self.more.enter_context(unittest.mock.patch(fused, lambda: ["cpu", DEVICE.type]))
        return super().__enter__()

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)
        self.more.close()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        return compute(func, args, kwargs or {})


def compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run an operator on the values; wrap what it makes, unless it is for the CPU."""
    tensors = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, Tensor)]
    there = [t for t in tensors if isinstance(t, OnSecondDevice)]
    device = kwargs.get("device")
    elsewhere = bool(there) if device is None else torch.device(device) == DEVICE
    packet = func.overloadpacket
    if there or elsewhere:
        refuse_what_a_gpu_refuses(packet, tensors, there, kwargs)
    values = tree_map_only(OnSecondDevice, lambda t: t.values, (args, kwargs))
    if device is not None:
        values[1]["device"] = torch.device("cpu")
    out = func(*values[0], **values[1])
    if packet is ATEN.copy_ and not isinstance(args[0], OnSecondDevice):
        return args[0]
    if not elsewhere:
        return out
    with torch.inference_mode(False):  # a view of an ordinary tensor is one, too
        wrapped = tree_map_only(Tensor, OnSecondDevice, out)
    return return_and_correct_aliasing(func, args, kwargs, wrapped) if there else wrapped


def refuse_what_a_gpu_refuses(
    packet: Any, tensors: Sequence[Tensor], there: Sequence[Tensor], kwargs: Mapping[str, Any]
) -> None:
    if kwargs.get("generator") is not None:
        raise RuntimeError(f"{packet}: the CPU's generator makes random numbers for the device")
    here = [t for t in tensors if not isinstance(t, OnSecondDevice) and t.dim() > 0]
    if there and here and packet not in TRANSFERS:
        raise RuntimeError(f"{packet}: expected all tensors on one device, found two")
    deterministic = torch.are_deterministic_algorithms_enabled()
    if deterministic and packet in IN_ANY_ORDER:
        exact = packet in (ATEN.cumsum, ATEN.cumsum_) and not there[0].is_floating_point()
        if not exact:
            raise RuntimeError(f"{packet}: has no deterministic implementation on a GPU")
