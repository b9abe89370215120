"""`cgan serve` as a process: its start, its end, and clients that behave badly."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from conftest import run_python
from served import a_model, command, eventually, running_file

from cgan.errors import CganError
from cgan.service import app as service_app
from cgan.service import server
from cgan.service.server import listen


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    a_model(folder / "generator.safetensors")
    return folder


def connected(client: httpx.Client) -> socket.socket:
    url = client.base_url
    return socket.create_connection((url.host, url.port), timeout=30)


def all_of(connection: socket.socket) -> bytes:
    """Until the other side closes."""
    found = b""
    while piece := connection.recv(65536):
        found += piece
    return found


# ---------------------------------------------------------------------------------- start and end


@pytest.mark.parametrize(
    "sign", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_signal_lets_requests_in_flight_finish_and_ends_with_0(
    sign: signal.Signals, folder: Path
) -> None:
    with command("--model", "generator.safetensors", folder=folder) as (service, client):
        answers: list[httpx.Response] = []

        def ask() -> None:
            question = {"labels": [1] * 2000, "seed": 3}
            answers.append(httpx.post(f"{client.base_url}/draw", json=question, timeout=60))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()

        def all_were_heard_and_one_was_begun() -> bool:
            metrics = client.get("/metrics").text
            (heard,) = re.findall(r"^cgan_in_flight (\S+)", metrics, re.MULTILINE)  # with this one
            begun = "cgan_drawings_total 0.0" not in metrics
            return begun and float(heard) - 1 + len(answers) >= 4

        eventually(all_were_heard_and_one_was_begun)
        client.close()
        service.process.send_signal(sign)
        for thread in threads:
            thread.join(60)
        assert [answer.status_code for answer in answers] == [200] * 4
        assert service.process.wait(30) == 0
        assert "Traceback" not in "".join(service.said)


def test_a_file_is_served_where_mlflow_is_not_installed(folder: Path) -> None:
    code = (
        "import sys; sys.modules['mlflow'] = sys.modules['prefect'] = sys.modules['dvc'] = None; "
        "from cgan.service.served import Keeper; from cgan.service.app import Service, make_app; "
        "service = Service(Keeper()); make_app(service); service.close(); "
        "print(service.keeper.current.source, *sorted(sys.modules))"
    )
    source, *modules = run_python(code, folder).split()
    assert source == "digits"
    assert not {"pandas", "sqlalchemy", "ruamel.yaml", "yaml", "psutil"} & set(modules)


def test_a_port_that_is_taken_is_told_in_words() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(CganError, match=rf"--port {port}: another program uses it"):
            listen("127.0.0.1", port, allow_remote=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_others_can_reach_it_only_if_that_is_asked_for(
    host: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(CganError, match="others than this machine could reach it"):
        listen(host, 0, allow_remote=False)
    try:
        listen(host, 0, allow_remote=True).close()
    except CganError:
        pytest.skip("no IPv6 here")
    assert "whoever reaches this machine can have it draw" in caplog.text


def test_a_host_that_is_none_is_told_in_words() -> None:
    for host in ("no such host", "a" * 500):
        with pytest.raises(CganError, match=r"--host .*Give one, such as 127\.0\.0\.1"):
            listen(host, 0, allow_remote=False)


# ------------------------------------------------------------------------- clients that behave badly


@pytest.fixture
def client(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 40)
    with running_file(folder / "generator.safetensors") as found:
        yield found


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"GET / HTTQ/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"POST /draw HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
        b"GET /" + b"a" * 70_000,
        b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 20_000,
    ],
)
def test_what_is_no_http_or_has_no_end_is_refused(sent: bytes, client: httpx.Client) -> None:
    with connected(client) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(sent)
        assert all_of(connection).startswith(b"HTTP/1.1 400 ")
    assert client.get("/healthz").status_code == 200


def test_too_many_connections_are_refused_until_some_have_gone(client: httpx.Client) -> None:
    held = [connected(client) for _ in range(40)]
    try:
        assert client.get("/healthz").status_code == 503
    finally:
        for connection in held:
            connection.close()
    eventually(lambda: client.get("/healthz").status_code == 200)


def test_answers_that_are_not_read_count_against_the_limit(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_app, "MAX_BYTES", 100_000_000)  # one of these takes 78 MB
    question = json.dumps({"labels": [1] * 10_000}).encode()
    with connected(client) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(
            b"POST /draw HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            b"accept: text/csv\r\ncontent-length: %d\r\n\r\n%s" % (len(question), question)
        )
        assert connection.recv(12) == b"HTTP/1.1 200"
        headers = {"Content-Type": "application/json", "Accept": "text/csv"}
        assert client.post("/draw", content=question, headers=headers).status_code == 429
        assert client.post("/draw", json={"text": "1"}).status_code == 200
    eventually(lambda: client.post("/draw", content=question, headers=headers).status_code == 200)


@pytest.mark.parametrize(
    "body",
    [
        b'content-length: 20\r\n\r\n{"text"',
        b"transfer-encoding: chunked\r\n\r\n5\r\n{    \r\nzz\r\n",
    ],
)
def test_a_client_that_goes_away_while_it_sends_is_a_line_in_the_log_and_no_failure(
    body: bytes, client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "cgan.service"):
        with connected(client) as connection:
            connection.sendall(
                b"POST /draw HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
                + body
            )
            time.sleep(0.2)
        counted = 'cgan_requests_total{method="POST",route="/draw",status="400"} 1.0'
        eventually(lambda: counted in client.get("/metrics").text)
    lines = [each.getMessage() for each in caplog.records if each.name.endswith("service.guard")]
    [line] = lines
    assert "POST /draw 400" in line
    assert "Traceback" not in caplog.text


def test_the_log_has_a_short_line_a_request_that_commands_no_terminal(
    client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "cgan.service"):
        client.get("/draw?text=2024")
        client.get("/%1b[31mred%0a" + "x" * 500)
        client.get("/healthz")
        client.get("/metrics")
    lines = [
        record.getMessage() for record in caplog.records if record.name == "cgan.service.guard"
    ]
    assert len(lines) == 2
    assert lines[0].startswith("127.0.0.1 GET /draw 200 4 drawn ")
    assert "\\x1b[31mred\\nxxx" in lines[1]
    assert all(len(line) < 160 and line.isprintable() for line in lines)
