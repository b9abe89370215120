"""DVC's command line, as it talks to a remote; in a process of its own.

    python -P remote_dvc.py repro --pull --single-item train
    python -P remote_dvc.py probe storage

Over ssh DVC takes whatever host answers for the right one, and lends it the ssh agent; it has no settings for
that, as of 3.67. Here the host's key must be known, as for `ssh` itself, the agent stays here, and a host
that falls silent ends the transfer.
"""

from __future__ import annotations

import sys
import uuid
from typing import Any

SSH = {
    "known_hosts": (),  # asyncssh's default: those of ~/.ssh
    "agent_forwarding": False,
    "connect_timeout": 20,
    "login_timeout": 20,
    "keepalive_interval": 15,  # three unanswered: the connection is dead
}


def check_hosts() -> None:
    """Have dvc-ssh, if it is here, connect with the options above."""
    try:
        from dvc_ssh import SSHFileSystem
    except ImportError:
        return
    prepare = SSHFileSystem._prepare_credentials

    def prepared(self: Any, **config: Any) -> dict[str, Any]:
        return {**prepare(self, **config), **SSH}

    SSHFileSystem._prepare_credentials = prepared


def probe(name: str) -> None:
    """Write a file to a remote and remove it."""
    from dvc.repo import Repo

    remote = Repo().cloud.get_remote(name)
    files = remote.fs
    if files.protocol in ("local", "ssh") and not files.exists(remote.path):
        # DVC would make all of them: on the disk of this machine, when a share isn't mounted.
        if not files.exists(files.parent(remote.path)):
            raise FileNotFoundError(f"there is no folder {files.parent(remote.path)}")
        files.makedirs(remote.path)
    path = files.join(remote.path, f".cgan-{uuid.uuid4().hex}")
    files.pipe_file(path, b"cgan")
    files.rm_file(path)


def main(arguments: list[str]) -> int:
    check_hosts()
    if arguments[0] == "probe":
        try:
            probe(arguments[1])
        except Exception as error:  # whatever the libraries under DVC raise
            sys.stdout.write(" ".join(f"{type(error).__name__}: {error}".split()))
            return 1
        return 0
    from dvc.cli import main as dvc

    return int(dvc(arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
