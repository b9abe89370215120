"""DVC's command line, in a process of its own, for one command after the other: each start takes a second.

    python -P dvc_process.py

Each line of stdin is the arguments of a command, as JSON. After a command's output there is a line with MARK
and its exit code. `["probe"]` is a command of ours: it writes a file to the remote and removes it.

SIGTERM is for the stage that DVC runs: DVC could be writing dvc.lock just now, and ends when stdin does.

Over ssh DVC takes whatever host answers for the right one, and lends it the ssh agent; it has no settings for
that, as of 3.67. Here the host's key must be known, as for `ssh` itself, the agent stays here, and a host
that falls silent ends the transfer.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import uuid
from typing import Any

MARK = "DVC's exit code: "
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


def probe() -> int:
    from dvc.repo import Repo

    try:
        remote = Repo().cloud.get_remote()
        files = remote.fs
        if files.protocol in ("local", "ssh") and not files.exists(remote.path):
            # DVC would make all of them: on the disk of this machine, when a share isn't mounted.
            if not files.exists(files.parent(remote.path)):
                raise FileNotFoundError(f"there is no folder {files.parent(remote.path)}")
            files.makedirs(remote.path)
        path = files.join(remote.path, f".cgan-{uuid.uuid4().hex}")
        files.pipe_file(path, b"cgan")
        files.rm_file(path)
    except Exception as error:  # whatever the libraries under DVC raise
        sys.stdout.write(" ".join(f"{type(error).__name__}: {error}".split()))
        return 1
    return 0


def main() -> None:
    commands = os.fdopen(os.dup(0), encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # a stage has nobody to ask
    signal.signal(signal.SIGTERM, lambda *_: None)
    # By its arguments DVC names a process to another that has to wait for it.
    sys.argv.append("(a flow run or sweep of this project)")
    check_hosts()
    from dvc.cli import main as dvc

    for line in commands:
        arguments = json.loads(line)
        code = probe() if arguments == ["probe"] else dvc(arguments)
        sys.stdout.write(f"\n{MARK}{code}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
