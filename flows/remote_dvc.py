"""DVC's command line, as it talks to a remote; in a process of its own.

    python -P remote_dvc.py repro --pull --single-item train
    python -P remote_dvc.py probe storage

What DVC has no settings for, as of 3.67:

- Over ssh it takes whatever host answers for the right one, and lends it the ssh agent. Here the host's key
  must be known, as for `ssh` itself, the agent stays here, and a host that falls silent ends the transfer.
- `--pull` and `--run-cache` bring the record of every stage that was ever run, at each call. Here they bring
  those that are asked for.

With another DVC, in which these parts are named otherwise, the second is left alone.
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
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


def narrow_run_cache() -> None:
    """Have DVC's run-cache move only the records of the stages at hand.

    A record says with which inputs a stage was run, and what came out. Its folder is named by the inputs.
    """
    from dvc.stage import cache

    names = ("_can_hash", "_get_stage_hash", "_get_cache_hash")
    methods = ("_load", "_get_cache_dir", "_get_cache_path")
    if not all(hasattr(cache, name) for name in names) or not all(
        hasattr(cache.StageCache, name) for name in methods
    ):
        return
    load = cache.StageCache._load

    def push(self: Any, remote: str | None, odb: Any = None) -> list[str]:
        from dvc.stage.serialize import to_single_stage_lockfile

        there = odb or self.repo.cloud.get_remote_odb(remote, "push", hash_name="md5-dos2unix")
        here = self.repo.cache.legacy
        sent = []
        for stage in self.repo.index.stages:
            # Not in dvc.lock, or without its inputs here: it hasn't run in this tree.
            if not all(dep.hash_info and dep.exists for dep in stage.deps):
                continue
            if not cache._can_hash(stage):
                continue
            value = cache._get_cache_hash(to_single_stage_lockfile(stage))
            path = self._get_cache_path(cache._get_stage_hash(stage), value)
            if Path(path).exists() and _copy(here, there, path):
                sent.append(path)
        return sent

    def load_from_anywhere(self: Any, stage: Any) -> Any:
        folder = self._get_cache_dir(cache._get_stage_hash(stage))
        if not Path(folder).is_dir():
            here = self.repo.cache.legacy
            there = self.repo.cloud.get_remote_odb(None, "fetch", hash_name="md5-dos2unix")
            for path in _files(there.fs, _counterpart(here, there, folder)):
                _copy(there, here, path)
        return load(self, stage)

    cache.StageCache.push = push
    cache.StageCache.pull = lambda self, remote, odb=None: []
    cache.StageCache._load = load_from_anywhere


def _files(files: Any, folder: str) -> Iterator[str]:
    if files.exists(folder):
        yield from files.find(folder)


def _counterpart(source: Any, target: Any, path: str) -> str:
    parts = source.fs.relparts(path, source.path)
    return str(target.fs.join(target.path, *parts))


def _copy(source: Any, target: Any, path: str) -> bool:
    """Copy a file of one store to the same place in the other; False if it is there."""
    from dvc.fs import generic

    destination = _counterpart(source, target, path)
    if target.fs.exists(destination):
        return False
    generic.copy(source.fs, path, target.fs, destination)
    return True


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
    narrow_run_cache()
    from dvc.cli import main as dvc

    return int(dvc(arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
