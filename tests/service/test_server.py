"""`cgan serve` as a process: its start, its end, its log, and too many connections."""

from __future__ import annotations

import re
import signal
import socket
import threading
from pathlib import Path

import httpx
import pytest
from conftest import run_python
from served import a_model, command, eventually, running_file

from cgan.errors import CganError
from cgan.service import server
from cgan.service.server import listen


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    a_model(folder / "generator.safetensors")
    return folder


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
        "from cgan.service.served import Keeper; from cgan.service.app import make_app; "
        "keeper = Keeper(); make_app(keeper, None); "
        "print(keeper.current.source, *sorted(sys.modules))"
    )
    source, *modules = run_python(code, folder).split()
    assert source == "digits"
    assert not {"pandas", "sqlalchemy", "ruamel.yaml", "yaml", "psutil"} & set(modules)


def test_a_port_that_is_taken_is_told_in_words() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(CganError, match=rf"--port {port}: .*Address already in use"):
            listen("127.0.0.1", port, allow_remote=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_others_can_reach_it_only_if_that_is_asked_for(
    host: str, caplog: pytest.LogCaptureFixture
) -> None:
    if ":" in host and not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    with pytest.raises(CganError, match="others than this machine could reach it"):
        listen(host, 0, allow_remote=False)
    listen(host, 0, allow_remote=True).close()
    assert "whoever reaches this machine can have it draw" in caplog.text


def test_no_answer_waits_for_the_acknowledgement_of_its_first_half() -> None:
    with listen("127.0.0.1", 0, allow_remote=False) as listening:
        assert listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_host_that_is_none_is_told_in_words() -> None:
    for host in ("no such host", "a" * 500):
        with pytest.raises(CganError, match=r"--host .*Give others, such as 127\.0\.0\.1"):
            listen(host, 0, allow_remote=False)


def test_more_connections_than_allowed_are_refused_until_others_close(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(server.LIMITS, "limit_concurrency", 40)
    with running_file(folder / "generator.safetensors") as client:
        address = client.base_url.host, client.base_url.port
        held = [socket.create_connection(address, timeout=30) for _ in range(40)]
        try:
            eventually(lambda: client.get("/healthz").status_code == 503)
        finally:
            for connection in held:
                connection.close()
        eventually(lambda: client.get("/healthz").status_code == 200)


def test_the_log_has_a_line_a_request_that_commands_no_terminal(folder: Path) -> None:
    with command("--model", "generator.safetensors", folder=folder) as (service, client):
        client.get("/draw?text=2024")
        client.get("/healthz")
        client.get("/%1b[31mred%0a")
        eventually(lambda: any("red" in line for line in service.said))
        lines = [line for line in service.said if "HTTP/1.1" in line]
    assert len(lines) == 2
    assert '"GET /draw?text=2024 HTTP/1.1" 200' in lines[0]
    assert "%1B%5B31mred%0A" in lines[1]
