"""`cgan ui`: MLflow's server on the project's store."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import free_port, listens, log_steps, training, wait_until

from cgan.errors import CganError
from cgan.hosts import no_proxy_variables
from cgan.pipeline.runs.ui import serve_ui


@pytest.mark.slow
def test_the_ui_says_its_address_and_ends_with_all_it_started(root: Path) -> None:
    with training() as tracker:
        log_steps(tracker)
    port = free_port()
    command = [sys.executable, "-m", "cgan.cli", "ui", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        line = process.stdout.readline()
        assert listens(port)
        process.send_signal(signal.SIGTERM)
    assert line == f"MLflow: http://127.0.0.1:{port} (Ctrl-C ends it)\n"
    wait_until(lambda: not listens(port))


def test_only_a_store_is_served(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@host")
    with pytest.raises(CganError, match=r"is http://host, a server"):
        serve_ui(root, free_port())


def test_a_proxy_is_not_asked_for_this_machine() -> None:
    assert no_proxy_variables({"HTTP_PROXY": ""}) == {}, "the system's settings count"
    known = {"NO_PROXY": "a.example, .b", "no_proxy": ".b"}
    both = dict.fromkeys(known, ".b,a.example,127.0.0.1,localhost,::1")
    for name in ("HTTP_PROXY", "https_proxy", "all_proxy"):
        assert no_proxy_variables({name: "http://proxy:8", **known}) == both
