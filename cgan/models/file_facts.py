"""The facts (metadata) in our files: of datasets, models and checkpoints. Needs no torch.

The metadata of the safetensors file has a single entry, `cgan`, since safetensors writes several in random
order, and equal content must give equal bytes: a JSON object, the facts:

- `kind`: what the file holds: `dataset`, `generator`, `discriminator`, `judge` or `checkpoint`;
- `format`, its number; `digest`, of the tensors; `seal`, a digest of all other facts;
- more from the writer, such as `architecture`, with a `kind` of its own: that of the network.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from cgan.base.errors import ModelError

FORMAT = 1
# For messages: the command that fetches data and models that others made; DVC doesn't say how to begin.
DVC_PULL = "`dvc pull` (no remote yet? `dvc remote add --default NAME URL`, docs/production.md)"
# RuntimeError: torch's, of open and mmap.
UNREADABLE = (OSError, MemoryError, RuntimeError, SafetensorError, ValueError, OverflowError)
Facts = dict[str, Any]


def read_facts(path: Path | str, file_kind: str) -> Facts:
    """The facts alone; the tensors aren't read, so they may be damaged. Raises as `open_tensors` does."""
    with open_tensors(Path(path), file_kind, "np") as (_, facts):
        return facts


@contextlib.contextmanager
def open_tensors(path: Path, file_kind: str, framework: str) -> Iterator[tuple[Any, Facts]]:
    """Open a file of the kind `file_kind`: safetensors' open file, and its facts. Raises ModelError when it
    is missing, damaged, foreign, of another kind or format, or cannot be read now."""
    try:
        path.open("rb").close()  # safetensors calls every file that it cannot open absent
        with safe_open(path, framework=framework, device="cpu") as file:
            yield file, _checked_facts(file.metadata() or {}, file_kind, path)
    except FileNotFoundError:
        raise ModelError(
            f"{path}: not found. Make it with `dvc repro`, or fetch it with {DVC_PULL}."
        ) from None
    except UNREADABLE as error:
        raise ModelError(
            f"{path}: cannot be read ({' '.join(str(error).split())[:200]}). If it is damaged, make it again "
            "with `dvc repro --force`, or restore it with `dvc checkout --force`."
        ) from None


def facts_metadata(facts: Facts) -> dict[str, str]:
    """The facts, with `format` and `seal`, as a file's metadata. They must be plain JSON."""
    complete = {"format": FORMAT, **facts}
    complete["seal"] = _digest_of_facts(complete)
    return {"cgan": json.dumps(complete, sort_keys=True, allow_nan=False)}


def _digest_of_facts(facts: Facts) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _checked_facts(metadata: Mapping[str, str], file_kind: str, path: Path) -> Facts:
    """The facts of a file. All of them are checked here, except the digest of the tensors."""
    try:
        facts: Facts = json.loads(metadata["cgan"])
        version, found_kind, _ = facts["format"], facts["kind"], facts["digest"]
    except (KeyError, TypeError, ValueError, RecursionError):
        version = "none"
    if version != FORMAT:
        raise ModelError(
            f"{path}: expected a file of cgan in format {FORMAT}, found {version!r}. Give a file that this "
            "version's `dvc repro` made."
        )
    if facts.pop("seal", None) != _digest_of_facts(facts):
        raise damage_error(path)
    if found_kind != file_kind:
        raise ModelError(f"{path}: expected a {file_kind}, found a {found_kind}. Check the path.")
    return facts


def damage_error(path: Path) -> ModelError:
    return ModelError(
        f"{path}: the file is damaged: its facts or tensors don't match their digests. "
        "Restore it with `dvc checkout --force`, or make it again with `dvc repro --force`."
    )
