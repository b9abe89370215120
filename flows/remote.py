"""The storage that machines share: DVC's remote for data and models, `origin` for what points to them.

    python -m flows.remote check
    python -m flows.remote push
    python -m flows.remote pull

A deployment's run ends with `push`, which brings its results to the remote, and `publish`, which brings
dvc.lock and params.yaml to `origin`, as a branch. `git switch` and `dvc pull` bring them to any clone.

The address is that of DVC's default remote, or stands in the environment, as CGAN_REMOTE. Credentials come
from the ssh agent, from keys in ~/.ssh, or from AWS's variables and files; none is written anywhere by us.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from cgan import git
from cgan.errors import CganError
from cgan.project import LOCK, home
from cgan.store.address import without_credentials
from flows import dvc_process
from flows.checkout import dvc_in
from flows.dvc import Relay, own_words, run_dvc

VARIABLE = "CGAN_REMOTE"
NAME = "environment"  # of the remote that the variable names, in .dvc/config.local
PASSWORD = re.compile(r"(//[^/@\s:]*):(?!\d+/)\S+@")  # in an address; a password may hold / ? # @
CHECK_S = 30.0  # several times what the slowest answer took
PUBLISHED = (LOCK, Path("params.yaml"))
AUTHOR = ("-c", "user.name=cgan", "-c", "user.email=cgan@localhost")


def default_remote() -> str | None:
    """The address of this working tree's remote, as it may be shown; None where there is none.

    CGAN_REMOTE goes before DVC's own default: its address is written to .dvc/config.local, which git ignores,
    and removed from there when the variable is gone. Raises CganError for an address that cannot be used.
    """
    url = os.environ.get(VARIABLE, "")
    if PASSWORD.search(url):
        raise CganError(
            f"{VARIABLE} holds a password, which would come to stand in .dvc/config.local. Leave it out: "
            "access is by the ssh agent, by a key in ~/.ssh, or by AWS's variables."
        )
    if url and "://" not in url and not Path(url).is_absolute():
        raise CganError(
            f"{VARIABLE} is {url}, a relative path, and runs work in folders of their own. Give the whole "
            "path, such as /mnt/share/storage, or an address such as ssh://host/folder."
        )
    settings = _settings()
    if url != settings.get(f"remote.{NAME}.url", ""):
        change = ["add", "--default", "--force", NAME, url] if url else ["remove", NAME]
        dvc_in(Path.cwd(), "remote", change[0], "--local", *change[1:])
        settings = _settings()
    found = settings.get(f"remote.{settings.get('core.remote')}.url")
    return without_credentials(found) if found else None


def _settings() -> dict[str, str]:
    listed = dvc_in(Path.cwd(), "config", "--list").splitlines()
    return dict(line.split("=", 1) for line in listed if "=" in line)


def owed() -> Path:
    """There from before a delivery until one has succeeded, whatever ends the process."""
    return home() / "undelivered"


def _required() -> str:
    if remote := default_remote():
        return remote
    raise CganError(
        "there is no DVC remote. Set one: `dvc remote add --default storage ssh://host/folder`, or "
        f"{VARIABLE}=ssh://host/folder in the environment."
    )


def check() -> str:
    """Writes a small file to the remote and removes it. Raises CganError with what DVC's libraries say."""
    remote = _required()
    try:
        done = subprocess.run(
            [sys.executable, "-P", dvc_process.__file__],
            env={**os.environ, "AWS_MAX_ATTEMPTS": "1"},
            input='["probe"]\n',
            capture_output=True,
            encoding="utf-8",
            timeout=CHECK_S,
            start_new_session=True,  # no terminal, on which it could ask for a password
        )
    except subprocess.TimeoutExpired:
        raise CganError(f"{remote} does not answer within {CHECK_S:.0f} seconds.") from None
    if f"{dvc_process.MARK}0" not in done.stdout:
        said = (done.stdout or done.stderr or "it ended").partition(f"\n{dvc_process.MARK}")[0]
        raise CganError(
            f"{remote} cannot be used: {PASSWORD.sub('//', said[-300:].splitlines()[-1])}"
        )
    return f"{remote} answers, and can be written to."


def push(relay: Relay = print, stages: Sequence[str] = ()) -> str:
    """Bring what dvc.lock names, and which inputs it came from, to the remote: of these stages only, where
    some are given, for it may name results that are not here. A sentence about it. Raises CganError."""
    return _transfer(relay, "push", "--run-cache", *stages)


def pull(relay: Relay = print) -> str:
    return _transfer(relay, "pull")


def _transfer(relay: Relay, *arguments: str) -> str:
    """`dvc push` or `dvc pull`, with a host whose key is known."""
    remote = _required()
    code, lines = run_dvc(arguments, relay)
    if code:
        raise CganError(f"{remote}: dvc {arguments[0]}: {own_words(lines)}.")
    return f"{remote}: {lines[-1] if lines else 'nothing to do.'}"


def publish(branch: str, message: str) -> str:
    """Commit dvc.lock and params.yaml of this checkout on top of HEAD, as `branch` of `origin`, in place of
    what an earlier attempt left there. A sentence about it. Raises CganError."""
    try:
        git.git("read-tree", "HEAD")  # without what DVC has staged
        git.git("add", "--force", "--", *(path for path in PUBLISHED if path.is_file()))
        tree = git.git("write-tree").decode().strip()
        made = git.git(*AUTHOR, "commit-tree", tree, "-p", "HEAD", "-m", message)
        push = ("-c", "core.hooksPath=/dev/null", "push", "--quiet", "--force", "origin")
        git.git_remote(*push, f"{made.decode().strip()}:refs/heads/{branch}")
    except git.GitError as error:
        raise CganError(f"origin did not take branch {branch}: {error}") from None
    return f"origin has branch {branch}."


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m flows.remote", description="The DVC remote of this project."
    )
    parser.add_argument("command", choices=["check", "push", "pull"])
    command = parser.parse_args().command
    try:
        done = check() if command == "check" else push() if command == "push" else pull()
    except CganError as error:
        sys.exit(f"Error: {error}")
    sys.stdout.write(f"{done}\n")


if __name__ == "__main__":
    main()
