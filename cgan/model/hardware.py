"""Where and how torch computes."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import torch

from cgan.errors import ParamsError


@dataclass(frozen=True)
class Hardware:
    """Where and how a training computes."""

    device: torch.device
    precision: torch.dtype

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        low = self.precision != torch.float32
        return torch.autocast(self.device.type, self.precision, enabled=low)


def choose_hardware(device: str, precision: str) -> Hardware:
    """Resolve `auto`. Raises ParamsError where CUDA is asked for and absent."""
    cuda = torch.cuda.is_available()
    if device == "cuda" and not cuda:
        raise ParamsError(
            "params.yaml: `train.device` is `cuda`, and torch finds no CUDA device here. "
            "Set it to `auto` or `cpu`, or install a CUDA build of torch and its driver."
        )
    chosen = torch.device("cuda" if cuda and device != "cpu" else "cpu")
    if precision == "auto":
        fast = torch.cuda.is_bf16_supported() if chosen.type == "cuda" else _cpu_has_bfloat16()
        precision = "bfloat16" if fast else "float32"
    return Hardware(chosen, torch.bfloat16 if precision == "bfloat16" else torch.float32)


def _cpu_has_bfloat16() -> bool:
    """Without these instructions bfloat16 is emulated, and far slower than float32."""
    checks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in checks)


def compute_deterministically() -> None:
    """Same inputs, same bits, on one kind of machine; operators that cannot raise.

    Without torch's filling of fresh memory, which is there to find reads of it: our networks have
    none, and it costs 5 to 7 % of a training.
    """
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
