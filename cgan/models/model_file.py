"""Model files and checkpoints: tensors in safetensors, facts (`file_facts`) in JSON, no pickle anywhere."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import save as serialized
from torch import Tensor, nn

from cgan.base.errors import CganError, ModelError
from cgan.base.files import replacing
from cgan.models.file_facts import FORMAT, Facts, damage_error, facts_metadata, open_tensors
from cgan.models.generative import GenerativeModel, class_of
from cgan.models.networks import (
    Architecture,
    DiscriminatorNetwork,
    build_discriminator,
    with_weights,
)

# Errors of building a network from a damaged architecture, or of weights that do not fit.
MISFIT_ERRORS = (CganError, LookupError, TypeError, ValueError, ArithmeticError, RuntimeError)
NamedTensors = Mapping[str, Tensor]  # by their names
_Network = TypeVar("_Network", bound=nn.Module)


def digest_of(tensors: NamedTensors) -> str:
    """sha256 over names, types, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_tensors(path: Path | str, file_kind: str, tensors: NamedTensors, facts: Facts) -> None:
    """Write atomically; `facts` must be plain JSON."""
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    metadata = facts_metadata({**facts, "kind": file_kind, "digest": digest_of(plain)})
    with replacing(path) as temporary:
        # Not safetensors' `save_file`: its error isn't an OSError when the disk is full.
        temporary.write_bytes(serialized(plain, metadata))


def load_tensors(path: Path | str, file_kind: str) -> tuple[dict[str, Tensor], Facts]:
    """The tensors of a file, on the CPU, and its facts, checked. Raises as `open_tensors` does."""
    with open_tensors(Path(path), file_kind, "pt") as (file, facts):
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if digest_of(tensors) != facts["digest"]:
        raise damage_error(Path(path))
    return tensors, facts


def save_generator(path: Path | str, model: GenerativeModel, facts: Facts) -> None:
    """Write a generator, as `load_generator` reads it. `facts` say how it was made (params, data hash, …)."""
    save_tensors(path, "generator", model.state_dict(), generator_facts(model, facts))


def generator_facts(model: GenerativeModel, facts: Facts) -> Facts:
    """The facts that `load_generator` gives for this generator, saved with `facts`."""
    added = {"format": FORMAT, "kind": "generator", "digest": digest_of(model.state_dict())}
    added |= {"architecture": asdict(model.architecture), "torch": torch.__version__}
    return added | facts


def load_generator(path: Path | str) -> tuple[GenerativeModel, Facts]:
    """A generator in eval mode on the CPU, and the facts of its file."""

    def build(architecture: Facts, tensors: NamedTensors) -> GenerativeModel:
        return class_of(architecture["kind"]).from_file(architecture, tensors)

    return load_network(path, "generator", build)


def save_discriminator(
    path: Path | str, network: DiscriminatorNetwork | None, facts: Facts
) -> None:
    """Write a discriminator, as `load_discriminator` reads it; without one, a file without tensors."""
    tensors: NamedTensors = network.state_dict() if network else {}
    architecture = asdict(network.architecture) if network else None
    facts = {"architecture": architecture, "torch": torch.__version__, **facts}
    save_tensors(path, "discriminator", tensors, facts)


def load_discriminator(path: Path | str) -> tuple[DiscriminatorNetwork | None, Facts]:
    """A discriminator in eval mode on the CPU, or None where there was none; and the facts of its file."""
    tensors, facts = load_tensors(path, "discriminator")
    if not tensors and facts.get("architecture", ...) is None:
        return None, facts

    def build(architecture: Facts, tensors: NamedTensors) -> DiscriminatorNetwork:
        return with_weights(lambda: build_discriminator(Architecture(**architecture)), tensors)

    return load_network(path, "discriminator", build)


def load_network(
    path: Path | str, file_kind: str, build: Callable[[Facts, NamedTensors], _Network]
) -> tuple[_Network, Facts]:
    """The network that `build` makes of the file's architecture and tensors, in eval mode; and the facts.
    Raises ModelError where the two do not fit each other."""
    tensors, facts = load_tensors(path, file_kind)
    try:
        return build(facts["architecture"], tensors).eval(), facts
    except MISFIT_ERRORS as error:
        raise ModelError(
            f"{path}: the architecture and tensors in the file are not those of a {file_kind} "
            f"({' '.join(str(error).split())[:300]}). Make the file again with `dvc repro --force`, or use "
            "another file."
        ) from None
