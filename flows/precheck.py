"""What DVC needs before it starts: a git repository, and a dvc.lock that it can read.

    python -m flows.precheck

A dvc.lock that was cut off (DVC was killed while it wrote it) is put back; what is lacking is told in words.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from cgan import git
from cgan.errors import CganError
from cgan.files import write_bytes
from cgan.project import LOCK, LOCK_COPY

BROKEN = LOCK_COPY.with_name("dvc.lock.broken")

Say = Callable[[str], None]


def check(say: Say) -> None:
    """Put dvc.lock right if it is broken, and say so. Raises CganError where DVC could not start."""
    _require_git()
    if not LOCK.is_file():
        return  # everything is stale then
    content = LOCK.read_bytes()
    if _is_whole(content):
        return
    if b"<<<<<<<" in content:
        raise CganError(
            f"{LOCK}: it holds the markers of a merge conflict. Take one side, `git checkout --ours "
            f"{LOCK}` or `--theirs`, then run `dvc repro`: it brings the rest up to date."
        )
    write_bytes(BROKEN, content)
    for name, found in (("its last good copy", _copy()), ("git's", _committed())):
        if _is_whole(found):
            write_bytes(LOCK, found)
            say(
                f"WARNING: {LOCK} was damaged, and is {name} again: DVC was killed while it wrote it. "
                f"Stages that it doesn't know run again. What was there is in {BROKEN}."
            )
            return
    LOCK.unlink()
    say(
        f"WARNING: {LOCK} was damaged, and there is no good copy: it is removed, and every stage that DVC's "
        f"cache doesn't know runs again. What was there is in {BROKEN}."
    )


def _require_git() -> None:
    try:
        git.git("rev-parse", "--git-dir")
    except git.GitError:
        settings = [Path(".dvc/config"), Path(".dvc/config.local")]
        texts = [path.read_text() for path in settings if path.is_file()]
        if any("no_scm=true" in text.replace(" ", "").lower() for text in texts):
            return
        raise CganError(
            f"{Path.cwd()}: not in a git repository, and DVC expects one. Make one: `git init && git add "
            "--all && git commit --message start`. Or do without: `dvc config --local core.no_scm true`. "
            "`cgan validate` and `cgan draw` need neither."
        ) from None


def _copy() -> bytes:
    """Of the moment when the last stage began, at which DVC had read it."""
    return LOCK_COPY.read_bytes() if LOCK_COPY.is_file() else b""


def _committed() -> bytes:
    try:
        return git.git("show", f"HEAD:./{LOCK}")
    except git.GitError:
        return b""


def _is_whole(content: bytes) -> bool:
    """Has it what DVC's schema asks for? A file cut off between two stages passes: they run again."""
    try:
        document = yaml.safe_load(content)
        return isinstance(document["schema"], str) and all(
            map(_is_entry, document["stages"].values())
        )
    except (KeyError, TypeError, AttributeError, ValueError, yaml.YAMLError):
        return False


def _is_entry(entry: dict[str, Any]) -> bool:
    files = [file for kind in ("deps", "outs") for file in entry.get(kind, [])]
    return "cmd" in entry and all(isinstance(file["path"], str) for file in files)


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def main() -> int:
    try:
        check(_tell)
    except CganError as error:
        sys.stderr.write(f"Error: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
