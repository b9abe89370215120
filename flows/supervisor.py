"""The supervisor of `make up`, which keeps its processes running."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xmlrpc.client import Fault, ServerProxy  # nosec B411: our own supervisor answers

from cgan.project import PRODUCTION

SOCKET = "supervisor.sock"
STATE = "state.json"  # the ports of the servers that were started, by name


@contextlib.contextmanager
def supervisor(root: Path) -> Iterator[Any]:
    """The supervisor's XML-RPC interface. A call raises OSError where none runs."""
    from supervisor.xmlrpc import SupervisorTransport

    transport = SupervisorTransport(None, None, f"unix://{SOCKET}")
    # From inside the folder: a socket's path has 107 bytes at most.
    with contextlib.chdir(root / PRODUCTION), ServerProxy("http://localhost", transport) as proxy:
        yield proxy.supervisor


def running(root: Path) -> dict[str, int] | None:
    """The pid of each process that the supervisor keeps; None where no supervisor runs. One that is just
    shutting down, after a `down` that was killed, is waited for."""
    from supervisor.xmlrpc import Faults

    with contextlib.suppress(OSError), supervisor(root) as keeper:
        while True:
            try:
                infos = keeper.getAllProcessInfo()
                return {info["name"]: info["pid"] for info in infos if info["pid"]}
            except Fault as fault:
                if fault.faultCode != Faults.SHUTDOWN_STATE:
                    raise
                time.sleep(0.2)  # in the end nobody answers
    return None
