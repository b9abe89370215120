"""OpenSSH's server on loopback, with keys of its own, and a home whose key it accepts."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import free_port

SETTINGS = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
PasswordAuthentication {passwords}
Subsystem sftp internal-sftp
"""


@dataclass(frozen=True)
class SshServer:
    port: int
    folder: Path
    home: Path  # of the one who logs in: HOME, for asyncssh

    def url(self, path: Path | str) -> str:
        return f"ssh://127.0.0.1:{self.port}{path}"

    def accept(self, key: Path) -> None:
        (self.folder / "authorized_keys").write_bytes(key.with_suffix(".pub").read_bytes())

    def know_host(self) -> None:
        kind, key = (self.folder / "host_key.pub").read_text().split()[:2]
        (self.home / ".ssh/known_hosts").write_text(f"[127.0.0.1]:{self.port} {kind} {key}\n")


def make_key(path: Path, passphrase: str = "") -> Path:
    path.unlink(missing_ok=True)
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-f", path]
    subprocess.run(command, check=True)
    return path


@contextlib.contextmanager
def ssh_server(folder: Path, passwords: str = "no") -> Iterator[SshServer]:
    """A server that accepts the key in the `home` beside its settings, and is known there."""
    program = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    if not program:
        pytest.skip("no sshd here: Debian's package openssh-server")
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where root's sshd locks its children in
    port = free_port()
    home = folder / "home"
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    server = SshServer(port, folder, home)
    make_key(folder / "host_key")
    server.accept(make_key(home / ".ssh/id_ed25519"))
    server.know_host()
    settings = folder / "sshd_config"
    settings.write_text(SETTINGS.format(port=port, folder=folder, passwords=passwords))
    process = subprocess.Popen([program, "-D", "-f", settings, "-E", folder / "log"])
    try:
        deadline = time.monotonic() + 20
        while True:
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None and time.monotonic() < deadline, (
                folder / "log"
            ).read_text()
            time.sleep(0.05)
        yield server
    finally:
        process.terminate()
        process.wait()


def user() -> str:
    return getpass.getuser()
