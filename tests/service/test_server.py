"""`cgan serve` as a process: its start, its end, its log, and too many connections."""

from __future__ import annotations

import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from served import a_model, command, eventually, running

from cgan.errors import CganError
from cgan.service import server
from cgan.service.served import Keeper
from cgan.service.server import listen


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    a_model(folder / "generator.safetensors")
    return folder


@pytest.mark.slow
def test_a_signal_lets_requests_in_flight_finish_and_the_log_has_a_line_for_each(
    folder: Path,
) -> None:
    with (
        command("--model", "generator.safetensors", folder=folder) as (process, log, client),
        ThreadPoolExecutor(4) as pool,
    ):
        client.get("/healthz")
        client.get("/%1b[31mred%0a")
        question = {"labels": [1] * 5000, "seed": 3}
        asked = [pool.submit(client.post, "/draw", json=question) for _ in range(4)]
        eventually(lambda: "cgan_in_flight 5.0" in client.get("/metrics").text)
        process.send_signal(signal.SIGTERM)
        assert [each.result().status_code for each in asked] == [200] * 4
        assert process.wait(30) == 0
    lines = [line for line in log.read_text().splitlines() if "HTTP/1.1" in line]
    assert len(lines) == 5 and "%1B%5B31mred%0A" in lines[0], "and none of a health check"
    assert "Traceback" not in log.read_text()


def test_an_address_that_cannot_be_used_or_that_others_reach_is_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CganError, match=rf"--port {port}: .*Address already in use"):
            listen("127.0.0.1", port, allow_remote=False)
    for host in ("no such host", "a" * 500):
        with pytest.raises(CganError, match="--host"):
            listen(host, 0, allow_remote=False)
    for host in ("0.0.0.0", *(["::"] if socket.has_dualstack_ipv6() else [])):
        with pytest.raises(CganError, match="--allow-remote"):
            listen(host, 0, allow_remote=False)
        with listen(
            host, 0, allow_remote=True
        ) as listening:  # no answer waits for its first half's
            assert listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert f"bound to {host}" in caplog.text


def test_more_connections_than_allowed_are_refused_until_others_close(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(server.LIMITS, "limit_concurrency", 40)
    with running(Keeper(str(folder / "generator.safetensors"))) as client:
        address = client.base_url.host, client.base_url.port
        held = [socket.create_connection(address, timeout=30) for _ in range(40)]
        eventually(lambda: client.get("/healthz").status_code == 503)
        for connection in held:
            connection.close()
        eventually(lambda: client.get("/healthz").status_code == 200)
