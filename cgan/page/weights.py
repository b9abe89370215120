"""A generator's weights as bytes that travel in a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from safetensors.torch import save

if TYPE_CHECKING:
    from cgan.serving.generator import Generator


def packed(generator: Generator) -> bytes:
    """safetensors of the generator's tensors, float16 (batch norm's counters left out)."""
    tensors = {
        name: tensor.half().contiguous()
        for name, tensor in generator.network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    return save(tensors)
