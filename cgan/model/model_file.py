"""Model files and training checkpoints: tensors in safetensors, facts in JSON, no pickle anywhere.

Both have one format; `cgan.model.file_facts` says what the facts are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save as serialized
from torch import Tensor, nn

from cgan.errors import CganError, ModelError
from cgan.files import replacing
from cgan.model.file_facts import Facts, damaged, metadata_of, opened
from cgan.model.networks import (
    Architecture,
    Discriminator,
    Generator,
    build_discriminator,
    build_generator,
)

Shapes = dict[str, tuple[Any, ...]]
_Network = TypeVar("_Network", bound=nn.Module)


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names, types, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_tensors(path: Path | str, kind: str, tensors: Mapping[str, Tensor], facts: Facts) -> None:
    """Write atomically; `facts` must be plain JSON."""
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    metadata = metadata_of({"kind": kind, "digest": digest_of(plain), **facts})
    with replacing(path) as temporary:
        # Not safetensors' `save_file`: its error isn't an OSError when the disk is full.
        temporary.write_bytes(serialized(plain, metadata))


def load_tensors(
    path: Path | str, kind: str, shapes: Callable[[Facts], Shapes] | None = None
) -> tuple[dict[str, Tensor], Facts]:
    """Read and check a file of ours. Tensors are on the CPU whatever device wrote them.

    `shapes` says from the facts which shapes the tensors must have, by name; a file with others is
    refused before its tensors are read. Raises as `cgan.model.file_facts.opened` does.
    """
    path = Path(path)
    with opened(path, kind, "pt") as (file, facts):
        if shapes is not None:
            found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            _refuse_difference(shapes(facts), found, path)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if digest_of(tensors) != facts["digest"]:
        raise damaged(path)
    return tensors, facts


def save_network(path: Path | str, network: Generator | Discriminator, facts: Facts) -> None:
    """Write a network with its architecture; `facts` say what made it (params, data hash, …)."""
    kind = "generator" if isinstance(network, Generator) else "discriminator"
    facts = {"architecture": network.architecture.to_json(), "torch": torch.__version__, **facts}
    save_tensors(path, kind, network.state_dict(), facts)


def load_generator(path: Path | str) -> tuple[Generator, Facts]:
    """A generator in eval mode on the CPU, and the facts of its file."""
    return _load_network(build_generator, "generator", path)


def load_discriminator(path: Path | str) -> tuple[Discriminator, Facts]:
    """A discriminator in eval mode on the CPU, and the facts of its file."""
    return _load_network(build_discriminator, "discriminator", path)


def _load_network(
    build: Callable[[Architecture], _Network], kind: str, path: Path | str
) -> tuple[_Network, Facts]:
    """Build the network without memory for weights, in case the file lies about sizes; then fill it."""

    def empty(facts: Facts) -> _Network:
        try:
            with torch.device("meta"):
                return build(Architecture.from_json(facts.get("architecture")))
        except CganError as error:
            raise ModelError(
                f"{path}: {error}. Give a model that `dvc repro` made, or make it again."
            ) from None

    def shapes(facts: Facts) -> Shapes:
        return {name: tuple(t.shape) for name, t in empty(facts).state_dict().items()}

    tensors, facts = load_tensors(path, kind, shapes)
    network = empty(facts)
    fill(network, tensors, path)
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all() or (name.endswith("running_var") and tensor.min() < 0):
            raise ModelError(
                f"{path}: tensor `{name}` holds values that no training gives (NaN, infinite, or a "
                "negative variance). Make the model again with `dvc repro --force`, or use another."
            )
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network.eval().requires_grad_(False), facts


def fill(network: nn.Module, tensors: dict[str, Tensor], path: Path | str) -> None:
    """Give a network from the meta device its weights. Raises ModelError where they don't fit."""
    expected = {name: (*t.shape, t.dtype) for name, t in network.state_dict().items()}
    _refuse_difference(expected, {n: (*t.shape, t.dtype) for n, t in tensors.items()}, path)
    network.load_state_dict(tensors, assign=True)


def _refuse_difference(expected: Shapes, found: Shapes, path: Path | str) -> None:
    if expected != found:
        name = min(name for name, _ in set(expected.items()) ^ set(found.items()))
        raise ModelError(
            f"{path}: tensor `{name}` should be {expected.get(name, 'absent')}, is "
            f"{found.get(name, 'absent')}: weights and architecture in the file don't match. Make the "
            "model again with `dvc repro --force`, or use another."
        )
