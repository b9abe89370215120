"""OpenSSH's server on loopback, with keys of its own, and a home whose key it accepts."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import free_port, listens, wait_until

SETTINGS = """
ListenAddress {address}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
PasswordAuthentication no
Subsystem sftp internal-sftp
"""


@dataclass(frozen=True)
class SshServer:
    port: int
    folder: Path
    home: Path  # of the one who logs in: HOME, for asyncssh

    def url(self, path: Path | str) -> str:
        return f"ssh://127.0.0.1:{self.port}{path}"


def make_key(path: Path) -> Path:
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path]
    subprocess.run(command, check=True)
    return path


@contextlib.contextmanager
def ssh_server(folder: Path) -> Iterator[SshServer]:
    """A server that accepts the key in the `home` beside its settings, and is known there."""
    program = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    if not program:
        pytest.skip("no sshd here: Debian's package openssh-server")
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where root's sshd locks its children in
    port = free_port()
    home = folder / "home"
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    public = make_key(home / ".ssh/id_ed25519").with_suffix(".pub")
    shutil.copyfile(public, folder / "authorized_keys")
    kind, key = make_key(folder / "host_key").with_suffix(".pub").read_text().split()[:2]
    (home / ".ssh/known_hosts").write_text(f"[127.0.0.1]:{port} {kind} {key}\n")
    settings = folder / "sshd_config"
    settings.write_text(SETTINGS.format(address=f"127.0.0.1:{port}", folder=folder))
    process = subprocess.Popen([program, "-D", "-f", settings, "-E", folder / "log"])
    try:
        wait_until(lambda: listens(port) or process.poll() is not None, 20)
        assert process.poll() is None, (folder / "log").read_text()
        yield SshServer(port, folder, home)
    finally:
        process.terminate()
        process.wait()
