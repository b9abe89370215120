"""`make up`, `make deploy`, `make down`: processes and ports; once with real servers."""

from __future__ import annotations

import functools
import importlib
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import ROOT, free_port, wait_until
from toy_project import CLI, git

from cgan.errors import CganError
from cgan.processes import STATE, running, supervisor
from cgan.reports.sites import services as services_of
from flows import production as services
from flows import worker
from flows.servers import AT_HOME, Production, Program


@pytest.fixture
def project(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with toy stages and a toy gate, but the real flows; the working directory."""
    folder = tmp_path / "project"
    shutil.copytree(template, folder)
    for package in ("cgan", "flows"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, folder / package, ignore=ignored, dirs_exist_ok=True)
    (folder / "cgan/cli.py").write_text(CLI)
    for name in ("prefect.yaml", ".gitignore", ".dvcignore"):
        shutil.copy(ROOT / name, folder)
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "production")
    monkeypatch.chdir(folder)
    names = ("MLFLOW_TRACKING_URI", "MLFLOW_BACKEND_STORE_URI", "PREFECT_API_URL", "DVC_ROOT")
    for name in (*names, "PREFECT_SERVER_DATABASE_CONNECTION_URL"):
        monkeypatch.delenv(name, raising=False)
    return folder


def runs_of(production: Production, *states: str) -> list[dict[str, Any]]:
    question = {"flow_runs": {"state": {"name": {"any_": list(states)}}}}
    return list(production.api("POST", "/flow_runs/filter", question))


# Processes


UI = """import runpy, sys
sys.argv[1:] = ["--bind", "127.0.0.1", sys.argv[-1]]
runpy.run_module("http.server", run_name="__main__")
"""


def test_what_dies_is_started_again_and_a_clone_that_is_moved_or_copied_knows_its_own(
    project: Path, tmp_path: Path
) -> None:
    """In a folder whose path no socket could have."""
    kept = Production(project.rename(tmp_path / ("50% " + 60 * "long")))
    (kept.root / "cgan/cli.py").write_text(UI)
    server = Program.server_at("127.0.0.1", free_port(), "")
    with kept.one_at_a_time():
        kept.supervise({"mlflow": server}, dict(os.environ))
        kept.start("mlflow", server.site)
    first = running(kept.root)["mlflow"]
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: running(kept.root).get("mlflow", first) != first)
    kept.start("mlflow", kept.url("mlflow"))
    found = running(kept.root)["mlflow"]
    assert stat.S_IMODE(kept.home.stat().st_mode) == 0o700  # flow parameters, and logs
    assert services_of(kept.root) == {"mlflow": kept.url("mlflow")}, "by cgan status"

    copy = Production(kept.root.with_name("copy"))
    subprocess.run(["cp", "-a", kept.root, copy.root], check=True)
    assert services.down(copy.root) == ["Nothing was running."]
    moved = Production(kept.root.rename(kept.root.with_name("moved")))
    for other in (replace(server, options="x"), replace(server, works_on="postgresql://db/runs")):
        with pytest.raises(CganError, match=r"other options.* make down"):
            moved.supervise({"mlflow": other}, {})
    assert services.down(moved.root) == ["Stopped: mlflow."]
    assert not psutil.pid_exists(found)
    assert services.down(moved.root) == ["Nothing was running."]


def test_a_server_that_ends_at_once_is_told_with_its_last_words(project: Path) -> None:
    production = Production(project)
    with production.one_at_a_time():
        production.supervise({"worker": Program("")}, dict(os.environ))
        try:
            with pytest.raises(CganError, match=r"worker did not start(.|\n)*IndexError"):
                production.start("worker")
            with supervisor(project) as keeper:
                assert keeper.getProcessInfo("worker")["statename"] == "STOPPED", "can be repeated"
        finally:
            production.stop()


def test_runs_that_were_cut_off_are_taken_up_once_and_others_left_alone(project: Path) -> None:
    mine, others = "cgan", "there"
    runs = {
        "running": ("RUNNING", mine),
        "crashed": ("CRASHED", mine),
        "twice": ("RUNNING", mine),
        "completed": ("RUNNING", mine),  # when its process had ended
        "theirs": ("RUNNING", others),
        "taken": ("RUNNING", mine),  # a sweep schedules it again meanwhile, and they take it
        "unknown": ("RUNNING", None),
    }
    found = {
        name: {
            "id": name,
            "state_type": state,
            "labels": by and {worker.WORKER: by},
            "expected_start_time": "2026-11-25T02:00:00Z",
        }
        for name, (state, by) in runs.items()
    }
    later = {"taken": {"labels": {worker.WORKER: others}}, "completed": {"state_type": "COMPLETED"}}
    nightly = [  # the newest first
        {"id": name, "state_type": state, "labels": {worker.WORKER: mine}}
        for name, state in {"wed": "COMPLETED", "tue": "CRASHED", "mon": "CRASHED"}.items()
    ]
    names = ("first", "second", "by a person", "last")
    late = [{"id": name, "auto_scheduled": name != "by a person"} for name in names]
    changed: dict[str, list[str]] = {}

    def api(method: str, path: str, content: Any = None) -> Any:
        run = path.split("/")[2]
        if path.endswith("/set_state"):
            changed.setdefault(run, []).append(content["state"]["name"])
        if path == "/deployments/filter":
            return [{"id": "train", "schedules": []}, {"id": "nightly", "schedules": ["2:00"]}]
        if run.startswith("?"):
            return [{"message": worker.AGAIN if run.endswith("=twice") else None}]
        if method == "GET":
            return found[run] | later.get(run, {})
        of_nightly = content.get("deployments") == {"id": {"any_": ["nightly"]}}
        if "name" in content.get("flow_runs", {}).get("state", ()):
            return late if of_nightly else []
        return (nightly if of_nightly else list(found.values()))[: content.get("limit")]

    worker.take_up(api, "cgan", project)
    assert changed == {
        "running": ["Crashed", "AwaitingRetry"],
        "crashed": ["AwaitingRetry"],
        "twice": ["Crashed"],
        "first": ["Cancelled"],
        "second": ["Cancelled"],
    }


@pytest.mark.parametrize("name", ["prefect", "mlflow"])
def test_a_port_of_somebody_else_s_is_refused_with_the_way_out(
    project: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ports = {"prefect": free_port(), "mlflow": free_port()}
    with socket.create_server(("127.0.0.1", ports[name])):
        arguments = [f"--{server}-port={port}" for server, port in ports.items()]
        assert services.main(["up", *arguments]) == 1
        told = capsys.readouterr().err
        assert re.search(rf"port {ports[name]} cannot be used .* {name.upper()}_PORT=", told)
    assert services.down(project) == ["Nothing was running."]
    assert not (Production(project).home / STATE).exists(), "the way out is open"


def test_deploy_without_servers_says_how_to_start_them_and_what_is_not_meant_starts_nothing(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for arguments, advice in (
        (["deploy"], "make up.*prefect deploy --all"),
        (["up", "--host", "0.0.0.0"], "ALLOW_REMOTE=yes"),
    ):
        assert services.main(arguments) == 1
        assert re.search(advice, capsys.readouterr().err)
    assert services_of(project) == {}
    monkeypatch.chdir(project.parent)
    assert services.main(["up"]) == 1
    assert "top folder" in capsys.readouterr().err


def test_servers_get_our_settings_whatever_the_shell_has(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "https://elsewhere/api")
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", "postgresql://me:pw@db/runs")
    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", "me:secret")
    environment = Production(project).environment("http://10.0.0.1:4321/api")
    assert "MLFLOW_BACKEND_STORE_URI" not in environment
    assert environment["PREFECT_API_URL"] == "http://10.0.0.1:4321/api"
    assert environment["PREFECT_API_AUTH_STRING"] == "me:secret", "who asks has to say it too"
    assert environment["PREFECT_HOME"].startswith(str(project))
    assert environment.items() >= AT_HOME.items()
    importlib.import_module(services.SERVER["PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"])


def test_make_keeps_everything_at_home_as_the_servers_do() -> None:
    text = (ROOT / "Makefile").read_text()
    exported = dict(re.findall(r"^export ([A-Z0-9_]+) = (\w+)$", text, re.MULTILINE))
    assert exported == AT_HOME


def test_make_makes_the_environment_again_in_a_clone_that_was_moved(tmp_path: Path) -> None:
    # Not with what a make that runs these tests was told: another VENV.
    own = {key: os.environ[key] for key in ("HOME", "PATH") if key in os.environ}

    def planned(clone: Path) -> str:
        return subprocess.check_output(["make", "--dry-run", "env"], cwd=clone, text=True, env=own)

    clone = tmp_path / "a b" / "clone"
    clone.mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, clone)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", ".venv"], cwd=clone, check=True)
    (clone / ".venv/.ready").touch()
    assert "-m venv" not in planned(clone)
    assert "-m venv --clear .venv" in planned(clone.rename(tmp_path / "a b" / "moved"))


# All of it


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_f67_f69_f70_a_day_in_production(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers, schedule, a killed worker, an outage, the end; real but for the stages."""
    production = Production(project)
    monkeypatch.setenv("SLOW", "train")  # the worker passes it on
    monkeypatch.setenv("SECONDS", "12")
    ports = {"prefect": free_port(), "mlflow": 0}
    # The toy's `cgan` has no `ui`: a tracking server elsewhere is not ours to start.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")

    runs = functools.partial(runs_of, production)

    def ids(*states: str) -> list[str]:
        return [run["id"] for run in runs(*states)]

    def every(seconds: float, seed: int = 1) -> None:
        number = production.deployments()["nightly"]["id"]
        schedule = {"schedule": {"interval": seconds}, "active": seconds < 1000}
        parameters = {"refresh": True, "overrides": {"train.seed": seed}}
        content = {"schedules": [schedule], "parameters": parameters}
        production.api("PATCH", f"/deployments/{number}", content)

    try:
        services.up(project, ports)
        first = running(project)
        assert first.keys() == {"prefect", "worker"}
        services.up(project, ports)
        assert first == running(project), "up again: the same"

        told = services.deploy(project, {"nightly": "30 3 * * *"})
        assert "nightly: 30 3 * * * UTC" in told
        assert production.api("GET", "/v2/concurrency_limits/gate")["limit"] == 1
        commit = git(project, "rev-parse", "--short", "HEAD")
        for deployment in production.deployments().values():
            assert (deployment["version"], deployment["tags"]) == (commit, ["cgan"])

        # The schedule fires by itself. While the run is on, the next is cancelled, not queued.
        every(8)
        run = wait_until(lambda: runs("Running"))[0]
        assert wait_until(lambda: runs("Cancelled"))
        assert len(runs("Running")) == 1
        every(10_000)
        wait_until(lambda: run["id"] in ids("Promoted"))
        assert runs("Promoted")[0]["name"].startswith("nightly ")

        # A worker killed in mid-run: the run ends, its stage too, and the next worker takes it up.
        every(8, seed=2)
        log = production.home / "worker.log"
        wait_until(lambda: log.read_text().count("train: step 1\n") == 2)
        (run,) = runs("Running")
        every(10_000, seed=2)
        worker = running(project)["worker"]
        (engine,) = psutil.Process(worker).children()
        family = [engine, *engine.children(recursive=True)]
        os.kill(worker, signal.SIGKILL)
        assert psutil.wait_procs(family, timeout=60)[1] == []
        wait_until(lambda: run["id"] in ids("Promoted"))
        assert production.api("GET", f"/flow_runs/{run['id']}")["run_count"] == 2
        assert runs("Crashed") == []

        # An outage of the worker: of the slots that went by, one is run.
        before = len(ids("Promoted"))
        with supervisor(project) as keeper:
            assert keeper.stopProcess("worker")
        every(4)
        cancelled = len(ids("Cancelled"))
        late = len(wait_until(lambda: len(runs("Late")) >= 4 and runs("Late")))
        every(10_000)
        services.up(project, ports)
        wait_until(lambda: not runs("Late", "Pending", "Submitting", "Running"))
        assert len(ids("Promoted")) == before + 1
        assert len(ids("Cancelled")) - cancelled >= late - 1
    finally:
        services.down(project)
    assert running(project) == {}
    assert not [p for p in psutil.process_iter(["environ"]) if str(project) in str(p.info)]
