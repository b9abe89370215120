"""An S3 server of one process family: OpenStack Swift with its S3 API, one replica in one folder.

Others have it in production; it checks signatures, keys and buckets as AWS does. It comes from the package
index; as it brings eventlet, it lives in an environment of its own, which `make test-all` makes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

ACCESS_KEY, SECRET_KEY = "team:cgan", "correct-horse-battery"
PIPELINE = (
    "catch_errors gatekeeper healthcheck listing_formats bulk s3api tempauth slo dlo proxy-server"
)
SERVER = """[DEFAULT]
swift_dir = {home}
devices = {home}/devices
mount_check = false
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = {user}
log_level = WARNING
log_address = {home}/no-syslog
"""


def object_store_folder() -> Path:
    """The environment with Swift in it; skips where there is none."""
    folder = ROOT / ".cgan/object-store"
    if not (folder / "bin/swift-proxy-server").is_file():
        pytest.skip("no OpenStack Swift in .cgan/object-store: `make test-all` puts it there")
    return folder


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def write_settings(home: Path, ports: dict[str, int]) -> None:
    import getpass

    (home / "devices/one").mkdir(parents=True)
    (home / "swift.conf").write_text(
        "[swift-hash]\nswift_hash_path_suffix = of-a-test\nswift_hash_path_prefix = of-a-test\n"
    )
    for kind, port in ports.items():
        text = SERVER.format(home=home, port=port, user=getpass.getuser())
        if kind == "proxy":
            filters = PIPELINE.removesuffix(" proxy-server").split()
            text += f"\n[pipeline:main]\npipeline = {PIPELINE}\n"
            text += "\n[app:proxy-server]\nuse = egg:swift#proxy\naccount_autocreate = true\n"
            for name in filters:
                text += f"\n[filter:{name}]\nuse = egg:swift#{name}\n"
                if name == "tempauth":
                    user, key = ACCESS_KEY.replace(":", "_"), SECRET_KEY
                    text += f"user_{user} = {key} .admin\nuser_team_guest = guest\n"
                if name == "s3api":
                    text += "s3_acl = false\nlocation = us-east-1\nauth_pipeline_check = false\n"
        else:
            text += f"\n[pipeline:main]\npipeline = {kind}-server\n"
            text += f"\n[app:{kind}-server]\nuse = egg:swift#{kind}\n"
        (home / f"{kind}-server.conf").write_text(text)


@contextlib.contextmanager
def object_store(home: Path) -> Iterator[str]:
    """A running server. Yields its address; credentials are ACCESS_KEY and SECRET_KEY."""
    programs = object_store_folder() / "bin"
    kinds = ("account", "container", "object", "proxy")
    ports = dict(zip(kinds, free_ports(4), strict=True))
    write_settings(home, ports)
    ring = [programs / "swift-ring-builder"]
    for kind in kinds[:3]:
        builder = home / f"{kind}.builder"
        place = f"r1z1-127.0.0.1:{ports[kind]}/one"
        for words in (["create", "4", "1", "0"], ["add", place, "1"], ["rebalance"]):
            subprocess.run([*ring, builder, *words], check=True, capture_output=True)
    log = (home / "log").open("w")
    servers = [
        subprocess.Popen(
            [programs / f"swift-{kind}-server", home / f"{kind}-server.conf"],
            stdout=log,
            stderr=log,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
            start_new_session=True,
        )
        for kind in kinds
    ]
    try:
        deadline = time.monotonic() + 30
        for port in ports.values():
            while True:
                with socket.socket() as client:
                    if client.connect_ex(("127.0.0.1", port)) == 0:
                        break
                assert time.monotonic() < deadline, (home / "log").read_text()[-3000:]
                time.sleep(0.1)
        yield f"http://127.0.0.1:{ports['proxy']}"
    finally:
        for server in servers:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.wait()
        log.close()


def make_bucket(url: str, name: str) -> None:
    from botocore.session import get_session

    client = get_session().create_client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
    )
    try:
        client.create_bucket(Bucket=name)
    finally:
        client.close()
