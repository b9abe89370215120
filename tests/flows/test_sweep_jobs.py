"""`python -m flows.sweep` and where its trainings run: processes, checkouts, a pool without workers."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import psutil
import pytest
from conftest import ROOT, on_a_thread
from optuna import TrialPruned
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.settings import PREFECT_API_URL, temporary_settings
from test_pipeline import prefect, pytestmark  # noqa: F401
from toy_project import git

from cgan.errors import CganError
from flows import pipeline
from flows.sweep import __main__ as command
from flows.sweep.jobs import Job, JobError, Pool, Watch, train_here

JOB = Job("sweep-trial-0", {"train.lr": 0.002}, {"cgan.sweep.job": "sweep-trial-0"})
LOG = Path(f".cgan/sweeps/{JOB.name}.log")
pytestmark = [*pytestmark, pytest.mark.slow]


@pytest.fixture
def here(repo: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Does a job on this machine, with stages of a moment; none may be left in the end."""
    shutil.rmtree(repo / "cgan")  # the toy's; checkouts have it from git
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    commit = git(repo, "rev-parse", "HEAD")
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


@pytest.fixture
def server(prefect: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:  # noqa: F811
    """A client of a real Prefect server that has a deployment `train`, made for each test."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "dvc.yaml", ".")
    with get_client(sync_client=True) as client:
        made = client.create_deployment(client.create_flow_from_name("cgan"), "train")
        yield client
        client.delete_deployment(made)


def scripted(client: Any, *ends: str) -> Callable[[], None]:
    """A watch that has the newest run end so, one after the other, as workers would."""
    left = list(ends)

    def watch() -> None:
        (run,) = client.read_flow_runs(limit=1, sort=FlowRunSort.EXPECTED_START_TIME_DESC)
        if run.state_type != StateType.CRASHED:
            end = State(type=StateType(left.pop(0)), message="as it was told")
            client.set_flow_run_state(run.id, end, force=True)

    return watch


def test_a_run_whose_worker_was_killed_is_scheduled_again_twice_and_its_own_error_is_told(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.sweep.jobs.POLL_S", 0.0)

    def do(name: str, watch: Watch) -> None:
        Pool("train").train(replace(JOB, name=name), watch)

    do("one", scripted(server, "CRASHED", "CRASHED", "RUNNING", "COMPLETED"))
    do("one", lambda: None)  # it is there, and not made again
    (run,) = server.read_flow_runs()
    assert run.parameters["stages"][-1] == "evaluate" and "page" not in run.parameters["stages"]
    for name, ends in {"two": ["CRASHED"] * 3, "three": ["RUNNING", "FAILED"]}.items():
        with pytest.raises(JobError, match="as it was told"):
            do(name, scripted(server, *ends))
    with pytest.raises(TrialPruned):
        do("four", Mock(side_effect=TrialPruned))
    states = {run.name: run.state_type for run in server.read_flow_runs()}
    assert states["four"] in (StateType.CANCELLING, StateType.CANCELLED)


def test_what_prefect_refuses_and_a_server_that_is_not_prefect_s_are_one_message(
    server: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command.signal, "signal", lambda *_: None)
    monkeypatch.setattr(command, "Sweep", lambda *_: Pool("train").train(JOB, lambda: None))
    monkeypatch.setattr(command, "top_folder", lambda: ROOT)
    old = server.read_deployment_by_name("cgan/train")
    schema = {"type": "object", "properties": {}, "additionalProperties": False}
    options = {"parameter_openapi_schema": schema, "enforce_parameter_schema": True}
    server.create_deployment(old.flow_id, "train", **options)
    assert command.main([]) == 1
    assert "tags" in capsys.readouterr().err
    with on_a_thread(HTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler)) as other:
        url = f"http://name:secret@127.0.0.1:{other.server_port}/api"
        with temporary_settings({PREFECT_API_URL: url}):
            for ask in (partial(Pool, "train"), pipeline._find_server):
                with pytest.raises(CganError, match=r"127\.0\.0\.1") as told:
                    ask()
                assert "secret" not in str(told.value)


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
