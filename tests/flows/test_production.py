"""`make up`, `make deploy`, `make down`: processes and ports; once with real servers."""

import asyncio
import contextlib
import inspect
import itertools
import logging
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from configparser import RawConfigParser
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4
from xmlrpc.client import Fault

import prefect
import psutil
import pytest
import yaml
from conftest import ROOT, free_port, wait_until
from prefect.automations import Automation
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.schedules import IntervalSchedule
from prefect.server.events.schemas.automations import EventTrigger, Posture
from prefect.server.events.schemas.events import ReceivedEvent
from prefect.server.schemas.schedules import CronSchedule
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.settings.models.server.ui import ServerUISettings
from prefect.utilities.schema_tools.hydration import HydrationContext, hydrate
from test_pipeline import python
from toy_project import CLI, commit, copy_code, git

from cgan.files import write_json
from cgan.pipeline.params_file import read_yaml
from cgan.project import PRODUCTION
from flows import production, turns
from flows.pipeline import pipeline
from flows.supervisor import STATE, running, supervisor


@pytest.fixture
def project(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with toy stages and a toy gate, but the real flows; the working directory."""
    folder = tmp_path / ("50% " + 60 * "long")  # whose path no socket could have
    shutil.copytree(template, folder)
    copy_code(folder)
    (folder / "cgan/cli.py").write_text(CLI)
    for name in ("prefect.yaml", ".gitignore", ".dvcignore", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    commit(folder)
    monkeypatch.chdir(folder)
    for name in ("MLFLOW_BACKEND_STORE_URI", "PREFECT_API_URL", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)
    # The toy's `cgan` has no `ui`: a tracking server elsewhere is not ours to start.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    return folder


def test_a_silent_run_keeps_its_end_and_a_worker_is_told_no_database() -> None:
    silent = Automation.model_validate(yaml.safe_load((ROOT / "flows/silent.yaml").read_text()))
    assert not silent.actions[0].force, "an end stays as it was"  # type: ignore[union-attr]
    configuration = RawConfigParser()
    configuration.read(production.CONFIGURATION)
    of_worker = configuration["program:worker"]["environment"]
    prefects = itertools.product(("SERVER", "API"), ("CONNECTION_URL", "PASSWORD"))
    own = [f"PREFECT_{server}_DATABASE_{what}" for server, what in prefects]
    for name in ("MLFLOW_BACKEND_STORE_URI", *own):
        assert f'{name}=""' in of_worker, "a worker and its runs know no password of a database"


DEPLOYMENTS = {each["name"]: each for each in read_yaml(ROOT / "prefect.yaml")["deployments"]}


def test_the_schedule_is_two_o_clock_utc_in_summer_and_winter() -> None:
    (entry,) = DEPLOYMENTS["nightly"]["schedules"]
    schedule = CronSchedule.model_validate(entry)
    for month in (1, 7):
        begin = datetime(2026, month, 5, 12, tzinfo=UTC)
        dates = asyncio.run(schedule.get_dates(3, begin))
        expected = [datetime(2026, month, day, 2, tzinfo=UTC) for day in (6, 7, 8)]
        assert [date.astimezone(UTC) for date in dates] == expected
    assert not any(DEPLOYMENTS[name].get("schedules") for name in ("nightly-again", "train"))


def test_one_night_at_a_time_and_the_worker_takes_one_more_to_cancel_it() -> None:
    nights = [name for name, each in DEPLOYMENTS.items() if turns.NIGHT_TAG in each["tags"]]
    assert nights == ["nightly", "nightly-again"], "one limit for both"
    assert not any("concurrency_limit" in each for each in DEPLOYMENTS.values())
    configuration = RawConfigParser()
    configuration.read(production.CONFIGURATION)
    words = configuration["program:worker"]["command"].split()
    assert words[words.index("--limit") + 1] == "2"
    unit = (ROOT / "deploy/systemd/cgan-worker.service").read_text()
    assert "prefect worker start --pool cgan --type process --limit 2 " in unit
    assert words[words.index("--pool") + 1] == DEPLOYMENTS["nightly"]["work_pool"]["name"] == "cgan"


def event(name: str, flow: str, tag: str) -> ReceivedEvent:
    """As Prefect emits it of a run of this flow that has this tag."""
    related = [("flow", "prefect.flow.1", flow), ("tag", f"prefect.tag.{tag}", tag)]
    return ReceivedEvent.model_validate(
        {
            "occurred": "2026-11-30T02:00:00Z",
            "event": name,
            "resource": {"prefect.resource.id": "prefect.flow-run.2"},
            "related": [
                {
                    "prefect.resource.role": role,
                    "prefect.resource.id": id_,
                    "prefect.resource.name": of,
                }
                for role, id_, of in related
            ],
            "id": "00000000-0000-0000-0000-000000000001",
        }
    )


def test_a_run_of_ours_that_is_silent_for_ten_minutes_has_crashed_and_nobody_else_s() -> None:
    automation = yaml.safe_load((ROOT / "flows/silent.yaml").read_text())
    trigger = EventTrigger.model_validate(automation["trigger"])
    heartbeat = "prefect.flow-run.heartbeat"
    assert trigger.covers(event(heartbeat, "cgan", "cgan"))
    assert not trigger.covers(event(heartbeat, "etl", "cgan"))
    assert not trigger.covers(event(heartbeat, "cgan", "etl"))
    assert all("cgan" in each["tags"] for each in DEPLOYMENTS.values())
    assert pipeline.name == "cgan"
    # Silence is counted from a heartbeat on, for each run by itself, and any other event ends it.
    assert (trigger.posture, trigger.after) == (Posture.Proactive, {heartbeat})
    assert trigger.for_each == {"prefect.resource.id"}
    for name in (heartbeat, "prefect.flow-run.Completed", "prefect.flow-run.Cancelled"):
        assert trigger.expects(name)
    assert trigger.within == timedelta(minutes=10)
    beat = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["prefect"]
    assert beat["flows"]["heartbeat_frequency"] == 30, "so that several may be lost on the way"


def test_people_hear_of_what_they_should_look_at_and_of_nothing_else() -> None:
    automation = yaml.safe_load((ROOT / "flows/notices.yaml").read_text())
    automation["actions"][0]["block_document_id"] = "00000000-0000-0000-0000-000000000001"
    assert Automation.model_validate(automation).name == "cgan: notices"
    trigger = EventTrigger.model_validate(automation["trigger"])
    assert trigger.posture == Posture.Reactive
    for name in ("Failed", "Crashed", "Blocked", "Promoted", "Late"):
        assert trigger.expects(f"prefect.flow-run.{name}")
    for name in ("Completed", "Unchanged", "Running", "Cancelled", "heartbeat"):
        assert not trigger.expects(f"prefect.flow-run.{name}")
    assert trigger.covers(event("prefect.flow-run.Late", "cgan", "cgan"))
    assert not trigger.covers(event("prefect.flow-run.Late", "etl", "cgan"))


def test_a_night_that_crashed_starts_again_once_and_no_other_end_does_that() -> None:
    (trigger,) = DEPLOYMENTS["nightly-again"]["triggers"]
    assert trigger["enabled"] and trigger["expect"] == ["prefect.flow-run.Crashed"]
    assert trigger["match_related"] == {
        "prefect.resource.role": "deployment",
        "prefect.resource.name": "nightly",
    }, "a crash of nightly-again itself starts nothing"


@pytest.mark.parametrize(
    "given",
    [
        {"overrides": {"train.seed": 2, "train.lr": 1e-3}, "gate": False, "refresh": False},
        {"overrides": {"train.seed": 2}, "gate": False},
        {"refresh": False},
        {},
    ],
)
def test_a_night_that_crashed_starts_again_with_its_parameters(given: dict[str, Any]) -> None:
    """All of the flow's: a run that must not promote is not followed by one that does."""
    (trigger,) = DEPLOYMENTS["nightly-again"]["triggers"]
    crashed = FlowRun(flow_id=uuid4(), parameters=given)
    context = HydrationContext(render_jinja=True, jinja_context={"flow_run": crashed})
    handed_over = hydrate(trigger["parameters"], context)
    nightly = {"overrides": None, "gate": True} | DEPLOYMENTS["nightly"]["parameters"]
    assert handed_over == nightly | given
    assert handed_over.keys() == inspect.signature(pipeline.fn).parameters.keys()


def test_prefect_still_has_the_pages_that_ask_nobody_else() -> None:
    """deploy/servers.env asks for them. Gone? docs/security.md has to say what the new ones ask."""
    assert production.settings()["PREFECT_SERVER_UI_V2_ENABLED"] == "false"
    assert (Path(prefect.__file__).parent / "server/ui/index.html").exists()
    assert "v2_enabled" in ServerUISettings.model_fields


def test_what_up_starts_knows_its_project_and_its_servers_and_shows_no_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = {"mlflow": 5100, "prefect": 4300}
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_BACKEND_STORE_URI", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PREFECT_PROFILE", "elsewhere")
    own = production._environment(tmp_path, ports)
    assert "PREFECT_PROFILE" not in own and "MLFLOW_TRACKING_URI" not in own
    assert own["PATH"].startswith(f"{Path(sys.executable).parent}:")
    assert own["PREFECT_HOME"] == str(tmp_path / ".cgan/production/prefect")
    assert own["CGAN_SOURCE"] == own["PYTHONPATH"] == str(tmp_path)
    assert (own["CGAN_PREFECT_PORT"], own["CGAN_MLFLOW_PORT"]) == ("4300", "5100")
    assert own["CGAN_MLFLOW_PAGE"] == "http://127.0.0.1:5100"
    # A database is asked by MLflow's server alone; of a server elsewhere the page has no password.
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", "postgresql://me:secret@db/runs")
    assert (
        production._environment(tmp_path, ports)["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:5100"
    )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@mlflow.example")
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:8")
    own = production._environment(tmp_path, ports)
    assert own["CGAN_MLFLOW_PAGE"] == "http://mlflow.example"
    assert own["MLFLOW_TRACKING_URI"] == "http://me:secret@mlflow.example"
    assert "127.0.0.1" in own["no_proxy"]


def test_prefect_s_password_is_for_the_server_and_for_who_asks_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # no project: nothing else happens
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "")
    monkeypatch.delenv("PREFECT_API_AUTH_STRING")
    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", "me:secret")
    assert production.main(["down"]) == 1
    assert os.environ["PREFECT_API_AUTH_STRING"] == "me:secret"


@pytest.mark.parametrize("name", ["prefect", "mlflow"])
def test_a_port_of_somebody_else_s_is_refused_with_the_way_out(
    project: Path, name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    ports = {"prefect": free_port(), "mlflow": free_port()}
    with socket.create_server(("127.0.0.1", ports[name])):
        arguments = [f"--{server}-port={port}" for server, port in ports.items()]
        assert production.main(["up", *arguments]) == 1
        message = capsys.readouterr().err
        assert re.search(rf"port {ports[name]} cannot be used .* {name.upper()}_PORT=", message)
    assert production.main(["down"]) == 0 and "Nothing was running" in capsys.readouterr().out
    assert not (project / PRODUCTION / STATE).exists(), "the way out is open"
    assert stat.S_IMODE((project / PRODUCTION).stat().st_mode) == 0o700, "logs and parameters"


def test_deploy_without_servers_says_how_to_start_them_and_nothing_starts_outside_a_project(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert production.main(["deploy"]) == 1
    assert re.search("make up.*prefect deploy --all", capsys.readouterr().err)
    assert running(project) is None
    monkeypatch.chdir(project.parent)
    assert production.main(["up"]) == 1
    assert "is no project" in capsys.readouterr().err


def test_f103_ctrl_c_ends_a_deploy_in_words_and_what_a_killed_one_left_goes(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_json(project / PRODUCTION / STATE, {"prefect": {"host": "127.0.0.1", "port": 9}})
    checkouts = project / ".cgan/checkouts"
    (checkouts / "of-before").mkdir(parents=True)
    monkeypatch.setattr(production, "running", lambda _: {"prefect": 1})

    def interrupted(*_: object, folder: Path, **__: object) -> None:
        assert [folder] == list(checkouts.glob("*/"))
        raise KeyboardInterrupt

    monkeypatch.setattr(production, "output_of", interrupted)
    assert production.main(["deploy"]) == 130
    assert "same command again" in capsys.readouterr().err
    assert list(checkouts.glob("*/")) == []


SLOW_SERVER = """
import http.server, os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
while not os.path.exists("go on"):
    time.sleep(0.05)
port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.HTTPServer(("127.0.0.1", port), http.server.BaseHTTPRequestHandler).serve_forever()
"""


def test_up_works_after_a_failed_up_a_slow_one_and_a_killed_supervisor_and_down_says_what_it_ended(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    soon = project / "supervisord.conf"
    soon.write_text(production.CONFIGURATION.read_text().replace("startsecs=5", "startsecs=1"))
    monkeypatch.setattr(production, "CONFIGURATION", soon)
    monkeypatch.setattr(production, "LINE_EVERY_S", 0.5)
    ports = {"mlflow": free_port(), "prefect": free_port()}

    def until_mlflow_answers() -> list[str]:
        lines_before = []
        for line in (lines := up()):
            if "http" in line[:14]:
                break
            lines_before.append(line)
            if " waiting until " in line:
                (project / "go on").touch()
        lines.close()
        return lines_before

    def up() -> Iterator[str]:
        return production.up(project, ports)

    try:
        # A failed one leaves a supervisor that keeps nothing.
        for reason in ("no disk", "no memory"):
            (project / "cgan/cli.py").write_text(f"raise SystemExit('{reason}')")
            assert production.main(["up", f"--mlflow-port={ports['mlflow']}"]) == 1
            assert re.search(rf"mlflow did not start[^\0]*:\n{reason}\n$", capsys.readouterr().err)
            assert running(project) == {}
        ports["mlflow"] = free_port()  # the way out may be another port
        (project / "cgan/cli.py").write_text(SLOW_SERVER)
        first, *waiting = until_mlflow_answers()
        assert re.match("ended .*supervisor", first)
        assert waiting and all(
            f"waiting until http://127.0.0.1:{ports['mlflow']} answers" in line
            and line.endswith("production/mlflow.log")
            for line in waiting
        )
        assert until_mlflow_answers() == [], "it runs already"
        (killed,) = (running(project) or {}).values()
        os.kill(killed, signal.SIGTERM)  # it ends with 0, as MLflow's does where a child is killed
        wait_until(lambda: {*(running(project) or {}).values()} - {killed})
        until_mlflow_answers()
        (pid,) = (running(project) or {}).values()
        with supervisor(project) as keeper:
            psutil.Process(keeper.getPID()).kill()
        wait_until(lambda: running(project) is None)
        first, *_ = until_mlflow_answers()
        assert re.match(rf"ended .*mlflow.*process {pid}\b", first)
        assert production.main(["down"]) == 0
        assert capsys.readouterr().out == "Stopped: mlflow.\n"
    finally:
        production.main(["down"])
    assert running(project) is None and not production._orphans(project)


def test_a_supervisor_that_shuts_down_after_a_killed_down_is_waited_for(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([Fault(6, "SHUTDOWN_STATE")] * 2)

    class Keeper:
        def getAllProcessInfo(self) -> None:  # noqa: N802 - supervisor's name
            raise next(answers, ConnectionRefusedError())

    monkeypatch.setattr("flows.supervisor.supervisor", lambda _: contextlib.nullcontext(Keeper()))
    assert running(project) is None and not list(answers)
    answers = iter([Fault(1, "UNKNOWN_METHOD")])
    with pytest.raises(Fault, match="UNKNOWN_METHOD"):
        running(project)


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


def runs(client: SyncPrefectClient, name: str, *states: str) -> list[FlowRun]:
    of = FlowRunFilterDeploymentId(any_=[client.read_deployment_by_name(f"cgan/{name}").id])
    found = client.read_flow_runs(flow_run_filter=FlowRunFilter(deployment_id=of))
    return [run for run in found if not states or run.state_name in states]


@pytest.fixture
def up(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SyncPrefectClient]:
    """Servers, and the deployments; an automation of the project's that does not wait long. The first `up` is
    killed while Prefect starts."""
    monkeypatch.setenv("SLOW", "train")  # the worker passes it on
    monkeypatch.setenv("SECONDS", "30")
    silent = project / "flows/silent.yaml"
    silent.write_text(silent.read_text().replace("within: 600", "within: 90"))
    git(project, "commit", "--quiet", "--all", "-m", "soon")
    port = free_port()
    command, log = ["up", f"--prefect-port={port}"], project / PRODUCTION / "prefect.log"
    checkouts = project / ".cgan/checkouts"
    try:
        with (
            monkeypatch.context() as patch
        ):  # behind a proxy, which must not be asked for this machine
            for name in ("no_proxy", "NO_PROXY"):
                patch.delenv(name, raising=False)
            patch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")  # nobody answers there
            with python("-m", "flows.production", *command) as killed:
                wait_until(log.exists)
                killed.kill()
            assert production.main(command) == 0
            with python("-m", "flows.production", "deploy") as killed:
                wait_until(lambda: list(checkouts.glob("*/prefect.yaml")))
                killed.kill()
            assert production.main(["deploy"]) == 0
        assert list(checkouts.glob("*/")) == []
        with (
            temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{port}/api"}),
            get_client(sync_client=True) as client,
        ):
            yield client
    finally:
        production.main(["down"])
    assert running(project) is None
    assert not [p for p in psutil.process_iter(["environ"]) if str(project) in str(p.info)]


def family(project: Path, *words: str) -> list[psutil.Process]:
    """The project's processes with one of these words in their commands."""
    found = []
    for process in psutil.process_iter(["environ", "cmdline"]):
        line = " ".join(process.info["cmdline"] or ())
        if str(project) in str(process.info["environ"]) and any(word in line for word in words):
            found.append(process)
    return found


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_f67_f69_f70_a_day_in_production(
    project: Path, up: SyncPrefectClient, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run whose machine dies, the schedule, an outage of the worker; real but for the stages."""
    log = project / PRODUCTION / "worker.log"
    (project / "README.md").write_text("not committed\n")
    git(project, "add", "README.md")
    capsys.readouterr()
    assert production.main(["deploy"]) == 0, "as often as you like"
    assert re.search(r"Not deployed.*README\.md", capsys.readouterr().out)
    nightly = up.read_deployment_by_name("cgan/nightly")
    commit = git(project, "rev-parse", "--short", "HEAD")
    assert (nightly.version, nightly.tags) == (commit, ["cgan", "night"])
    assert stat.S_IMODE((project / PRODUCTION).stat().st_mode) == 0o700

    def training(number: int) -> None:
        wait_until(lambda: log.read_text().count("train: step 1\n") == number)

    # SIGKILL to all of a run but the servers: Crashed by its heartbeats, and started again.
    up.create_flow_run_from_deployment(nightly.id)
    training(1)
    for process in family(project, "prefect worker", "prefect.engine", "dvc", "toy.py"):
        process.kill()
    wait_until(lambda: runs(up, "nightly", "Crashed"), 300)
    assert re.fullmatch(r"nightly \d\d \w{3} \d\d:\d\d", runs(up, "nightly")[0].name)
    training(2)

    # The worker alone: its run crashes at once. This one was a second try already, so there is no other.
    os.kill((running(project) or {})["worker"], signal.SIGKILL)
    wait_until(lambda: runs(up, "nightly-again", "Crashed"))
    wait_until(lambda: not family(project, "toy.py"), 15)  # its stage ends, not by itself
    up.create_flow_run_from_deployment(nightly.id, parameters={"overrides": {"train.seed": 2}})
    training(3)
    os.kill((running(project) or {})["worker"], signal.SIGKILL)
    wait_until(lambda: runs(up, "nightly-again", "Promoted"), 300)
    again = runs(up, "nightly-again")
    assert len(runs(up, "nightly", "Crashed")) == len(again) == 2
    assert {"train.seed": 2} in [run.parameters["overrides"] for run in again], "the same params"

    # The schedule fires by itself. While the run is on, the next is cancelled, not queued.
    (schedule,) = nightly.schedules
    up.update_deployment_schedule(nightly.id, schedule.id, schedule=IntervalSchedule(interval=8))
    elder = wait_until(lambda: runs(up, "nightly", "Running"))[0]
    cancelled = wait_until(lambda: runs(up, "nightly", "Cancelled"))
    assert elder.id not in {run.id for run in cancelled}
    up.update_deployment_schedule(nightly.id, schedule.id, active=False)
    wait_until(lambda: not runs(up, "nightly", "Running", "Pending", "Scheduled", "Late"))

    # What the gate blocks is no error, nowhere.
    train = up.read_deployment_by_name("cgan/train").id
    blocked = up.create_flow_run_from_deployment(
        train,
        parameters={"gate": True, "overrides": {"train.seed": 3}},
        job_variables={"env": {"VERDICT": "blocked", "SLOW": ""}},
    )
    wait_until(lambda: runs(up, "train", "Blocked"))
    time.sleep(3)  # for the last of its logs
    of_run = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[blocked.id]))
    logged = up.read_logs(of_run)
    assert logged and [each.message for each in logged if each.level >= logging.ERROR] == []
