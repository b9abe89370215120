"""Where servers of ours listen: addresses, and who can reach them."""

from __future__ import annotations

import errno
import ipaddress
import socket
from urllib.parse import quote

from cgan.errors import CganError

LOOPBACK = "127.0.0.1"
ANYWHERE = (str(ipaddress.IPv4Address(0)), "::")  # every address of this machine


def site_of(host: str, port: int | None) -> str:
    """Where a server that listens there is asked from this machine."""
    return f"http://{in_url(LOOPBACK if host in ANYWHERE else host)}:{port}"


def in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host == "localhost"


def require_meant(host: str, allow_remote: bool) -> None:
    """Raises CganError for an address that others can reach, unless that is meant."""
    if not (is_loopback(host) or allow_remote):
        raise CganError(
            f"host {host[:100]}: others than this machine could reach the servers there. Add --allow-remote "
            "(make up: ALLOW_REMOTE=yes) if that is meant; docs/security.md says what it means."
        )


def require_free(host: str, port: int, other: str) -> None:
    """Raises CganError where nobody can listen; `other` says how to take another port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except (OSError, UnicodeError) as error:
        advice = {
            errno.EADDRINUSE: "another program listens there. End it (`ss -ltnp` names it), or choose "
            f"another port with {other}",
            errno.EACCES: f"it is the administrator's. Choose one above 1023 with {other}",
        }.get(
            getattr(error, "errno", 0) or 0, f"give an address of this machine, such as {LOOPBACK}"
        )
        raise CganError(f"port {port} cannot be used at {host[:100]}: {advice}.") from None


def listens(host: str, port: int) -> bool:
    """Does a server listen there?"""
    try:
        socket.create_connection((LOOPBACK if host in ANYWHERE else host, port), 1).close()
    except OSError:
        return False
    return True


def names_here(host: str, port: int) -> list[str]:
    """What a browser may call a server that listens there: names and addresses, with and without port."""
    import psutil

    own = [host]
    if host in ANYWHERE:
        found = [each for interface in psutil.net_if_addrs().values() for each in interface]
        families = (socket.AF_INET, socket.AF_INET6)
        own = [each.address.partition("%")[0] for each in found if each.family in families]
    names = [*map(in_url, own), LOOPBACK, "localhost", socket.gethostname(), socket.getfqdn()]
    return [*names, *(f"{name}:{port}" for name in names)]


def run_page(site: str, experiment_id: str, run_id: str = "", artifact: str = "") -> str:
    """Of a run in MLflow, or of one of its artifacts there; without a run, of the table of all."""
    run = f"/{quote(run_id, safe='')}" if run_id else ""
    place = f"/artifacts/{quote(artifact)}" if artifact else ""
    # Without the question a new browser gets MLflow's pages for GenAI.
    question = "?workflowType=machine_learning"
    return f"{site.rstrip('/')}/#/experiments/{quote(experiment_id, safe='')}/runs{run}{place}{question}"
