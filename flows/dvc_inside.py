"""What DVC can do, but its command line cannot. Runs in a process of its own.

python -m flows.dvc_inside probe NAME
"""

from __future__ import annotations

import json
import sys
import uuid


def probe(name: str) -> list[list[str]]:
    """Write a file to a remote and remove it. The exception and its causes, each as class and message."""
    from dvc.repo import Repo

    try:
        remote = Repo().cloud.get_remote(name)
        files = remote.fs
        path = files.join(remote.path, f".cgan-{uuid.uuid4().hex}")
        if files.protocol in ("local", "ssh"):
            files.makedirs(remote.path, exist_ok=True)
        files.pipe_file(path, b"cgan")
        files.rm_file(path)
    except Exception as error:
        return [[type(cause).__name__, str(cause)] for cause in _causes(error)]
    return []


def _causes(error: BaseException | None) -> list[BaseException]:
    causes = []
    while error and error not in causes:
        causes.append(error)
        error = error.__cause__ or error.__context__
    return causes


def main() -> int:
    command, *arguments = sys.argv[1:]
    if command == "probe":
        sys.stdout.write(json.dumps(probe(*arguments)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
