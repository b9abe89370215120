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
from cgan.model.file_facts import (
    FORMAT,
    LOCAL_SCORE,
    Facts,
    damage_error,
    facts_metadata,
    open_tensors,
)
from cgan.model.generative import GenerativeModel
from cgan.model.local_score import LocalScoreSampler, LocalScoreSettings
from cgan.model.networks import (
    Architecture,
    DiscriminatorNetwork,
    GeneratorNetwork,
    build_discriminator,
    build_generator,
    channels_last,
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

    Raises as `cgan.model.file_facts.open_tensors` does.
    """
    with open_tensors(Path(path), file_kind, "pt") as (file, facts):
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if digest_of(tensors) != facts["digest"]:
        raise damage_error(Path(path))
    return tensors, facts


def save_generator(path: Path | str, model: GenerativeModel, facts: Facts) -> None:
    """Write a generator, as `load_generator` reads it: the weights of a network, or the images that a sampler
    draws from. `facts` say how it was made (params, data hash, …)."""
    tensors, architecture = _tensors_and_architecture(model)
    facts = {"architecture": architecture, "torch": torch.__version__, **facts}
    save_tensors(path, "generator", tensors, facts)


def generator_facts(model: GenerativeModel, facts: Facts) -> Facts:
    """The facts that `load_generator` gives for this generator, saved with `facts`."""
    tensors, architecture = _tensors_and_architecture(model)
    added = {"format": FORMAT, "kind": "generator", "digest": digest_of(tensors)}
    return {**added, "architecture": architecture, "torch": torch.__version__, **facts}


def _tensors_and_architecture(model: GenerativeModel) -> tuple[dict[str, Tensor], Facts]:
    """The tensors that a generator's file holds, and its architecture."""
    if isinstance(model, GeneratorNetwork):
        return model.state_dict(), asdict(model.architecture)
    if isinstance(model, LocalScoreSampler):
        channels, height, width = model.shape
        sizes = {"classes": model.classes, "channels": channels, "height": height, "width": width}
        settings = asdict(model.settings)
        architecture = {"kind": LOCAL_SCORE, **sizes, "settings": settings}
        return {"images": model.images, "labels": model.labels}, architecture
    raise AssertionError(f"nothing stores a {type(model).__name__}")


def load_generator(path: Path | str) -> tuple[GenerativeModel, Facts]:
    """A generator in eval mode on the CPU, and the facts of its file."""
    tensors, facts = load_tensors(path, "generator")
    if is_local_score(facts):
        return _build_sampler(Path(path), tensors, facts), facts
    return _build_network(
        path, "generator", tensors, facts, lambda a: build_generator(Architecture(**a))
    )


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
    return _build_network(
        path, "discriminator", tensors, facts, lambda a: build_discriminator(Architecture(**a))
    )


def load_network(
    path: Path | str, file_kind: str, build: Callable[[Facts], _Network]
) -> tuple[_Network, Facts]:
    """The network that `build` makes of the file's architecture, with the weights of the file."""
    tensors, facts = load_tensors(path, file_kind)
    return _build_network(path, file_kind, tensors, facts, build)


def is_local_score(facts: Facts) -> bool:
    """Whether the generator of this file is a local score sampler, whose file holds its training images."""
    architecture = facts.get("architecture")
    return isinstance(architecture, dict) and architecture.get("kind") == LOCAL_SCORE


def _build_sampler(path: Path, tensors: dict[str, Tensor], facts: Facts) -> LocalScoreSampler:
    """The sampler of a file. Raises ModelError where images and settings do not fit each other."""
    try:
        a = facts["architecture"]
        settings = LocalScoreSettings(**a["settings"])
        images, labels = tensors["images"], tensors["labels"]
        expected = len(labels), a["channels"], a["height"], a["width"]
        if images.dtype != torch.uint8 or tuple(images.shape) != expected:
            raise ValueError(f"images {images.dtype} {tuple(images.shape)}, expected {expected}")
        if labels.unique().tolist() != list(range(a["classes"])):
            raise ValueError(f"labels of other classes than 0 to {a['classes'] - 1}")
    except MISFIT_ERRORS as error:
        raise _misfit(path, "images and settings", "local score sampler", error) from None
    return LocalScoreSampler(images, labels, settings).eval()


def _build_network(
    path: Path | str,
    file_kind: str,
    tensors: dict[str, Tensor],
    facts: Facts,
    build: Callable[[Facts], _Network],
) -> tuple[_Network, Facts]:
    """The network of a file, and its facts. Raises ModelError where architecture and weights do not fit each
    other."""
    try:
        # Without memory for weights, in case the file lies about sizes.
        with torch.device("meta"):
            network = build(facts["architecture"])
        network.load_state_dict(tensors, assign=True)
    except MISFIT_ERRORS as error:
        raise _misfit(path, "architecture and weights", file_kind, error) from None
    return channels_last(network.float()).eval().requires_grad_(False), facts


def _misfit(path: Path | str, parts: str, file_kind: str, error: Exception) -> ModelError:
    return ModelError(
        f"{path}: the {parts} in the file are not those of a {file_kind} "
        f"({' '.join(str(error).split())[:300]}). Make the file again with `dvc repro --force`, or use "
        "another file."
    )
