"""The project as git sees it: what a run is made from, and a clone of it at a commit."""

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cgan.errors import CganError

# A rewritten dvc.lock is what a training on another kind of machine leaves behind; it travels by itself.
# DVC's settings change no result, and may name a password.
OURS = ("params.yaml", "dvc.yaml", "cgan/*.py", "flows/*.py")  # new files that are part of a patch
LEFT_OUT = (":(exclude,top,glob)**/dvc.lock", ":(exclude,top).dvc")
SECRET_NAME = re.compile(
    r"TOKEN|SECRET|PASSW|CREDENTIAL|WEBHOOK|AUTH_STRING|_KEY$|^KEY", re.IGNORECASE
)
IN_ADDRESS = re.compile(r"://[^:/@\s]*:(.+)@")  # a database's or a server's password
SSH = "GIT_SSH_COMMAND"
SECRET_LENGTH = 8  # shorter values stand in any text by chance


class GitError(CganError):
    """Git is missing, this is no repository, or it refused."""


@dataclass(frozen=True)
class Source:
    """The working tree against its commit.

    `patch` brings a tree of `commit` to this one: changes of tracked files, and Python files of ours
    that git neither tracks nor ignores. `secrets`: the environment variables whose values stand in it,
    so that it must not travel.
    """

    commit: str
    branch: str
    changed: list[str]
    patch: bytes
    secrets: str


def git(*arguments: str | Path, folder: Path | None = None, **environment: str) -> bytes:
    """Git's output. Raises GitError with git's own words, also where it asks for a password and gets none.

    The repository is the one of `folder`, also inside a git hook, which points to its own.
    """
    env = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    env |= {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C", **environment}
    if SSH in os.environ:  # it may name the key
        env[SSH] = os.environ[SSH]
    command = ["git", *map(str, arguments)]
    try:
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        raise GitError(f"git: {error}") from None
    if done.returncode:
        raise GitError(done.stderr.decode(errors="replace").strip()[-1000:])
    return done.stdout


def source(folder: Path | None = None) -> Source:
    """What the tree around `folder` (default: the working directory) holds. Raises GitError."""
    asked = ("HEAD", "--git-path", "index", "--abbrev-ref", "HEAD")
    commit, real, branch = git("rev-parse", *asked, folder=folder).decode().splitlines()
    with tempfile.TemporaryDirectory(prefix="cgan-") as temporary:
        # New files are part of a diff once an index knows of them: not the engineer's, a copy of it. With
        # its time: git compares a file's content if the file isn't older than the index.
        index = Path(temporary) / "index"
        with contextlib.suppress(FileNotFoundError):
            shutil.copy2((folder or Path()) / real, index)
        on_copy = partial(git, folder=folder, GIT_INDEX_FILE=str(index))
        new = on_copy("ls-files", "--others", "--exclude-standard", "-z", "--", *OURS)
        on_copy("add", "--intent-to-add", "--", *new.decode().split("\0")[:-1])
        on_copy("update-index", "-q", "--unmerged", "--refresh")
        # Other than `git diff`, it heeds no settings of the engineer's.
        names, patch = (
            on_copy("diff-index", *form, "HEAD", "--", ":/", *LEFT_OUT)
            for form in (("--name-only", "-z"), ("-p", "--binary", "--full-index"))
        )
    changed = names.decode(errors="replace").split("\0")[:-1]
    return Source(commit, branch, changed, patch, secrets_in(patch))


def secrets_in(content: bytes) -> str:
    """The names of environment variables whose secret values stand in `content`."""
    names = []
    for name, value in os.environ.items():
        address = IN_ADDRESS.search(value)
        secret = value if SECRET_NAME.search(name) else address[1] if address else ""
        if len(secret) >= SECRET_LENGTH and secret.encode() in content:
            names.append(name)
    return ", ".join(names)


def clone_at(repository: Path, commit: str, folder: Path) -> None:
    """The repository's `commit`, which its `origin` may have, in `folder`, without its history. No hook runs,
    and no branch or tag of the repository changes. Raises CganError."""
    resolve = partial(git, "rev-parse", "--verify", f"{commit}^{{commit}}", folder=repository)
    try:
        wanted = resolve()
    except GitError:
        try:
            git("fetch", "--quiet", "--no-tags", "origin", commit, folder=repository)
        except GitError as error:
            raise CganError(
                f"commit {commit} is neither in {repository} nor can its origin provide it ({error}). "
                "Push it (`git push`), or choose a commit that is there."
            ) from None
        wanted = resolve()
    which = wanted.decode().strip()
    git("init", "--quiet", "--template=", folder)
    git("fetch", "--quiet", "--no-tags", "--depth=1", repository.resolve(), which, folder=folder)
    git("-c", "core.hooksPath=/dev/null", "checkout", "--quiet", "--detach", which, folder=folder)
