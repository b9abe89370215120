"""The project as git sees it: what a run is made from, and a clone of it at a commit."""

import os
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cgan.base.commands import CommandError, output_of

# A rewritten dvc.lock is what a training on another kind of machine leaves behind; it travels by itself.
# DVC's settings change no result, and may name a password.
EXCLUDED = (":(exclude,top,glob)**/dvc.lock", ":(exclude,top).dvc")
# Of the files that git does not track, those that a run may be made from.
NEW_FILES = ("params.yaml", "dvc.yaml", "cgan/*.py", "flows/*.py")
# Whatever settings the engineer's git has.
PATCH_FORM = ("--binary", "--no-color", "--no-ext-diff", "--src-prefix=a/", "--dst-prefix=b/")
SECRET_NAME = re.compile("KEY|TOKEN|SECRET|PASSW|AUTH", re.IGNORECASE)
SECRET_LENGTH = 8  # shorter values stand in any text by chance
# Inside a hook, they lead git to another repository.
REDIRECTIONS = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")


@dataclass(frozen=True)
class WorkingTree:
    """The tree of files against its commit. `changed`: the names of tracked files that differ, and of
    NEW_FILES; `patch` brings the tracked files of `commit` to these."""

    commit: str
    changed: list[str]
    patch: bytes


def git(*arguments: str | Path, folder: Path | None = None) -> bytes:
    """Git's output. Raises CommandError with git's own words, also where it would ask for a password.

    The repository is the one of `folder`, also inside a git hook, which points to its own.
    """
    env = {key: value for key, value in os.environ.items() if key not in REDIRECTIONS}
    env |= {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    return output_of("git", *arguments, folder=folder, environment=env)


def working_tree(folder: Path | None = None) -> WorkingTree:
    """The tree around `folder`, by default the working directory. Raises CommandError."""
    ask = partial(git, folder=folder)
    commit = ask("rev-parse", "HEAD").decode().strip()
    paths = ("HEAD", "--", ":/", *EXCLUDED)
    names = ask("diff", "--name-only", "-z", *paths)
    names += ask("ls-files", "--others", "--exclude-standard", "-z", "--", *NEW_FILES)
    patch = ask("diff", *PATCH_FORM, *paths)
    return WorkingTree(commit, names.decode(errors="replace").split("\0")[:-1], patch)


def secrets_in(content: bytes) -> str:
    """The names of environment variables that are named as a secret is, and whose values are in `content`."""
    return ", ".join(
        name
        for name, value in os.environ.items()
        if SECRET_NAME.search(name) and len(value) >= SECRET_LENGTH and value.encode() in content
    )


def clone_at(repository: Path, commit: str, folder: Path) -> None:
    """The repository's `commit`, which its `origin` may have, in `folder`, without its history. No branch
    or tag of the repository changes. Raises CommandError."""
    resolve = partial(git, "rev-parse", "--verify", f"{commit}^{{commit}}", folder=repository)
    try:
        wanted = resolve()
    except CommandError:
        git("fetch", "--quiet", "--no-tags", "origin", commit, folder=repository)
        wanted = resolve()
    which = wanted.decode().strip()
    git("init", "--quiet", "--template=", folder)
    git("fetch", "--quiet", "--no-tags", "--depth=1", repository.resolve(), which, folder=folder)
    git("checkout", "--quiet", "--detach", which, folder=folder)
