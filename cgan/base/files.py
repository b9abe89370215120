"""Writes files whole or not at all, and reads, locks and hashes them."""

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cgan.base.errors import CganError


@contextlib.contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path in the same folder; on success flush it and rename it to `path`.

    The new name always gets a new inode, so a file that DVC linked from its cache is never written through.
    On an error the temporary file is removed and `path` is left as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.touch(exist_ok=False)
        mode = temporary.stat().st_mode  # by the umask; safetensors would make the file private
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(mode)
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename in (None, str(temporary)):
            error.filename = str(path)  # a full disk doesn't say for which file
        raise


def write_bytes(path: Path | str, content: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path | str, text: str) -> None:
    write_bytes(path, text.encode())


def write_json(path: Path | str, value: Any) -> None:
    """Write JSON, indented, keys in the given order, floats as Python writes them; NaN is refused."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a stage. Raises CganError for one that is missing, or no object."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        raise CganError(f"{path}: missing or not readable. Make it with `dvc repro`.") from None


@contextlib.contextmanager
def locked(
    path: Path,
    *,
    wait: bool = True,
    on_wait: Callable[[], object] = lambda: None,
    inherited: bool = False,
) -> Iterator[bool]:
    """Hold the lock of this file until the block or the process ends. Where another holds it: False, or if
    `wait` is on, `on_wait` is called before it waits.

    `inherited`: a child process that keeps this process's open files holds it, too.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as lock:
        os.set_inheritable(lock.fileno(), inherited)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                yield False
                return
            on_wait()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield True


def remove(folder: Path) -> None:
    """Remove a folder. It is renamed first: whoever looks there finds all of it or nothing."""
    shutil.rmtree(folder.rename(f"{folder}-{secrets.token_hex(4)}-removed"))


def sha256_of(path: Path | str) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(facts: Any) -> str:
    """16 hex digits of the sha256 of what JSON can hold, whatever the order of its keys."""
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
