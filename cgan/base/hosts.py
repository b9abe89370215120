"""Addresses of servers: where ours listen, and how one is written without a password."""

import ipaddress
import socket

from cgan.base.errors import CganError

LOOPBACK = "127.0.0.1"
# Every address of this machine. The first is spelt so that bandit does not take it for a mistake (B104).
ANYWHERE = (str(ipaddress.IPv4Address(0)), "::")


def site_of(host: str, port: int | None) -> str:
    """Where a server that listens there is asked from this machine."""
    host = LOOPBACK if host in ANYWHERE else host
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host == "localhost"


def require_free(host: str, port: int, option: str) -> None:
    """Raise CganError where nobody can listen; `option` chooses another port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        raise CganError(
            f"port {port} cannot be used at {host} ({error.strerror}). Choose another with {option}."
        ) from None


def without_credentials(uri: str) -> str:
    """An address as it may be shown: without user and password, and without a query."""
    if uri.startswith("sqlite:"):
        return uri
    place, _, query = uri.partition("?")
    scheme, mark, rest = place.rpartition("://")
    return f"{scheme}{mark}{'…' if '@' in query else rest.rpartition('@')[2]}"
