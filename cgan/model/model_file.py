"""Model files and training checkpoints: tensors in safetensors, facts in JSON, no pickle anywhere.

Both have one format. The metadata has a single entry, `cgan`: a JSON object with the format number, the
kind of file, a digest of the tensors and the facts that the writer adds. A single one, because
safetensors writes several in random order, and equal content must give equal bytes. `seal` is a digest
of the other facts, so that a damaged step or architecture is found like a damaged weight.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialized
from torch import Tensor, nn

from cgan.errors import CganError, ModelError
from cgan.files import replacing
from cgan.model.networks import (
    Architecture,
    Discriminator,
    Generator,
    build_discriminator,
    build_generator,
)


class UnreadableError(ModelError):
    """The file cannot be read at present. Nothing says that it is damaged."""


FORMAT = 1
Facts = dict[str, Any]
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


def _seal_of(facts: Facts) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def save_tensors(path: Path | str, kind: str, tensors: Mapping[str, Tensor], facts: Facts) -> None:
    """Write atomically; `facts` must be plain JSON."""
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    header = {"format": FORMAT, "kind": kind, "digest": digest_of(plain), **facts}
    header["seal"] = _seal_of(header)
    metadata = {"cgan": json.dumps(header, sort_keys=True, allow_nan=False)}
    with replacing(path) as temporary:
        # Not safetensors' `save_file`: its error isn't an OSError when the disk is full.
        temporary.write_bytes(serialized(plain, metadata))


def load_tensors(
    path: Path | str, kind: str, shapes: Callable[[Facts], Shapes] | None = None
) -> tuple[dict[str, Tensor], Facts]:
    """Read and check a file of ours. Tensors are on the CPU whatever device wrote them.

    `shapes` says from the facts which shapes the tensors must have, by name; a file with others is
    refused before its tensors are read. Raises ModelError when the file is missing, truncated, damaged,
    foreign or of another format, and its subclass UnreadableError when the machine cannot read it now:
    no permission, too many open files, no memory.
    """
    path = Path(path)
    try:
        if not path.exists():
            raise ModelError(
                f"{path}: not found. Make it with `dvc repro`, or bring it with `dvc pull`."
            )
        if not path.is_file():
            raise ModelError(f"{path}: not a file. Give the path of a .safetensors file.")
        path.open("rb").close()  # safetensors calls every file that it cannot open absent
        with safe_open(path, framework="pt", device="cpu") as file:
            facts = _facts(file.metadata() or {}, kind, path)
            if shapes is not None:
                found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
                _refuse_difference(shapes(facts), found, path)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, MemoryError, RuntimeError) as error:  # RuntimeError: torch's, of open and mmap
        reason = (getattr(error, "strerror", None) or str(error) or "no memory").splitlines()[0]
        raise UnreadableError(
            f"{str(path)[:300]}: cannot be read now ({reason[:200]}). The file is left as it is: give read "
            "permission, end other programs, or raise the limit (`ulimit -n`, `ulimit -v`), and try again."
        ) from None
    except (SafetensorError, ValueError, OverflowError) as error:
        reason = str(error).splitlines()[0][:200]
        raise ModelError(
            f"{path}: not a readable safetensors file ({reason}). It is truncated or something else; "
            "make it again with `dvc repro --force` or restore it with `dvc checkout --force`."
        ) from None
    if digest_of(tensors) != facts["digest"]:
        raise _damaged(path)
    return tensors, facts


def _facts(metadata: Mapping[str, str], kind: str, path: Path) -> Facts:
    """What the file says of itself. All of it is checked here, except the digest of the tensors."""
    try:
        facts: Facts = json.loads(metadata["cgan"])
        version, found_kind, _ = facts["format"], facts["kind"], facts["digest"]
    except (KeyError, TypeError, ValueError, RecursionError):
        raise ModelError(
            f"{path}: a safetensors file, but not one that cgan wrote. Give a model that `dvc repro` made."
        ) from None
    if version != FORMAT:
        raise ModelError(
            f"{path}: file format {version!r}, this cgan reads format {FORMAT}. "
            "Use the cgan version that wrote it, or make it again with `dvc repro`."
        )
    if facts.pop("seal", None) != _seal_of(facts):
        raise _damaged(path)
    if found_kind != kind:
        raise ModelError(f"{path}: expected a {kind}, found a {found_kind}. Is it the right file?")
    return facts


def _damaged(path: Path) -> ModelError:
    return ModelError(
        f"{path}: facts or tensors don't match their digests, the file is damaged. "
        "Restore it with `dvc checkout --force`, or make it again with `dvc repro --force`. If it "
        "comes back damaged, DVC's cache is: `chmod -R u+w .dvc/cache/files` has DVC check it at "
        "the next `dvc repro`."
    )


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
