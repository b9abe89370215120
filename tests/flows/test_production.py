"""`make up`, `make deploy`, `make down`, and the files in deploy/; once with real servers."""

import getpass
import os
import re
import shutil
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import psutil
import pytest
import yaml
from conftest import ROOT, answers, ended, exit_code, free_port, git, run, started, wait_until
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, Settings, temporary_settings
from prefect.states import Scheduled

from cgan.pipeline.project import PRODUCTION
from flows import production

DEPLOY = ROOT / "deploy"


def test_one_night_at_a_time_at_two_in_the_morning() -> None:
    nightly, train = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    assert (nightly["name"], train["name"]) == ("nightly", "train")
    assert nightly["schedules"] == [{"cron": "0 2 * * *", "timezone": "UTC"}]
    assert nightly["concurrency_limit"] == {"limit": 1, "collision_strategy": "CANCEL_NEW"}
    assert "schedules" not in train
    # The worker takes one more, to cancel it.
    start = "prefect worker start --pool cgan --type process --limit 2 "
    assert start in production.PROGRAMS["worker"] and nightly["work_pool"]["name"] == "cgan"


def test_the_files_for_several_machines_are_valid(tmp_path: Path) -> None:
    from mlflow.cli import cli as mlflow  # a second, which not every process of the tests needs

    def named(text: str) -> set[str]:
        return set(re.findall(r"^(\w+)=", text, re.MULTILINE))

    text = (DEPLOY / "shared/compose.yaml").read_text()
    services = yaml.safe_load(text)["services"]
    told = named((DEPLOY / "servers.env").read_text())
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


def test_the_unit_runs_a_program_of_the_procfile(tmp_path: Path) -> None:
    """As systemd reads it, with this clone in the place of its own."""
    text = (DEPLOY / "systemd/cgan@.service").read_text().replace("/srv/cgan", str(ROOT))
    (shell,) = re.findall(r"^ExecStart=/bin/sh -c '(.*)'$", text, re.MULTILINE)
    said = shell.replace("%i", "worker").replace("$$", "$").replace("exec", "echo")
    assert f"{run('sh', '-c', said, cwd=ROOT).strip()}" == production.PROGRAMS["worker"]
    if shutil.which("systemd-analyze"):
        unit = tmp_path / "cgan@prefect.service"
        unit.write_text(text.replace("User=cgan", f"User={getpass.getuser()}"))
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
    monkeypatch.setenv("PREFECT_PORT", "4300")
    own = production._environment(project)
    assert own["MLFLOW_WORKERS"] == "1" and "PREFECT_CLIENT_MAX_RETRIES" in own
    assert "MLFLOW_TRACKING_URI" not in own
    assert own["PREFECT_HOME"] == str(project / ".cgan/production/prefect")
    assert own["CGAN_SOURCE"] == own["PYTHONPATH"] == str(project)
    assert own["PREFECT_API_URL"] == "http://127.0.0.1:4300/api"


@pytest.fixture
def light_programs(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Python's own web server in the place of both servers."""
    server = "python -m http.server --bind 127.0.0.1 ${}".format
    programs = {name: server(f"{name.upper()}_PORT") for name in ("mlflow", "prefect")}
    monkeypatch.setattr(production, "PROGRAMS", {**programs, "worker": "sh -c 'sleep 1000 & wait'"})
    monkeypatch.setattr(production, "STAYS_UP_S", 0.1)
    yield
    exit_code(production.app, "down")


def pids(project: Path) -> dict[str, int]:
    return {name: process.pid for name, process in production._running(project).items()}


# What `up` starts outlives it.
@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
@pytest.mark.usefixtures("light_programs")
def test_up_and_down_can_be_repeated_in_any_order(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (
        exit_code(production.app, "down") == 0 and "Nothing was running" in capsys.readouterr().out
    )
    assert exit_code(production.app, "deploy") == 1 and "make up" in capsys.readouterr().err
    with monkeypatch.context() as cut_off:  # by Ctrl-C
        cut_off.setattr(production, "say", Mock(side_effect=KeyboardInterrupt))
        exit_code(production.app, "up")
    assert [*pids(project)] == ["mlflow"]
    assert exit_code(production.app, "up") == 0
    assert stat.S_IMODE((project / PRODUCTION).stat().st_mode) == 0o700, "logs and parameters"
    first = pids(project)
    assert [*first] == ["mlflow", "prefect", "worker"]
    psutil.Process(first["mlflow"]).kill()
    taken = f"http://127.0.0.1:{os.environ['MLFLOW_PORT']}"
    wait_until(lambda: not answers(taken))
    # What runs keeps its ports, whatever the environment says by now.
    monkeypatch.setenv("MLFLOW_PORT", str(free_port()))
    assert exit_code(production.app, "up") == 0 and answers(taken)
    again = pids(project)
    assert {**again, "mlflow": 0} == {**first, "mlflow": 0} and again != first
    (run_of_worker,) = wait_until(psutil.Process(again["worker"]).children)
    capsys.readouterr()
    assert exit_code(production.app, "down") == 0
    assert capsys.readouterr().out == f"{production.CUT_OFF}\nStopped: worker, prefect, mlflow.\n"
    assert not any(map(psutil.pid_exists, [*again.values(), run_of_worker.pid]))
    with started("sleep", 100, cwd=project) as (other, _):
        (project / PRODUCTION / "worker.pid").write_text(str(other.pid))  # as after a reboot
        assert pids(project) == {}
    assert exit_code(production.app, "up") == 0 and len(pids(project)) == 3


@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
@pytest.mark.usefixtures("light_programs")
def test_what_does_not_come_up_says_why(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", int(os.environ["PREFECT_PORT"]))):
        assert exit_code(production.app, "up") == 1
    assert "Choose another with PREFECT_PORT=." in capsys.readouterr().err
    monkeypatch.setitem(production.PROGRAMS, "prefect", "seq 30")
    assert exit_code(production.app, "up") == 1
    words = capsys.readouterr().err
    assert words.startswith("Error: prefect did not start. The end of ")
    assert words.endswith(":\n" + "".join(f"{number}\n" for number in range(21, 31)))


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
        silent = ("automation", "create", "--from-file", "deploy/silent.yaml")
        run("prefect", "--no-prompt", *silent, cwd=project, PREFECT_API_URL=url)
        settings = temporary_settings({PREFECT_API_URL: url})
        with settings, get_client(sync_client=True) as found:
            yield found
    finally:
        make(project, "down")
    assert family(project, "") == []


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
    assert "state Crashed('Execution was aborted by a term" in log.read_text(), "*Retry* goes on"
    assert family(project, "") == []
