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
from urllib.parse import quote, unquote

from cgan.errors import CganError

# Of the files that git does not track, those that are part of a patch.
NEW_FILES = ("params.yaml", "dvc.yaml", "cgan/*.py", "flows/*.py")
# A rewritten dvc.lock is what a training on another kind of machine leaves behind; it travels by itself.
# DVC's settings change no result, and may name a password.
EXCLUDED = (":(exclude,top,glob)**/dvc.lock", ":(exclude,top).dvc")
# Not PWD and OLDPWD, which are folders, nor AUTHOR, PATH and COMPASS.
SECRET_NAME = re.compile(
    r"TOKEN|SECRET|PASSW|PASSPHRASE|CREDENTIAL|WEBHOOK|COOKIE|CONNECTION_STRING|^(?!OLD).+PWD$|(API|ACCESS|PRIVATE)_?KEY"
    r"|_KEY$|^KEY|(^|_)(PASS|PAT|JWT|DSN|AUTH|BEARER)(_|$)",
    re.IGNORECASE,
)
PASSWORD_IN_URL = re.compile(r"://[^:/@\s]*:(.+)@")  # a database's or a server's password
# A user's name: a secret where the variable's name says so, as of SENTRY_DSN.
USER_IN_URL = re.compile(r"://([^:/@\s]+)@")
# Variables that lead git to another repository, as inside a hook, or change what a command means. The others,
# such as GIT_CONFIG_COUNT, GIT_ASKPASS and GIT_SSH_COMMAND, are how somebody set git up.
REDIRECTIONS = """
    GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE GIT_COMMON_DIR GIT_PREFIX GIT_NAMESPACE GIT_SHALLOW_FILE
    GIT_OBJECT_DIRECTORY GIT_ALTERNATE_OBJECT_DIRECTORIES GIT_GRAFT_FILE GIT_INTERNAL_SUPER_PREFIX
    GIT_IMPLICIT_WORK_TREE GIT_REPLACE_REF_BASE GIT_NO_REPLACE_OBJECTS GIT_ATTR_SOURCE
    GIT_EXTERNAL_DIFF GIT_DIFF_OPTS GIT_QUARANTINE_PATH
    GIT_LITERAL_PATHSPECS GIT_GLOB_PATHSPECS GIT_NOGLOB_PATHSPECS GIT_ICASE_PATHSPECS
"""
SECRET_LENGTH = 8  # shorter values stand in any text by chance


class GitError(CganError):
    """Git is missing, this is no repository, or it refused."""


@dataclass(frozen=True)
class WorkingTree:
    """The tree of files against its commit.

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
    env = {key: value for key, value in os.environ.items() if key not in REDIRECTIONS.split()}
    env |= {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C", **environment}
    # By the protocol of version 0, which somebody may have set, no server gives a commit that is no branch's.
    command = ["git", "-c", "protocol.version=2", *map(str, arguments)]
    try:
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        raise GitError(f"git: {error}") from None
    if done.returncode:
        raise GitError(done.stderr.decode(errors="replace").strip()[-1000:])
    return done.stdout


def working_tree(folder: Path | None = None) -> WorkingTree:
    """The tree around `folder`, by default the working directory. Raises GitError."""
    wanted = ("HEAD", "--git-path", "index", "--abbrev-ref", "HEAD")
    commit, real, branch = git("rev-parse", *wanted, folder=folder).decode().splitlines()
    with tempfile.TemporaryDirectory(prefix="cgan-") as temporary:
        # New files are part of a diff once an index knows of them: not the engineer's, a copy of it. With
        # its time: git compares a file's content if the file isn't older than the index.
        index = Path(temporary) / "index"
        with contextlib.suppress(FileNotFoundError):
            shutil.copy2((folder or Path()) / real, index)
        on_copy = partial(git, folder=folder, GIT_INDEX_FILE=str(index))
        new = on_copy("ls-files", "--others", "--exclude-standard", "-z", "--", *NEW_FILES)
        on_copy("add", "--intent-to-add", "--", *new.decode().split("\0")[:-1])
        on_copy("update-index", "-q", "--unmerged", "--refresh")
        # Other than `git diff`, it heeds no settings of the engineer's.
        difference = partial(on_copy, "diff-index")
        paths = ("HEAD", "--", ":/", *EXCLUDED)
        names = difference("--name-only", "-z", *paths)
        patch = difference("-p", "--binary", "--full-index", *paths)
    changed = names.decode(errors="replace").split("\0")[:-1]
    return WorkingTree(commit, branch, changed, patch, secrets_in(patch))


def secrets_in(content: bytes) -> str:
    """The names of environment variables whose secret values stand in `content`."""
    text = content.decode(errors="replace")
    return ", ".join(name for name, value in os.environ.items() if _has_secret(text, name, value))


def _has_secret(text: str, name: str, value: str) -> bool:
    is_place = False  # of a secret, such as SSH_AUTH_SOCK
    with contextlib.suppress(OSError, ValueError):  # no path, for it is too long
        is_place = Path(value).exists()
    is_named = bool(SECRET_NAME.search(name)) and not is_place
    found = PASSWORD_IN_URL.findall(value)
    if is_named:
        found += [value, *USER_IN_URL.findall(value)]
    # In an address, characters that it needs for itself stand as % and two digits.
    forms = {form for secret in found for form in (secret, unquote(secret), quote(secret, safe=""))}
    for form in forms:
        # A password that is a word does not stand in longer ones: `training` in `training_images`.
        bounds = (r"(?<![\w-])", r"(?![\w-])") if form.isalpha() and form.islower() else ("", "")
        if len(form) >= SECRET_LENGTH and re.search(re.escape(form).join(bounds), text):
            return True
    return False


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
