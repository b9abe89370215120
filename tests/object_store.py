"""An S3 server of one process family: OpenStack Swift with its S3 API, one replica in one folder.

Others have it in production; it checks signatures, keys and buckets as AWS does. It comes from the package
index; as it brings eventlet, it lives in an environment of its own, which `make test-all` makes.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import signal
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from conftest import ROOT, free_port, listens, wait_until

ACCESS_KEY, SECRET_KEY = "team:cgan", "correct-horse-battery"
KINDS = ("account", "container", "object", "proxy")
FILTERS = "catch_errors gatekeeper healthcheck listing_formats bulk s3api tempauth slo dlo"
SETTINGS = """[DEFAULT]
swift_dir = {home}
devices = {home}/devices
mount_check = false
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = {user}
log_level = WARNING
log_address = {home}/no-syslog
[pipeline:main]
pipeline = {pipeline}
[app:{kind}-server]
use = egg:swift#{kind}
"""
PROXY = {
    "tempauth": f"user_team_cgan = {SECRET_KEY} .admin\nuser_team_guest = guest\n",
    "s3api": "s3_acl = false\nlocation = us-east-1\nauth_pipeline_check = false\n",
}


def write_settings(home: Path, ports: dict[str, int]) -> None:
    (home / "devices/one").mkdir(parents=True)
    (home / "swift.conf").write_text(
        "[swift-hash]\nswift_hash_path_suffix = of-a-test\nswift_hash_path_prefix = of-a-test\n"
    )
    for kind, port in ports.items():
        filters = FILTERS.split() if kind == "proxy" else []
        pipeline = " ".join([*filters, f"{kind}-server"])
        facts = {"home": home, "port": port, "kind": kind, "pipeline": pipeline}
        text = SETTINGS.format(user=getpass.getuser(), **facts)
        if kind == "proxy":
            text += "account_autocreate = true\n"
        for name in filters:
            text += f"[filter:{name}]\nuse = egg:swift#{name}\n{PROXY.get(name, '')}"
        (home / f"{kind}-server.conf").write_text(text)


@contextlib.contextmanager
def object_store(home: Path) -> Iterator[str]:
    """A running server. Yields its address; credentials are ACCESS_KEY and SECRET_KEY."""
    programs = ROOT / ".cgan/object-store/bin"
    if not (programs / "swift-proxy-server").is_file():
        pytest.skip("no OpenStack Swift in .cgan/object-store: `make test-all` puts it there")
    ports = {kind: free_port() for kind in KINDS}
    write_settings(home, ports)
    ring = [programs / "swift-ring-builder"]
    for kind in KINDS[:3]:
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
        for kind in KINDS
    ]
    try:
        for port in ports.values():
            wait_until(partial(listens, port), 30)
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
