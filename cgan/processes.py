"""The supervisor of `make up` and `make worker`, which keeps this project's processes running."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xmlrpc.client import ServerProxy

from cgan.project import PRODUCTION

SOCKET = "supervisor.sock"
STATE = "state.json"  # the programs of the last start: how each was asked for


@contextlib.contextmanager
def supervisor(root: Path) -> Iterator[Any]:
    """Its XML-RPC interface. A call raises OSError where none runs."""
    from supervisor.xmlrpc import SupervisorTransport

    with contextlib.chdir(root / PRODUCTION):  # a socket's path has 107 bytes at most
        transport = SupervisorTransport(None, None, f"unix://{SOCKET}")
        try:
            yield ServerProxy("http://localhost", transport).supervisor
        finally:
            transport.close()


def has_supervisor(root: Path) -> bool:
    with contextlib.suppress(OSError), supervisor(root) as keeper:
        return bool(keeper.getPID())
    return False


def running(root: Path) -> dict[str, int]:
    """The number of each process that the supervisor keeps. Empty where none runs."""
    with contextlib.suppress(OSError), supervisor(root) as keeper:
        return {each["name"]: each["pid"] for each in keeper.getAllProcessInfo() if each["pid"]}
    return {}
