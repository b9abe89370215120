"""`make up`, `make deploy`, `make down`, and the files in deploy/; once with real servers."""

import getpass
import json
import os
import re
import shutil
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from conftest import ROOT, answers, ended, free_port, git, run, wait_until
from mlflow.cli import cli as mlflow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, Settings, temporary_settings
from prefect.states import Scheduled

from cgan.project import PRODUCTION
from flows import production

DEPLOY = ROOT / "deploy"


def test_one_night_at_a_time_at_two_in_the_morning() -> None:
    nightly, train = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    assert (nightly["name"], train["name"]) == ("nightly", "train")
    assert nightly["schedules"] == [{"cron": "0 2 * * *", "timezone": "UTC"}]
    assert nightly["concurrency_limit"] == {"limit": 1, "collision_strategy": "CANCEL_NEW"}
    assert "schedules" not in train
    # The worker takes one more, to cancel it.
    unit = (DEPLOY / "systemd/cgan-worker.service").read_text()
    for text in (production.PROGRAMS["worker"], unit):
        assert "prefect worker start --pool cgan --type process --limit 2 " in text
    assert nightly["work_pool"]["name"] == "cgan"


def test_the_files_for_several_machines_are_valid(tmp_path: Path) -> None:
    def named(text: str) -> set[str]:
        return set(re.findall(r"^(\w+)=", text, re.MULTILINE))

    text = (DEPLOY / "shared/compose.yaml").read_text()
    services = yaml.safe_load(text)["services"]
    told = named(production.SETTINGS.read_text())
    told = told.union(*(service.get("environment", ()) for service in services.values()))
    published = [name for name, service in services.items() if "ports" in service]
    assert published == ["caddy"], "what does not encrypt is not reached"
    schema = Settings.model_json_schema()
    sections = [schema, *schema["$defs"].values()]
    fields = [field for each in sections for field in each.get("properties", {}).values()]
    known = {name for field in fields for name in field.get("supported_environment_variables", ())}
    assert {name for name in told if name.startswith("PREFECT_")} <= known
    options = {option.envvar for option in mlflow.commands["server"].params}
    assert "MLFLOW_BACKEND_STORE_URI" in options & told
    for name in ("prefect", "mlflow"):
        assert services[name]["env_file"] == "../servers.env"
    example = (DEPLOY / "shared/example.env").read_text()
    assert set(re.findall(r"\$\{(\w+)", text)) == named(example)
    if shutil.which("docker"):
        shutil.copytree(DEPLOY, tmp_path / "deploy")
        filled = re.sub(r"^(\w+)=$", r"\1=x", example, flags=re.MULTILINE)
        (tmp_path / "deploy/shared/.env").write_text(filled)
        run("docker", "compose", "config", "--quiet", cwd=tmp_path / "deploy/shared")


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd")
@pytest.mark.parametrize("name", ["cgan-worker.service", "cgan@.service"])
def test_systemd_can_read_the_units(tmp_path: Path, name: str) -> None:
    """With this clone in the place of theirs."""
    unit = tmp_path / name.replace("@", "@prefect")
    text = (DEPLOY / "systemd" / name).read_text()
    text = text.replace("/srv/cgan/.venv/bin/python", shutil.which("python3") or "/usr/bin/python3")
    text = text.replace("/srv/cgan", str(ROOT)).replace("User=cgan", f"User={getpass.getuser()}")
    unit.write_text(text)
    done = ended("systemd-analyze", "verify", unit, cwd=tmp_path)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.fixture
def project(repo: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The toy, with free ports; the working directory."""
    for name in ("MLFLOW_PORT", "PREFECT_PORT"):
        monkeypatch.setenv(name, str(free_port()))
    return repo


def test_what_up_starts_knows_its_project_and_its_servers(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def become(_path: str, _command: list[str], environment: dict[str, str]) -> None:
        found.append(environment)
        sys.exit()

    def started_with(**more: str) -> dict[str, str]:
        for name, value in more.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit):
            production.main(["run", "worker"])
        return found[-1]

    found: list[dict[str, str]] = []
    monkeypatch.setattr(os, "execve", become)
    ports = {"MLFLOW_PORT": "5100", "PREFECT_PORT": "4300"}
    own = started_with(**ports)
    assert own["MLFLOW_WORKERS"] == "1" and "PREFECT_CLIENT_MAX_RETRIES" in own
    assert "MLFLOW_TRACKING_URI" not in own
    assert own["PREFECT_HOME"] == str(project / ".cgan/production/prefect")
    assert own["CGAN_SOURCE"] == own["PYTHONPATH"] == str(project)
    assert own["PREFECT_API_URL"] == "http://127.0.0.1:4300/api"
    assert own["CGAN_MLFLOW_PAGE"] == "http://127.0.0.1:5100"
    # A database is asked by MLflow's server alone; of a server elsewhere the page has no password.
    own = started_with(MLFLOW_BACKEND_STORE_URI="postgresql://me:secret@db/runs")
    assert own["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:5100"
    own = started_with(MLFLOW_TRACKING_URI="http://me:secret@mlflow.example")
    assert own["CGAN_MLFLOW_PAGE"] == "http://mlflow.example"


@pytest.fixture
def light_programs(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Python's own web server in the place of all three."""
    server = "http.server {} --bind 127.0.0.1"
    programs = {name: server.format(f"{{{name}}}") for name in ("mlflow", "prefect", "worker")}
    monkeypatch.setattr(production, "PROGRAMS", programs)
    monkeypatch.setattr(production, "STAYS_UP_S", 0.1)
    yield
    production.main(["down"])


def pids(project: Path) -> dict[str, int]:
    """Of what `up` started, in the order of their start."""
    state = json.loads((project / production.STATE).read_text())
    return {name: pid for name, (pid, _) in state.items()}


@pytest.mark.usefixtures("light_programs")
def test_up_and_down_can_be_repeated_in_any_order(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert production.main(["down"]) == 0 and "Nothing was running" in capsys.readouterr().out
    assert production.main(["deploy"]) == 1 and "make up" in capsys.readouterr().err
    first = production.up(project)
    next(first)
    first.close()  # as by Ctrl-C
    assert production.main(["up"]) == 0
    assert stat.S_IMODE((project / PRODUCTION).stat().st_mode) == 0o700, "logs and parameters"
    started = pids(project)
    assert list(started) == ["mlflow", "prefect", "worker"]
    psutil.Process(started["mlflow"]).kill()
    wait_until(lambda: not answers(f"http://127.0.0.1:{os.environ['MLFLOW_PORT']}"))
    assert production.main(["up"]) == 0
    again = pids(project)
    assert {**again, "mlflow": 0} == {**started, "mlflow": 0} and again != started
    capsys.readouterr()
    assert production.main(["down"]) == 0
    assert capsys.readouterr().out == "Stopped: worker, prefect, mlflow.\n"
    assert not any(map(psutil.pid_exists, again.values()))
    assert production.main(["up"]) == 0 and all(map(psutil.pid_exists, pids(project).values()))


# All of it


def family(project: Path, *words: str) -> list[psutil.Process]:
    """The project's processes with one of these words in their commands."""
    found = []
    for process in psutil.process_iter(["environ", "cmdline"]):
        if str(project) in str(process.info["environ"]):
            command = " ".join(process.info["cmdline"] or ())
            found += [process] if any(word in command for word in words) else []
    return found


def make(project: Path, command: str) -> str:
    return run("python", "-m", "flows.production", command, cwd=project)


@pytest.fixture
def client(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SyncPrefectClient]:
    """Servers, and the deployments. A tracking server elsewhere is not ours to start: the toy has no `ui`."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("SLOW", "train")  # the worker passes it on
    monkeypatch.setenv("SECONDS", "30")
    try:
        for command in ("up", "up", "deploy", "deploy"):
            make(project, command)
        url = f"http://127.0.0.1:{os.environ['PREFECT_PORT']}/api"
        silent = ("automation", "create", "--from-file", "flows/silent.yaml")
        run("prefect", "--no-prompt", *silent, cwd=project, PREFECT_API_URL=url)
        settings = temporary_settings({PREFECT_API_URL: url})
        with settings, get_client(sync_client=True) as found:
            yield found
    finally:
        make(project, "down")
    assert family(project, "") == []
    assert "Nothing was running" in make(project, "down")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_day_in_production(project: Path, client: SyncPrefectClient) -> None:
    """A night is killed and run again, and the next one is not started meanwhile."""
    nightly: Any = client.read_deployment_by_name("cgan/nightly")
    assert nightly.version == git(project, "rev-parse", "--short", "HEAD")
    (automation,) = client.read_automations()
    assert automation.name == "cgan: heartbeats stopped"
    of_nightly = FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=[nightly.id]))

    def nights(state: str) -> list[FlowRun]:
        found = client.read_flow_runs(flow_run_filter=of_nightly)
        return [each for each in found if each.state_name == state]

    log = project / PRODUCTION / "worker.log"
    client.create_flow_run_from_deployment(nightly.id)
    wait_until(lambda: log.read_text().count("train: step 1\n") == 1)
    client.create_flow_run_from_deployment(nightly.id)
    (second,) = wait_until(lambda: nights("Cancelled"))
    # SIGKILL to all of a run.
    for process in family(project, "prefect.runner", "prefect.engine", "dvc", "toy.py"):
        process.kill()
    # The worker says so last.
    wait_until(lambda: "flow_runs.worker - Check whether" in log.read_text())
    (night,) = nights("Crashed")
    assert night.id != second.id and re.fullmatch(r"nightly \d\d \w{3} \d\d:\d\d", night.name)
    # As *Retry* on its page.
    client.set_flow_run_state(night.id, Scheduled(name="AwaitingRetry"), force=True)
    wait_until(lambda: client.read_flow_run(night.id).state_name == "Promoted", 300)
    assert log.read_text().count("download: process") == 2, "fetched again"
    # What the gate blocks is no error.
    client.create_flow_run_from_deployment(
        nightly.id,
        parameters={"overrides": {"train.seed": 3}},
        job_variables={"env": {"VERDICT": "blocked", "SLOW": ""}},
    )
    wait_until(lambda: nights("Blocked"))
    # A run under way ends with its worker.
    client.create_flow_run_from_deployment(nightly.id, parameters={"overrides": {"train.seed": 9}})
    wait_until(lambda: family(project, "toy.py train"))
    time.sleep(1)
    began = time.monotonic()
    make(project, "down")
    assert time.monotonic() - began < production.MAX_END_S, "nothing had to be killed"
    assert family(project, "") == []
