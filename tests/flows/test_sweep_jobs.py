"""`python -m flows.sweep` and where its trainings run: processes, checkouts, a scripted pool."""

from __future__ import annotations

import http.server
import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import psutil
import pytest
from conftest import ROOT
from optuna import TrialPruned
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_CLIENT_CSRF_SUPPORT_ENABLED,
    temporary_settings,
)
from toy_project import repo, template  # noqa: F401

from cgan.errors import CganError
from flows import pipeline
from flows.servers import ask_prefect
from flows.sweep import __main__ as command
from flows.sweep.jobs import Job, JobError, Pool, train_here

JOB = Job("sweep-trial-0", {"train.lr": 0.002}, {"cgan.sweep.job": "sweep-trial-0"})
LOG = Path(f".cgan/sweeps/{JOB.name}.log")


@pytest.fixture
def here(repo: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:  # noqa: F811
    """Does a job on this machine, with stages of a moment; none may be left in the end."""
    shutil.rmtree(repo / "cgan")  # the toy's; checkouts have it from git
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    commit = subprocess.check_output(["git", "rev-parse", "HEAD"], text=True).strip()
    LOG.parent.mkdir(parents=True)
    yield lambda job=JOB, watch=lambda: None: train_here(repo, commit, job, watch)
    for process in psutil.process_iter(["cwd", "cmdline"]):
        of_ours = str(process.info["cwd"]).startswith(str(repo))
        assert not (of_ours and "toy.py" in process.info["cmdline"]), process


def test_a_job_runs_in_a_checkout_of_its_own_with_its_params(here: Callable[..., None]) -> None:
    here()
    stages = re.findall(r"^(\w+): process", LOG.read_text(), re.M)
    assert stages == ["download", "train", "evaluate"]
    assert "lr: 0.002 " not in Path("params.yaml").read_text()
    assert not Path("reports").exists()
    here(Job("sweep-trial-1", JOB.overrides, {"cgan.sweep.job": "1"}))
    said = LOG.with_name("sweep-trial-1.log").read_text()
    assert "train: process" in said, "a result of the cache is another run's"
    assert "Stage 'evaluate' is cached" in said
    # What wrote into a checkout when it was to go is gone when the next job begins.
    assert not Path(".cgan/checkouts/sweep-trial-0").exists()


def test_a_job_that_fails_is_told_in_its_own_words_and_one_that_is_stopped_is_asked_first(
    here: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIL", "train")
    with pytest.raises(JobError, match="row 17, column pixel12"):
        here()
    monkeypatch.setenv("SLOW", "train")

    def watch() -> None:
        if "train: step 1" in LOG.read_text():
            raise TrialPruned

    with pytest.raises(TrialPruned):
        here(watch=watch)
    assert "train: saved a checkpoint" in LOG.read_text()


class Api(http.server.BaseHTTPRequestHandler):
    """Prefect's, as far as a pool asks: by method and first word of the path; of a list one by one."""

    answers: ClassVar[dict[str, Any]] = {}
    heard: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        asked = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        self.heard.append(f"{self.path} {asked}")
        key = f"{self.command} {self.path.split('/')[2]}"
        answer = self.answers.get(key, (404, {"detail": "not found"}))
        code, content = answer.pop(0) if isinstance(answer, list) else answer
        body = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815 - http.server's name

    def log_message(self, *_: Any) -> None: ...


NUMBER = "00000000-0000-0000-0000-000000000001"
SET = (201, {"status": "ACCEPT", "details": {"type": "accept_details"}, "state": None})


def flow_run(state: str) -> tuple[int, Any]:
    found = {"type": state, "name": state.capitalize(), "message": f"it is {state.lower()}"}
    return 200, {"id": NUMBER, "flow_id": NUMBER, "state": found, "state_type": state}


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    monkeypatch.setattr("flows.sweep.jobs.POLL_S", 0.0)
    deployment = {"id": NUMBER, "name": "train", "flow_id": NUMBER}
    found = {"GET deployments": (200, deployment), "POST work_pools": (200, [])}
    monkeypatch.setattr(Api, "answers", found)
    monkeypatch.setattr(Api, "heard", [])
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Api)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    url = f"http://name:secret@127.0.0.1:{server.server_port}/api"
    shutil.copy(ROOT / "dvc.yaml", ".")
    with temporary_settings({PREFECT_API_URL: url, PREFECT_CLIENT_CSRF_SUPPORT_ENABLED: False}):
        yield Api.answers
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_server_that_is_not_prefect_s_or_lets_nobody_in_is_one_message(
    api: dict[str, Any],
) -> None:
    for code, body in ((200, "<!doctype html>"), (401, "{}")):
        api["POST work_pools"] = api["GET admin"] = code, body
        asked = partial(ask_prefect, str(PREFECT_API_URL.value()), "GET", "/admin/version")
        for ask in (partial(Pool, "train"), pipeline._find_server, asked):
            with pytest.raises(CganError) as told:
                ask()
            assert "127.0.0.1" in str(told.value) and "secret" not in str(told.value)


def test_a_run_whose_worker_was_killed_is_scheduled_again_twice_and_its_own_error_is_told(
    api: dict[str, Any],
) -> None:
    api["POST deployments"] = flow_run("SCHEDULED")
    api["POST flow_runs"] = SET
    api["GET flow_runs"] = [*[flow_run("CRASHED")] * 2, flow_run("RUNNING"), flow_run("COMPLETED")]
    Pool("train").train(JOB, lambda: None)
    assert sum("set_state" in line for line in Api.heard) == 2
    created = next(line for line in Api.heard if "create_flow_run" in line)
    stages = json.loads(created.partition(" ")[2])["parameters"]["stages"]
    assert stages[-1] == "evaluate" and "page" not in stages
    for ends, words in (
        ([flow_run("CRASHED")] * 3, "it is crashed"),
        ([flow_run("FAILED")], "it is failed"),
        ([(404, {})], "its flow run was deleted"),
    ):
        api["GET flow_runs"] = ends
        with pytest.raises(JobError, match=words):
            Pool("train").train(JOB, lambda: None)

    def watch() -> None:
        raise TrialPruned

    api["POST deployments"] = flow_run("RUNNING")
    with pytest.raises(TrialPruned):
        Pool("train").train(JOB, watch)
    assert '"CANCELLING"' in Api.heard[-1]


def test_what_prefect_refuses_is_one_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], api: dict[str, Any]
) -> None:
    monkeypatch.setattr(command.signal, "signal", lambda *_: None)
    monkeypatch.setattr(command, "sweep", lambda *_: Pool("train").train(JOB, lambda: None))
    monkeypatch.setattr(command, "top_folder", lambda: ROOT)
    api["POST deployments"] = 409, {"detail": "Additional properties: 'tags' was unexpected"}
    assert command.main([]) == 1
    said = capsys.readouterr().err
    assert "'tags' was unexpected" in said and "secret" not in said


def test_without_optuna_the_extra_is_named() -> None:
    program = (
        "import importlib.util, runpy\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'optuna' else find(name, *rest)\n"
        "runpy.run_module('flows.sweep', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "extra `sweep`" in done.stderr
