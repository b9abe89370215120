"""`python -m flows.sweep` and where its trainings run: processes, checkouts, a scripted pool."""

from __future__ import annotations

import http.server
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
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
from flows.sweep.here import train_here
from flows.sweep.jobs import Job, JobError, Pool

JOB = Job("sweep-trial-0", {"train.lr": 0.002}, {"cgan.sweep.job": "sweep-trial-0"}, "evaluate")
LOG = Path(f".cgan/sweeps/{JOB.name}.log")


class Here:
    """This machine, with stages of a moment."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.commit = subprocess.check_output(["git", "rev-parse", "HEAD"], text=True).strip()
        LOG.parent.mkdir(parents=True)

    def train(self, job: Job = JOB, stop_at: str = "never") -> None:
        def watch() -> None:
            if stop_at in LOG.read_text():
                raise TrialPruned

        train_here(self.base, self.commit, job, watch)

    def driver(self) -> subprocess.Popen[bytes]:
        """A process that drives the job."""
        program = (
            "from pathlib import Path\n"
            "from flows.sweep.here import train_here\n"
            "from flows.sweep.jobs import Job\n"
            f"train_here(Path({str(self.base)!r}), {self.commit!r}, {JOB!r}, lambda: None)\n"
        )
        return subprocess.Popen([sys.executable, "-c", program], env=dict(os.environ))

    def trainings(self) -> list[psutil.Process]:
        """That live."""
        return [
            process
            for process in psutil.process_iter(["cwd", "cmdline", "status"])
            if str(process.info["cwd"] or "").startswith(str(self.base))
            and "toy.py" in (process.info["cmdline"] or [])
            and process.info["status"] != psutil.STATUS_ZOMBIE
        ]


@pytest.fixture
def here(repo: Path, monkeypatch: pytest.MonkeyPatch) -> Here:  # noqa: F811
    shutil.rmtree(repo / "cgan")  # the toy's; checkouts have it from git
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr("flows.sweep.jobs.POLL_S", 0.05)
    return Here(repo)


def test_a_job_runs_in_a_checkout_of_its_own_with_its_params(here: Here) -> None:
    here.train()
    assert re.findall(r"^(\w+): process", LOG.read_text(), re.M) == [
        "download",
        "train",
        "evaluate",
    ]
    assert "lr: 0.002 " not in Path("params.yaml").read_text()
    assert not Path("reports").exists() and not list(Path(".cgan/checkouts").glob("*/"))
    here.train(Job("sweep-trial-1", JOB.overrides, {"cgan.sweep.job": "1"}, "evaluate"))
    said = LOG.with_name("sweep-trial-1.log").read_text()
    assert "train: ran" in said, "a result of the cache is another run's"
    assert "evaluate: restored from cache" in said


def test_a_stage_that_fails_is_told_in_its_own_words(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIL", "train")
    with pytest.raises(JobError, match="row 17, column pixel12"):
        here.train()


def test_a_job_that_is_stopped_has_ended_and_its_training_was_asked_first(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLOW", "train")
    with pytest.raises(TrialPruned):
        here.train(stop_at="train: step 1")
    assert "train: saved a checkpoint" in LOG.read_text() and not here.trainings()


@pytest.mark.slow
def test_a_job_ends_with_a_driver_that_is_killed_and_the_next_waits_for_it(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLOW", "train")
    driver = here.driver()
    deadline = time.monotonic() + 100
    while not LOG.exists() or "train: step 1" not in LOG.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    monkeypatch.delenv("SLOW")
    here.train()
    stages = re.findall(r"^(\w+): process", LOG.read_text(), re.M)
    assert stages == ["download", "train", "train", "evaluate"] and not here.trainings()


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


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((200, "<!doctype html>"), "cannot be used (JSONDecodeError: "),
        ((401, "{}"), "cannot be used (401 Unauthorized)"),
    ],
)
def test_a_server_that_is_not_prefect_s_or_lets_nobody_in_is_one_message(
    api: dict[str, Any], answer: tuple[int, str], words: str
) -> None:
    api["POST work_pools"] = api["GET admin"] = answer
    for ask in (lambda: Pool("train"), pipeline._find_server):
        with pytest.raises(CganError) as told:
            ask()
        assert words in str(told.value) and "unset PREFECT_API_URL" in str(told.value)
        assert "secret" not in str(told.value)
    with pytest.raises(CganError, match=f"with {answer[0]}: ") as told:
        ask_prefect(str(PREFECT_API_URL.value()), "GET", "/admin/version")
    assert "secret" not in str(told.value)


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


def test_a_run_that_is_not_worth_going_on_is_cancelled(api: dict[str, Any]) -> None:
    api |= {"POST deployments": flow_run("RUNNING"), "POST flow_runs": SET}
    api["GET flow_runs"] = flow_run("RUNNING")

    def watch() -> None:
        raise TrialPruned

    with pytest.raises(TrialPruned):
        Pool("train").train(JOB, watch)
    assert '"CANCELLING"' in Api.heard[-1]


def test_what_cannot_be_is_refused_in_words_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], api: dict[str, Any]
) -> None:
    monkeypatch.setattr(command.signal, "signal", lambda *_: None)
    monkeypatch.setattr(command, "sweep", lambda *_: Pool("train").train(JOB, lambda: None))
    monkeypatch.setattr(command, "top_folder", lambda: ROOT)
    for options, words in (
        (["--trials", "0"], "Error: --trials: expected 1 or more, got 0."),
        (["--parallel", "0"], "Error: --parallel: expected 1 or more, got 0."),
        (["--name", "../outside"], "--name '../outside': expected letters, digits"),
        (["--name", ""], "--name '': expected letters, digits"),
        ([], "'tags' was unexpected"),
    ):
        api["POST deployments"] = 409, {"detail": "Additional properties: 'tags' was unexpected"}
        assert command.main(options) == 1
        said = capsys.readouterr().err
        assert words in said and "secret" not in said


def test_a_second_sweep_in_a_clone_is_refused(tmp_path: Path) -> None:
    with (
        command._alone(tmp_path),
        pytest.raises(CganError, match="runs in this folder already"),
        command._alone(tmp_path),
    ):
        pass


def test_without_optuna_the_extra_is_named() -> None:
    program = (
        "import importlib.util, runpy\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'optuna' else find(name, *rest)\n"
        "runpy.run_module('flows.sweep', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.startswith("Error: a sweep needs the extra `sweep`")
