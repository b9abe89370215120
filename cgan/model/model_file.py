"""Model files and training checkpoints: tensors in safetensors, facts in JSON, no pickle anywhere.

Both have one format; `cgan.model.file_facts` says what the facts are.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import save as serialized
from torch import Tensor, nn

from cgan.errors import CganError, ModelError
from cgan.files import replacing
from cgan.model.file_facts import Facts, damaged, metadata_of, opened
from cgan.model.networks import (
    Architecture,
    DiscriminatorNetwork,
    GeneratorNetwork,
    build_discriminator,
    build_generator,
    channels_last,
)

# What comes of building a network of an architecture that is none, and of weights that do not fit.
UNFIT = (CganError, LookupError, TypeError, ValueError, ArithmeticError, RuntimeError)
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


def load_tensors(path: Path | str, kind: str) -> tuple[dict[str, Tensor], Facts]:
    """Read and check a file of ours. Tensors are on the CPU whatever device wrote them.

    Raises as `cgan.model.file_facts.opened` does.
    """
    with opened(Path(path), kind, "pt") as (file, facts):
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if digest_of(tensors) != facts["digest"]:
        raise damaged(Path(path))
    return tensors, facts


def save_network(
    path: Path | str, network: GeneratorNetwork | DiscriminatorNetwork, facts: Facts
) -> None:
    """Write a network with its architecture; `facts` say what made it (params, data hash, …)."""
    kind = "generator" if isinstance(network, GeneratorNetwork) else "discriminator"
    facts = {"architecture": asdict(network.architecture), "torch": torch.__version__, **facts}
    save_tensors(path, kind, network.state_dict(), facts)


def load_generator(path: Path | str) -> tuple[GeneratorNetwork, Facts]:
    """A generator in eval mode on the CPU, and the facts of its file."""
    return load_network(path, "generator", lambda facts: build_generator(Architecture(**facts)))


def load_discriminator(path: Path | str) -> tuple[DiscriminatorNetwork, Facts]:
    """A discriminator in eval mode on the CPU, and the facts of its file."""
    return load_network(
        path, "discriminator", lambda facts: build_discriminator(Architecture(**facts))
    )


def load_network(
    path: Path | str, kind: str, build: Callable[[Facts], _Network]
) -> tuple[_Network, Facts]:
    """The network that `build` makes of the file's architecture, with the weights of the file."""
    tensors, facts = load_tensors(path, kind)
    try:
        # Without memory for weights, in case the file lies about sizes.
        with torch.device("meta"):
            network = build(facts["architecture"])
        network.load_state_dict(tensors, assign=True)
    except UNFIT as error:
        stage = " train_judge" if kind == "judge" else ""
        raise ModelError(
            f"{path}: the architecture and weights in the file are not those of a {kind} "
            f"({' '.join(str(error).split())[:300]}). Make the file again with `dvc repro --force{stage}`, "
            "or use another file."
        ) from None
    for name, tensor in tensors.items():
        if not tensor.isfinite().all() or (name.endswith("running_var") and tensor.min() < 0):
            raise ModelError(
                f"{path}: tensor `{name}` has values that no training produces (NaN, infinity or a negative "
                "variance). Make the file again with `dvc repro --force`, or use another file."
            )
    return channels_last(network.float()).eval().requires_grad_(False), facts
