"""`make up`, `make deploy`, `make down`: processes and ports; once with real servers."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import ROOT
from toy_project import CLI, DVC_YAML, TOY

from cgan.errors import CganError
from cgan.reports.status_sources import find_process
from flows import production as services
from flows import worker
from flows.servers import AT_HOME, SERVERS_ONLY, Process, Production


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@t"]
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with toy stages and a toy gate, but the real flows; the working directory."""
    folder = tmp_path / "project"
    (folder / "data/inbox").mkdir(parents=True)
    (folder / "data/inbox/README.md").write_text("Put your CSV here.")
    (folder / "toy.py").write_text(TOY)
    (folder / "dvc.yaml").write_text(DVC_YAML)
    shutil.copytree(ROOT / "cgan", folder / "cgan", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "flows", folder / "flows", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "cgan/cli.py").write_text(CLI)
    for name in ("params.yaml", "prefect.yaml", ".gitignore", ".dvcignore"):
        shutil.copy(ROOT / name, folder)
    git(folder, "init", "--quiet", "--initial-branch", "main", ".")
    subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet"], cwd=folder, check=True)
    shutil.copy(ROOT / ".dvc/config", folder / ".dvc/config")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "toy")
    monkeypatch.chdir(folder)
    names = ("MLFLOW_TRACKING_URI", "MLFLOW_BACKEND_STORE_URI", "PREFECT_API_URL", "DVC_ROOT")
    for name in (*names, "PREFECT_SERVER_DATABASE_CONNECTION_URL"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


def known_as(production: Production, name: str, process: Process) -> None:
    production.home.mkdir(parents=True, exist_ok=True)
    (production.home / f"{name}.json").write_text(json.dumps(asdict(process)))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# Processes


def test_down_ends_what_up_started(project: Path, sleeper: subprocess.Popen[bytes]) -> None:
    production = Production(project)
    started = psutil.Process(sleeper.pid).create_time()
    known_as(production, "mlflow", Process(sleeper.pid, started, 5000))
    assert services.down(project) == ["Stopped: mlflow."]
    assert not psutil.pid_exists(sleeper.pid)
    assert services.down(project) == ["Nothing was running."]


def test_down_spares_a_process_that_only_has_the_number_of_ours(
    project: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    production = Production(project)
    started = psutil.Process(sleeper.pid).create_time()
    known_as(production, "mlflow", Process(sleeper.pid, started - 100, 5000))
    assert services.down(project) == ["Nothing was running."]
    assert sleeper.poll() is None


def test_what_runs_is_still_known_after_a_step_of_the_clock(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    production = Production(project)
    production.home.mkdir(parents=True)
    production.start("worker", ["http.server", "0"], dict(os.environ))
    boot = psutil.boot_time()
    monkeypatch.setattr("psutil._pslinux.boot_time", lambda: boot + 3600)
    found = find_process(project, "worker")
    assert found, "by cgan status"
    assert services.down(project) == ["Stopped: worker."]
    assert not psutil.pid_exists(found["pid"])


def test_logs_and_flow_parameters_are_for_nobody_else(project: Path) -> None:
    production = Production(project)
    with production.one_at_a_time():
        assert stat.S_IMODE(production.home.stat().st_mode) == 0o700


def test_what_a_killed_server_left_behind_is_ended_before_its_successor_starts(
    project: Path,
) -> None:
    production = Production(project)
    leader = subprocess.Popen(
        ["sh", "-c", "sleep 60 & echo $!; wait"], stdout=subprocess.PIPE, start_new_session=True
    )
    assert leader.stdout
    child = psutil.Process(int(leader.stdout.readline()))
    started = psutil.Process(leader.pid).create_time()
    known_as(production, "mlflow", Process(leader.pid, started, 5000))
    leader.kill()
    leader.wait()
    leader.stdout.close()
    assert child.is_running()
    assert not production.stop("mlflow")
    assert not child.is_running()


def test_a_worker_that_runs_already_is_not_said_to_be_the_one_that_is_asked_for(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "require", lambda root: None)
    monkeypatch.setattr(worker, "ask_prefect", lambda *_: [{"work_queue_name": "cpu"}])
    monkeypatch.setenv("PREFECT_API_URL", "http://name:secret@first:4200")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://first:5000")
    production = Production(project)
    me = worker.Worker(worker._name(production, ["cpu"]), ("cpu",), 2)
    process = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)", *worker._options(me)],
        env=worker._environment(production),
    )
    try:
        started = psutil.Process(process.pid).create_time()
        known_as(production, "worker", Process(process.pid, started, None))
        assert "takes    runs for cpu, 2 at once" in worker.join(project, ["cpu"], 2)
        with pytest.raises(CganError, match=r"with other labels .* --limit 2 .* make down"):
            worker.join(project, ["cpu"], 4)
        monkeypatch.setenv("PREFECT_API_URL", "http://second:4200")
        with pytest.raises(CganError, match="runs already, for http://first:4200") as told:
            worker.join(project, ["cpu"], 2)
        assert "secret" not in str(told.value)
    finally:
        process.kill()
        process.wait()


def test_a_run_that_another_machine_took_up_meanwhile_is_not_buried(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep schedules a killed run again at once; its first machine's worker comes back later."""
    changed = []
    me = worker.Worker("here-3f2a (cpu)", ("cpu",), 1)
    taken_by = {"here": "here-3f2a (cpu, cuda)", "taken": "there-12ab (cpu)", "unknown": None}
    runs = {
        name: {"id": name, "name": name, "labels": {worker.WORKER: by} if by else None}
        for name, by in taken_by.items()
    }
    online = ["there-12ab (cpu)"]

    def api(method: str, path: str, content: Any = None) -> Any:
        if path.endswith("/set_state"):
            changed.append(path.split("/")[2])
        if method == "GET":
            return {"state_type": "RUNNING"}
        return {
            "/work_pools/filter": [{"name": "cgan"}],
            "/work_pools/cgan/workers/filter": [{"name": n, "status": "ONLINE"} for n in online],
            "/flow_runs/filter": list(runs.values()),
        }.get(path, [])

    monkeypatch.setattr(worker, "api_of", lambda _: api)
    monkeypatch.setattr(worker, "_tell", lambda *_: None)
    for expected in (["here"], ["here", "unknown"]):
        changed.clear()
        worker.revive(Production(project), me, {"PREFECT_API_URL": "http://host/api"})
        assert changed == expected
        online.clear()


@pytest.mark.parametrize(
    ("at_work", "cancelled"),
    [(set(), ["first", "second"]), ({"nightly"}, ["first", "second", "last"])],
)
def test_of_the_slots_that_nobody_took_the_last_is_run(
    at_work: set[str], cancelled: list[str]
) -> None:
    names = ("first", "second", "by a person", "last")
    late = [{"name": name, "auto_scheduled": name != "by a person"} for name in names]
    deployments = [{"id": "nightly", "schedules": [{}]}, {"id": "train", "schedules": []}]

    def api(method: str, path: str, content: Any = None) -> Any:
        return deployments if path == "/deployments/filter" else late

    assert [run["name"] for run in worker._went_by(api, at_work)] == cancelled


def test_a_worker_that_joins_a_pool_knows_no_password_of_a_database(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000")
    for name in SERVERS_ONLY:
        monkeypatch.setenv(name, "postgresql://me:hunter2@host/runs")
    assert "hunter2" not in str(worker._environment(Production(project)))


def test_a_half_written_state_file_means_nothing_runs(project: Path) -> None:
    production = Production(project)
    production.home.mkdir(parents=True)
    (production.home / "prefect.json").write_text('{"pid": 1')
    assert production.running("prefect") is None


@pytest.mark.parametrize("name", ["prefect", "mlflow"])
def test_a_port_of_somebody_else_s_is_refused_with_the_way_out(
    project: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ports = {"prefect": free_port(), "mlflow": free_port()}
    with socket.socket() as other:
        other.bind(("127.0.0.1", ports[name]))
        other.listen()
        with contextlib.suppress(CganError):
            arguments = [f"--{server}-port={port}" for server, port in ports.items()]
            assert services.main(["up", *arguments]) == 1
        told = capsys.readouterr().err
        assert re.search(rf"port {ports[name]} for the {name} server .* {name.upper()}_PORT=", told)
        assert Production(project).running(name) is None
    services.down(project)


def test_deploy_without_servers_says_how_to_start_them(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    assert services.main(["deploy"]) == 1
    assert capsys.readouterr().err == (
        "Error: the prefect server of this project does not run. Start it: make up.\n"
    )
    monkeypatch.setenv("PREFECT_API_URL", "http://name:secret@server:4200/api")
    assert services.main(["deploy"]) == 1
    told = capsys.readouterr().err
    assert "http://server:4200/api: prefect deploy --all" in told
    assert "secret" not in told


def test_elsewhere_than_in_the_project_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert services.main(["up"]) == 1
    assert "top folder" in capsys.readouterr().err


def test_servers_get_our_settings_whatever_the_shell_has(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "https://elsewhere/api")
    monkeypatch.setenv("PREFECT_API_KEY", "key")
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", "postgresql://me:pw@db/runs")
    environment = Production(project).environment(Process(0, 0, 4321))
    assert environment["PREFECT_API_URL"] == "http://127.0.0.1:4321/api"
    assert "PREFECT_API_KEY" not in environment
    assert "MLFLOW_BACKEND_STORE_URI" not in environment, "a worker needs no database"
    assert environment["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"] == "http://127.0.0.1:4321"
    assert environment["PREFECT_HOME"].startswith(str(project))
    # The pages that look elsewhere, and what they would show of Prefect's offers.
    assert environment["PREFECT_SERVER_UI_V2_ENABLED"] == "false"
    assert environment["PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT"] == "false"
    importlib.import_module(environment["PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"])


def test_make_keeps_everything_at_home_as_the_servers_do() -> None:
    text = (ROOT / "Makefile").read_text()
    exported = dict(re.findall(r"^export ([A-Z0-9_]+) = (\w+)$", text, re.MULTILINE))
    assert exported == AT_HOME


def test_make_makes_the_environment_again_in_a_clone_that_was_moved(tmp_path: Path) -> None:
    def planned(clone: Path) -> str:
        return subprocess.check_output(["make", "--dry-run", "env"], cwd=clone, text=True)

    clone = tmp_path / "a b" / "clone"
    clone.mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, clone)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", ".venv"], cwd=clone, check=True)
    (clone / ".venv/.ready").touch()
    assert "-m venv" not in planned(clone)
    assert "-m venv --clear .venv" in planned(clone.rename(tmp_path / "a b" / "moved"))


def test_make_hands_addresses_on_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").write_text('#!/bin/sh\nprintf "%s" "$PREFECT_API_URL"\n')
    (tmp_path / "bin/python").chmod(0o755)
    (tmp_path / ".ready").touch()
    address = 'http://me:a$HOME"b`c@host/api'
    told = [
        f"VENV={os.path.relpath(tmp_path, ROOT)}",
        f"PREFECT_API_URL={address.replace('$', '$$')}",
    ]
    assert (
        subprocess.check_output(["make", "--silent", "worker", *told], cwd=ROOT, text=True)
        == address
    )


def test_make_runs_modules_that_exist() -> None:
    modules = set(re.findall(r"-m (flows\.\w+)", (ROOT / "Makefile").read_text()))
    assert modules == {"flows.production", "flows.worker"}
    assert all(importlib.util.find_spec(module) for module in modules)


# All of it


def wait_until(what: Callable[[], Any], seconds: float = 240) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := what():
            return found
        time.sleep(0.3)
    raise AssertionError("it did not come to that in time")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_f67_f69_f70_a_day_in_production(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers, schedule, a killed worker, an outage, the end; real but for the stages."""
    production = Production(project)
    monkeypatch.setenv("SLOW", "train")  # the worker passes it on
    monkeypatch.setenv("SECONDS", "12")
    ports: dict[str, int | None] = {"prefect": free_port(), "mlflow": None}
    # The toy's `cgan` has no `ui`: a tracking server elsewhere is not ours to start.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")

    def runs(*states: str) -> list[dict[str, Any]]:
        question = {"flow_runs": {"state": {"name": {"any_": list(states)}}}}
        found: list[dict[str, Any]] = production.api("POST", "/flow_runs/filter", question)
        return found

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
        first = {name: production.running(name) for name in ("prefect", "worker")}
        assert None not in first.values()
        services.up(project, ports)
        assert first == {name: production.running(name) for name in first}, "up again: the same"

        told = services.deploy(project, dict.fromkeys(services.CRONS))
        assert "nightly: 0 2 * * * UTC" in told
        assert production.api("GET", "/v2/concurrency_limits/gate")["limit"] == 1
        for name in services.CRONS:  # planned at once, by names of ours
            planned = [run for run in runs("Scheduled") if run["name"].startswith(f"{name} ")]
            assert len(planned) >= 3
        assert len({run["name"] for run in runs("Scheduled")}) == len(runs("Scheduled"))
        commit = git(project, "rev-parse", "--short", "HEAD").strip()
        for deployment in production.deployments().values():
            assert (deployment["version"], deployment["tags"]) == (commit, ["cgan"])

        # The schedule fires by itself. While the run is on, the next is cancelled, not queued.
        every(8)
        run = wait_until(lambda: runs("Running"))[0]
        assert wait_until(lambda: runs("Cancelled"))
        assert len(runs("Running")) == 1
        # The run has named them ahead, those that the server planned since the deploy too.
        wait_until(lambda: any(run["name"].startswith("nightly ") for run in runs("Cancelled")))
        every(10_000)
        wait_until(lambda: run["id"] in ids("Promoted"))
        assert runs("Promoted")[0]["name"].startswith("nightly ")

        # A worker killed in mid-run: the run ends, its stage too, and the next worker takes it up.
        every(8, seed=2)
        log = production.home / "worker.log"
        wait_until(lambda: log.read_text().count("train: step 1\n") == 2)
        (run,) = runs("Running")
        every(10_000, seed=2)
        worker = production.running("worker")
        assert worker
        (engine,) = psutil.Process(worker.pid).children()
        family = [engine, *engine.children(recursive=True)]
        os.kill(worker.pid, signal.SIGKILL)
        assert psutil.wait_procs(family, timeout=60)[1] == []
        wait_until(lambda: ids("Crashed") == [run["id"]])
        again = [line for line in services.up(project, ports) if line.startswith("again")]
        assert len(again) == 1
        wait_until(lambda: run["id"] in ids("Promoted"))
        assert runs("Crashed") == []

        # An outage of the worker: of the slots that went by, one is run.
        before = len(ids("Promoted"))
        assert production.stop("worker")
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
    assert production.running("prefect") is None
    assert not [p for p in psutil.process_iter(["environ"]) if str(project) in str(p.info)]
