"""Writes files whole or not at all, and reads, locks and hashes them."""

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cgan.errors import CganError

WEB_PAGE = "this is a web page, not a CSV; a log-in page? Log in, then download the file itself."


def looks_like_web_page(head: bytes) -> bool:
    """True for the first bytes of an HTML or XML page, such as a log-in page saved as .csv."""
    return head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"<"


@contextlib.contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path in the same folder; flush it and rename it to `path` on success.

    After the block the file survives a power cut: its folder is flushed as well, and folders that were
    made for it. The new name always gets a new inode, so a file that DVC linked from its cache is never
    written through. On an error the temporary file is removed and `path` is left as it was.
    """
    path = Path(path)
    changed = [path.parent]
    while not changed[-1].exists():
        changed.append(changed[-1].parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.touch(exist_ok=False)
        mode = temporary.stat().st_mode  # by the umask, whatever mode its writer gives it
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(mode)
        temporary.replace(path)
        for folder in changed:
            sync_folder(folder)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.errno and error.filename in (None, str(temporary)):
            error.filename = str(path)  # a full disk doesn't say for which file
        raise


def sync_folder(folder: Path) -> None:
    """Flush the folder's list of names to the disk, as os.fsync flushes a file's content."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path | str, content: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path | str, text: str) -> None:
    write_bytes(path, text.encode())


def write_json(path: Path | str, value: Any) -> None:
    """Indented, keys in the given order, floats as Python writes them; NaN is refused."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def require_writable(*paths: Path) -> None:
    """Raise OSError now, rather than after the minutes that it takes to make these files."""
    for folder in dict.fromkeys(path.parent for path in paths):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            error.filename = str(folder)
            raise


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a stage. Raises CganError for one that is missing, or no object."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        raise CganError(f"{path}: missing or not readable. Make it with `dvc repro`.") from None


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = True, inherited: bool = False) -> Iterator[bool]:
    """Hold the lock of this file until the block or the process ends; False where another holds it and
    `wait` is off.

    `inherited`: a child process that keeps this process's open files holds it, too.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as lock:  # who holds it may have written its number there
        os.set_inheritable(lock.fileno(), inherited)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


def remove(folder: Path) -> None:
    """Remove a folder. It is renamed first: whoever looks there finds all of it or nothing."""
    shutil.rmtree(folder.rename(f"{folder}-{secrets.token_hex(4)}-removed"))


def md5_of(path: Path | str) -> str:
    """The hash by which dvc.lock and DVC's cache know a file. It is no protection against forgery."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def sha256_of(path: Path | str) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
