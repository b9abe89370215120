"""Model files and training checkpoints: tensors in safetensors, facts in JSON, no pickle anywhere.

Both have one format; `cgan.models.file_facts` says what the facts are.
"""

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import save as serialized
from torch import Tensor, nn

from cgan.base.errors import CganError, ModelError
from cgan.base.files import replacing
from cgan.models.file_facts import FORMAT, Facts, damage_error, facts_metadata, open_tensors
from cgan.models.generative import GenerativeModel
from cgan.models.kinds import KINDS
from cgan.models.networks import (
    Architecture,
    DiscriminatorNetwork,
    build_discriminator,
    with_weights,
)

# Errors of building a network from a damaged architecture, or of weights that do not fit.
MISFIT_ERRORS = (CganError, LookupError, TypeError, ValueError, ArithmeticError, RuntimeError)
_Network = TypeVar("_Network", bound=nn.Module)


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names, types, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_tensors(
    path: Path | str, file_kind: str, tensors: Mapping[str, Tensor], facts: Facts
) -> None:
    """Write atomically; `facts` must be plain JSON."""
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    metadata = facts_metadata({**facts, "kind": file_kind, "digest": digest_of(plain)})
    with replacing(path) as temporary:
        # Not safetensors' `save_file`: its error isn't an OSError when the disk is full.
        temporary.write_bytes(serialized(plain, metadata))


def load_tensors(path: Path | str, file_kind: str) -> tuple[dict[str, Tensor], Facts]:
    """Read and check a file of ours. Tensors are on the CPU whatever device wrote them.

    Raises as `cgan.models.file_facts.open_tensors` does.
    """
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
    tensors, facts = load_tensors(path, "generator")
    with _fitting(path, "generator"):
        architecture = facts["architecture"]
        kind = KINDS[architecture["kind"]].load()
        return kind.from_file(architecture, tensors).eval(), facts


def save_discriminator(
    path: Path | str, network: DiscriminatorNetwork | None, facts: Facts
) -> None:
    """Write a discriminator, as `load_discriminator` reads it; without one, a file without tensors."""
    tensors: Mapping[str, Tensor] = network.state_dict() if network else {}
    architecture = asdict(network.architecture) if network else None
    facts = {"architecture": architecture, "torch": torch.__version__, **facts}
    save_tensors(path, "discriminator", tensors, facts)


def load_discriminator(path: Path | str) -> tuple[DiscriminatorNetwork | None, Facts]:
    """A discriminator in eval mode on the CPU, or None where there was none; and the facts of its file."""
    tensors, facts = load_tensors(path, "discriminator")
    if not tensors and facts.get("architecture", ...) is None:
        return None, facts
    return load_network(path, "discriminator", lambda a: build_discriminator(Architecture(**a)))


def load_network(
    path: Path | str, file_kind: str, build: Callable[[Facts], _Network]
) -> tuple[_Network, Facts]:
    """The network that `build` makes of the file's architecture, with the weights of the file."""
    tensors, facts = load_tensors(path, file_kind)
    with _fitting(path, file_kind):
        return with_weights(lambda: build(facts["architecture"]), tensors).eval(), facts


@contextlib.contextmanager
def _fitting(path: Path | str, file_kind: str) -> Iterator[None]:
    """Raise ModelError where architecture and tensors do not fit each other."""
    try:
        yield
    except MISFIT_ERRORS as error:
        raise ModelError(
            f"{path}: the architecture and tensors in the file are not those of a {file_kind} "
            f"({' '.join(str(error).split())[:300]}). Make the file again with `dvc repro --force`, or use "
            "another file."
        ) from None
