"""The storage that machines share: DVC's remote for data and models, `origin` for what points to them.

    python -m flows.remote check
    python -m flows.remote push
    python -m flows.remote pull

A deployment's run ends with `push`, which brings its results to the remote, and `publish`, which brings
dvc.lock and params.yaml to `origin`, as a commit on a branch of the run's. From there `git switch` and
`dvc pull` bring all of it to any clone, where nothing has to be trained.

The address is that of DVC's default remote, or stands in the environment, as CGAN_REMOTE. Credentials come
from the ssh agent, from keys in ~/.ssh, or from AWS's variables and files; none is written anywhere by us.
Nothing here asks for a password: where nobody sits, nobody answers.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cgan import git
from cgan.errors import CganError
from cgan.files import write_text
from cgan.project import LOCK, home
from flows import remote_dvc
from flows.dvc import own_words, run_dvc

VARIABLE = "CGAN_REMOTE"
NAME = "environment"  # of the remote that the variable names, in .dvc/config.local
LOCAL_CONFIG = Path(".dvc/config.local")
CHECK_S = 30.0  # several times what the slowest answer took
BRANCH_LETTERS = 80
# In an address, up to the last @ and not a port: whoever forgets to write / as %2F is not to be shown it.
PASSWORD = re.compile(r"(//[^/@\s:]*):(?!\d+/)\S+@")
PUBLISHED = (LOCK, Path("params.yaml"))
AUTHOR = {
    f"GIT_{role}_{key}": value
    for role in ("AUTHOR", "COMMITTER")
    for key, value in {"NAME": "cgan", "EMAIL": "cgan@localhost"}.items()
}

Relay = Callable[[str], None]


class RemoteError(CganError):
    """The remote, or the git server beside it, did not do what was asked."""


@dataclass(frozen=True)
class Remote:
    """A DVC remote: its name in DVC's settings, and its address."""

    name: str
    url: str

    def __str__(self) -> str:
        """The address, without what must not be shown."""
        return _without_password(self.url)


# --- which one ----------------------------------------------------------------------------------


def default_remote() -> Remote | None:
    """The remote of this working tree; None where there is none.

    CGAN_REMOTE goes before DVC's own default: its address is written to .dvc/config.local, which git ignores,
    and removed from there when the variable is gone. Raises RemoteError for an address with a password.
    """
    _settle(os.environ.get(VARIABLE, ""))
    settings = dict(line.split("=", 1) for line in _dvc("config", "--list") if "=" in line)
    name = settings.get("core.remote", "")
    url = settings.get(f"remote.{name}.url")
    return Remote(name, url) if url else None


def _settle(url: str) -> None:
    """Make .dvc/config.local agree with the environment."""
    if _has_password(url):
        raise RemoteError(
            f"{VARIABLE} holds a password, which would come to stand in {LOCAL_CONFIG}. Leave it out: "
            "access is by the ssh agent, by a key in ~/.ssh, or by AWS's variables."
        )
    if url and "://" not in url and not Path(url).is_absolute():
        raise RemoteError(
            f"{VARIABLE} is {url}, a relative path, and runs work in folders of their own. Give the whole "
            "path, such as /mnt/share/storage, or an address such as ssh://host/folder."
        )
    known = LOCAL_CONFIG.read_text(encoding="utf-8") if LOCAL_CONFIG.is_file() else ""
    named = f"'remote \"{NAME}\"'" in known
    if url and not (named and re.search(rf"^ *url = {re.escape(url)}$", known, re.MULTILINE)):
        try:
            _dvc("remote", "add", "--local", "--default", "--force", NAME, url)
        except RemoteError as error:
            raise RemoteError(f"{VARIABLE}={url}: {error}.") from None
    elif named and not url:
        _dvc("remote", "remove", "--local", NAME)


def _without_password(words: str) -> str:
    return PASSWORD.sub(r"\1@", words)


def _has_password(url: str) -> bool:
    return bool(PASSWORD.search(url))


def _dvc(*arguments: str) -> list[str]:
    """DVC's output. Raises RemoteError with its own words."""
    code, lines = run_dvc(arguments, lambda _: None)
    if code:
        raise RemoteError(own_words(lines))
    return lines


# --- does it answer -----------------------------------------------------------------------------


def check(remote: Remote) -> str | None:
    """Writes a small file there and removes it. None if it works, else what DVC or its libraries say."""
    command = [sys.executable, "-P", remote_dvc.__file__, "probe", remote.name]
    try:
        done = subprocess.run(
            command,
            env={**os.environ, "AWS_MAX_ATTEMPTS": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=CHECK_S,
            start_new_session=True,  # no terminal, on which it could ask for a password
        )
    except subprocess.TimeoutExpired:
        return f"{remote} does not answer within {CHECK_S:.0f} seconds."
    if not done.returncode:
        return None
    said = (done.stdout or done.stderr).strip().splitlines() or ["it said nothing"]
    return f"{remote} cannot be used: {_without_password(said[-1])[:300]}"


# --- results go there, and come from there -------------------------------------------------------


def push(relay: Relay, stages: Sequence[str] = ()) -> str:
    """Bring what dvc.lock names to the remote, and which inputs it came from. A sentence about it.

    Of these stages only, where some are given: dvc.lock may name results of others that are not here. Raises
    RemoteError.
    """
    remote = _required()
    code, lines = run_dvc(["push", "--run-cache", *stages], relay, remote=True)
    if code:
        raise RemoteError(f"{remote}: not pushed: {own_words(lines)}.")
    for line in lines:
        if found := re.match(r"(\d+) files? pushed", line):
            return f"{found[0]} to {remote}."
    return f"{remote} had everything already."


def pull(relay: Relay) -> str:
    """`dvc pull`, from a host whose key is known. A sentence about it. Raises RemoteError."""
    remote = _required()
    code, lines = run_dvc(["pull"], relay, remote=True)
    if code:
        raise RemoteError(f"{remote}: not pulled: {own_words(lines)}.")
    return f"{lines[-1] if lines else 'Done'}, from {remote}."


@contextlib.contextmanager
def owed() -> Iterator[None]:
    """While results go out; until that has succeeded once, `is_owed`, whatever ends this process."""
    write_text(_undelivered(), "")
    yield
    _undelivered().unlink(missing_ok=True)


def is_owed() -> bool:
    """Did a delivery from this machine fail, with none after it that succeeded?"""
    return _undelivered().exists()


def _undelivered() -> Path:
    return home() / "undelivered"


def _required() -> Remote:
    if remote := default_remote():
        return remote
    raise RemoteError(
        "there is no DVC remote. Set one: `dvc remote add --default storage ssh://host/folder`, or "
        f"{VARIABLE}=ssh://host/folder in the environment."
    )


# --- what points there --------------------------------------------------------------------------


def branch_name(words: str) -> str:
    """`runs/…`, of the words of a run's name; git keeps a branch as a file, whose name has its limits."""
    plain = re.sub(r"[^A-Za-z0-9]+", "-", words).strip("-")
    return "runs/" + (plain[:BRANCH_LETTERS].strip("-") or "unnamed")


def publish(branch: str, message: str) -> str:
    """Commit dvc.lock and params.yaml of this checkout on top of HEAD, as `branch` of `origin`. A sentence
    about it.

    The branch is this run's alone: what an earlier attempt left there is replaced. Raises RemoteError.
    """
    try:
        git.git("read-tree", "HEAD")  # without what DVC has staged
        git.git("add", "--", *(path for path in PUBLISHED if path.is_file()))
        tree = git.git("write-tree").decode().strip()
        commit = (
            git.git("commit-tree", tree, "-p", "HEAD", "-m", message, folder=None, **AUTHOR)
            .decode()
            .strip()
        )
        push = ("-c", "core.hooksPath=/dev/null", "push", "--quiet", "--force", "origin")
        git.git_remote(*push, f"{commit}:refs/heads/{branch}")
    except git.GitError as error:
        raise RemoteError(f"origin did not take branch {branch}: {_reason(str(error))}") from None
    return f"origin has branch {branch}, at {commit[:12]}."


def _reason(words: str) -> str:
    """Git's own words, in a line."""
    lines = [line.removeprefix("remote: ").strip() for line in words.splitlines() if line.strip()]
    return _without_password("; ".join(lines))


# --- the command line ---------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m flows.remote", description="The DVC remote of this project."
    )
    parser.add_argument("command", choices=["check", "push", "pull"])
    asked = parser.parse_args().command
    try:
        if asked == "check":
            remote = _required()
            if fault := check(remote):
                raise RemoteError(fault)
            said = f"{remote} answers, and can be written to."
        else:
            said = (push if asked == "push" else pull)(lambda _: None)
    except CganError as error:
        sys.stderr.write(f"Error: {error}\n")
        return error.exit_code
    sys.stdout.write(f"{said}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
