"""The flow, on a real DVC repository whose stages take a moment, with a real Prefect server."""

import contextlib
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml
from conftest import ROOT, run, wait_until
from prefect import flow as prefect_flow
from prefect import runtime, tags
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterId,
)
from prefect.client.schemas.objects import FlowRun
from prefect.states import Crashed, Running
from toy_project import STAGES, attempts

from cgan.errors import CganError
from cgan.project import RUN_LOCATION
from flows import automations, repro, turns
from flows import pipeline as flow
from flows.pipeline import pipeline


@pytest.fixture(scope="module")
def prefect() -> Iterator[None]:
    from prefect.testing.utilities import prefect_test_harness  # imports all of its server

    with prefect_test_harness(server_startup_timeout=400):
        yield


def test_the_flow_has_a_task_for_each_stage_in_the_pipeline_s_order() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert [stage.name for stage in flow.STAGES] == list(stages) == list(STAGES)


def artifact(state: Any) -> str:
    run = ArtifactFilterFlowRunId(any_=[state.state_details.flow_run_id])
    with get_client(sync_client=True) as client:
        (found,) = client.read_artifacts(artifact_filter=ArtifactFilter(flow_run_id=run))
    assert found.key == "run"
    return str(found.data)


def has_tasks(state: Any, expected: dict[str, str]) -> bool:
    """Are these the names of the tasks' states? They come to the server as events, a moment later."""
    run = FlowRunFilter(id=FlowRunFilterId(any_=[state.state_details.flow_run_id]))

    def found() -> dict[str, str]:
        runs = client.read_task_runs(flow_run_filter=run)
        return {each.name.rpartition("-")[0]: str(each.state_name) for each in runs}

    with get_client(sync_client=True) as client:
        wait_until(lambda: found() == expected)
    return True


def test_the_verdict_is_the_run_s_state_and_what_is_not_stale_ends_at_once(
    prefect: None, repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = pipeline(overrides={"train.lr": 0.5}, return_state=True)
    assert (state.name, state.type.value) == ("Promoted", "COMPLETED")
    assert state.message == "version 3 is promoted: accuracy is 99.4 %"
    assert has_tasks(state, dict.fromkeys(STAGES, "Completed") | {"gate": "Promoted"})
    shown = artifact(state)
    assert shown.count("version 3 is promoted") == 1 and "](data:image/png;base64," in shown
    assert yaml.safe_load(Path("params.yaml").read_text())["train"]["lr"] == 0.5
    context = json.loads(Path("attempts.log").read_text().splitlines()[0].partition(" ")[2])
    assert context["prefect.flow_run_id"] == str(state.state_details.flow_run_id)
    named = r"\d\d \w{3} \d\d:\d\d · train.lr=0.5"
    assert re.fullmatch(named, context["prefect.flow_run_name"])

    # A refresh that finds the same data: DVC is asked once. Blocked is neither green nor red.
    reference = {"run_id": "abc", "run_name": "c|gan", "tracking_uri": "http://127.0.0.1:5000"}
    RUN_LOCATION.write_text(json.dumps(reference))
    monkeypatch.setenv("VERDICT", "blocked")
    state = pipeline(refresh=True, return_state=True)
    assert (state.name, state.type.value) == ("Judged", "COMPLETED"), "for Prefect's engine"
    with get_client(sync_client=True) as client:
        shown = client.read_flow_run(state.state_details.flow_run_id).state
        assert shown and (shown.name, shown.type.value) == ("Blocked", "CANCELLED")
        assert shown.message == "version 3 is blocked: accuracy is 99.4 %"
    unchanged = dict.fromkeys(STAGES, "Unchanged")
    again = dict.fromkeys(("params", "download"), "Completed")
    assert has_tasks(state, {**unchanged, **again, "gate": "Blocked"})
    assert "http://127.0.0.1:5000/#/experiments/0/runs/abc/artifacts/run.html" in artifact(state)
    assert attempts() == [*STAGES, "download"]

    RUN_LOCATION.write_text(json.dumps(reference | {"tracking_uri": "sqlite:///mlflow.db"}))
    state = pipeline(gate=False, return_state=True)
    assert has_tasks(state, unchanged | {"params": "Completed"})
    assert "99.4 %" in str(state.message)
    shown = artifact(state)
    assert "make ui" in shown and "c\\|gan" in shown and "| conditional accuracy | 99.4 % " in shown
    monkeypatch.setenv("VERDICT", "away")
    state = pipeline(return_state=True)
    assert state.is_failed() and state.message == "Gate: Error: the store is away. Start it."


@pytest.mark.slow
def test_f79_a_night_whose_record_finds_no_mlflow_keeps_its_results_and_the_next_one_records(
    prefect: None, repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CGAN_CHECKOUT", str(repo))
    monkeypatch.setenv("CGAN_SOURCE", str(repo))
    monkeypatch.setenv("CGAN_HOME", str(tmp_path / "home"))
    remote = ("remote", "add", "--default", "storage", str(tmp_path / "remote"))
    run(sys.executable, "-m", "dvc", *remote, cwd=repo)
    monkeypatch.setenv("FAIL", "record")
    state = pipeline(return_state=True)
    assert state.is_failed() and str(state.message).startswith("Stage `record`: Error: ")
    assert has_tasks(
        state, dict.fromkeys(STAGES, "Completed") | {"record": "Failed", "push": "Completed"}
    )
    kept = (tmp_path / "home/dvc.lock").read_text()
    assert "  train:" in kept and "  record:" not in kept
    assert any((tmp_path / "remote").rglob("*"))
    monkeypatch.delenv("FAIL")
    assert pipeline(return_state=True).name == "Promoted"
    assert attempts() == [*STAGES, "record"]
    # Each has a tag, whose dvc.lock keeps its results.
    found = sorted(run("git", "tag", "--list", "run/*", cwd=repo).split(), key=len)
    kept = "run/" + r"\d{4}-\d\d-\d\dT\d{4}"
    assert re.fullmatch(rf"{kept}-promoted-\w{{8}}", found[0])
    assert re.fullmatch(rf"{kept}-not-recorded-\w{{8}}", found[1]) and len(found) == 2
    for name, recorded in zip(found, (True, False), strict=True):
        lock = run("git", "show", f"{name}:dvc.lock", cwd=repo)
        assert "  train:" in lock and ("  record:" in lock) == recorded
    run(sys.executable, "-m", "dvc", "gc", "--force", "--all-tags", cwd=repo)
    Path("samples/grid.png").unlink()
    run("git", "checkout", found[0], "--", "dvc.lock", cwd=repo)
    run(sys.executable, "-m", "dvc", "checkout", cwd=repo)
    assert Path("samples/grid.png").exists(), "nothing of it is garbage"


def test_a_gate_waits_for_that_of_another_machine(prefect: None, repo: Path) -> None:
    ended: list[str] = []

    def other_flow() -> None:
        ended.append(str(pipeline(return_state=True).name))

    pipeline(return_state=True)  # the limit is there, and nothing is stale
    with get_client(sync_client=True) as client:
        limit = client.read_global_concurrency_limit_by_name("cgan-gate")
        assert (limit.limit, limit.active_slots) == (1, 0)
        held = client.increment_concurrency_slots_with_lease(
            names=["cgan-gate"], slots=1, mode="concurrency", lease_duration=300
        ).json()["lease_id"]
        thread = threading.Thread(target=other_flow)
        thread.start()
        wait_until(lambda: tasks_of(client, "gate").count("Running") == 1)
        time.sleep(2)
        assert not ended
        client.release_concurrency_slots_with_lease(held)
        thread.join(240)
    assert ended == ["Promoted"]


def tasks_of(client: SyncPrefectClient, name: str) -> list[str]:
    runs = client.read_task_runs()
    return [str(each.state_name) for each in runs if each.name.startswith(f"{name}-")]


def test_a_stage_or_a_gate_that_fails_fails_the_run_with_its_message_and_is_not_tried_again(
    prefect: None, repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIL", "validate")
    state, again = pipeline(return_state=True), dict.fromkeys(("params", "download"), "Completed")
    assert state.is_failed() and str(state.message).startswith(
        "Stage `validate`: Error: data/raw/train.csv, row 17, column pixel12: 256 is outside 0–255."
    )
    assert has_tasks(state, {**again, "validate": "Failed"})
    assert attempts() == [*again, "validate"]
    monkeypatch.setenv("FAIL", "")
    Path("toy.py").write_text("print('last words')\n1 / 0")
    state = pipeline(refresh=True, return_state=True)
    assert re.search(r"(?s)last words.*ZeroDivisionError", str(state.message))


def test_in_a_checkout_results_go_to_the_remote_and_the_next_checkout_begins_with_them(
    prefect: None, repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    add = [sys.executable, "-m", "dvc", "remote", "add", "--quiet", "--default", "storage"]
    subprocess.run([*add, store], check=True)
    # All stages in one process of DVC's: the flow finds them unchanged.
    by_hand = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run([sys.executable, "-m", "dvc", "repro", "--quiet"], env=by_hand, check=True)
    monkeypatch.setenv("CGAN_CHECKOUT", str(tmp_path / "its checkout"))
    monkeypatch.setenv("CGAN_SOURCE", str(repo))
    assert pipeline(return_state=True).name == "Promoted"
    assert (store / "files").is_dir() and (store / "runs").is_dir()
    assert Path(".cgan/dvc.lock").read_bytes() == Path("dvc.lock").read_bytes()
    # A remote that takes nothing fails the run, and its verdict stands in the message.
    shutil.rmtree(store)
    store.write_text("no folder")
    monkeypatch.setattr(flow, "push", flow.push.with_options(retries=0))
    state = pipeline(refresh=True, return_state=True)
    assert state.is_failed()
    assert re.search(
        r"dvc push: (.|\n)*The results are in this machine's cache.\nversion 3 is promoted",
        str(state.message),
    )


def python(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_f71_beside_a_repro_by_hand_a_flow_says_busy_and_changes_no_params(
    prefect: None, repo: Path
) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # of an activated environment
    with python(
        "-m", "dvc", "repro", "--single-item", "download", SLOW="download", PATH=path
    ) as by_hand:
        assert by_hand.stdout and any("step 0" in line for line in by_hand.stdout)
        state = pipeline(overrides={"train.seed": 3}, return_state=True)
        assert state.is_failed() and re.search(rf"busy(.|\n)*PID {by_hand.pid}", str(state.message))
        assert yaml.safe_load(Path("params.yaml").read_text())["train"]["seed"] == 1
        Path("enough").touch()


@pytest.mark.usefixtures("repo")
@pytest.mark.parametrize("damage", ["stages:\n  train: 5\n", "<<<<<<< HEAD\nstages: {}\n"])
def test_a_damaged_lock_is_told_with_what_brings_it_back(damage: str) -> None:
    Path("dvc.lock").write_text(damage)
    with pytest.raises(CganError, match=r"git checkout dvc\.lock` brings back"):
        repro.dvc("status", "--json")


STAGE = """
import sys
from flows.repro import exclusive_folder, in_session
with exclusive_folder(print):
    in_session("dvc", "repro", "--single-item", sys.argv[1], on_line=print)
"""


def test_f67_f71_what_a_killed_run_had_started_ends_by_itself_and_the_next_run_waits(
    repo: Path,
) -> None:
    with python("-c", STAGE, "download", SLOW="download") as killed:
        assert killed.stdout and any("step 2" in line for line in killed.stdout)
        killed.kill()
    with python("-c", STAGE, "download") as following:
        assert following.stdout
        assert following.stdout.readline().startswith("Another run is working in this folder")
        Path("enough").touch()
        assert "download: process" not in following.stdout.read(), "its result is there"
        assert following.wait() == 0
    assert attempts() == ["download"]


def test_the_message_of_a_failure_is_its_last_error_or_else_its_last_lines(tmp_path: Path) -> None:
    lines = [str(number) for number in range(30)]
    for output, message in (
        (["Error: one", "two", "Error: three", "four"], "Error: three\nfour"),
        (lines, "\n".join(lines[10:])),
        ([], "ended with exit code 7"),
    ):
        Path(tmp_path, "failing.py").write_text(f"print(*{output}, sep='\\n'); raise SystemExit(7)")
        with pytest.raises(CganError) as caught:
            repro.in_session("failing", on_line=lambda _: None, folder=tmp_path)
        assert str(caught.value) == message
    repro.in_session("failing", on_line=lambda _: None, folder=tmp_path, exit_codes=(0, 7))


SILENT = """
import time
from pathlib import Path
print("half a l", end="", flush=True)
while not Path("go on").exists():
    time.sleep(0.05)
print("ine\\nüber")
"""


def test_a_child_that_says_nothing_is_checked_and_ends_with_what_the_check_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repro, "CHECK_EVERY_S", 0.5)
    Path(tmp_path, "silent.py").write_text(SILENT, encoding="utf-8")
    lines: list[str] = []
    checks: list[int] = []

    def check() -> None:
        checks.append(len(lines))
        if len(checks) == 2:
            Path(tmp_path, "go on").touch()

    repro.in_session("silent", on_line=lines.append, check=check, folder=tmp_path)
    assert lines == ["half a line", "über"] and checks[:2] == [0, 0]
    Path(tmp_path, "silent.py").write_text("import time; time.sleep(600)")

    def refuse() -> None:
        raise CganError("an older night works")

    with pytest.raises(CganError, match="an older night works"):
        repro.in_session("silent", on_line=lines.append, check=refuse, folder=tmp_path)


def test_a_stage_behind_a_stale_one_counts_as_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    """DVC names the first alone: whether the others are stale, it knows when that has run."""
    monkeypatch.setattr(repro, "dvc", lambda *_: '{"train": [{"changed deps": {}}]}')
    assert repro.Stages(["params", "train", "page"]).unchanged == ["params"]


def test_a_stage_has_no_input_that_it_could_wait_for(repo: Path) -> None:
    code = 'from flows.repro import in_session; in_session("json.tool", on_line=print)'
    known = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], input="{}", env=known, capture_output=True, text=True
    )
    assert done.returncode == 1 and "CganError" in done.stderr and "{}" not in done.stdout


def test_a_line_of_a_stage_has_its_level_in_prefect_s_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(repro, "get_run_logger", lambda: logging.getLogger("of a run"))
    caplog.set_level(logging.DEBUG)
    for line in ("Error: no disk", "WARNING: 5 % off", "ERROR: busy", "Errors: 3", "step 5: %s"):
        repro.log_line(line)
    levels = [logging.ERROR, logging.WARNING, logging.ERROR, logging.INFO, logging.INFO]
    assert [record.levelno for record in caplog.records] == levels
    assert caplog.messages[-1] == "step 5: %s"


@pytest.mark.parametrize("deaf", ["", "1"])
def test_f46_whatever_ends_a_run_ends_the_whole_session_of_its_child(
    repo: Path, monkeypatch: pytest.MonkeyPatch, deaf: str
) -> None:
    monkeypatch.setenv("SLOW", "download")
    monkeypatch.setenv("DEAF", deaf)
    monkeypatch.setattr(repro, "CHECKPOINT_S", 1 if deaf else 120)
    lines: list[str] = []

    def cancel_at_step_2(line: str) -> None:
        lines.append(line)
        if "step 2" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        repro.in_session("dvc", "repro", "--single-item", "download", on_line=cancel_at_step_2)
    child = re.search(r"process (\d+)", "\n".join(lines))
    assert child
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(int(child[1])).wait(60)
    assert Path("saved").exists() is not bool(deaf)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        (
            {"PREFECT_API_URL": "http://127.0.0.1:9/api"},
            "Prefect's API at PREFECT_API_URL, http://127.0.0.1:9/api, cannot be used (ConnectError",
        ),
        pytest.param(
            {"PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "1"},
            "Prefect's temporary server did not start in time",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_f66_a_server_that_is_away_or_late_is_one_clear_message(
    repo: Path, tmp_path: Path, setting: dict[str, str], words: str
) -> None:
    proxy = socket.create_server(("127.0.0.1", 0))
    away = {
        "HTTP_PROXY": f"http://127.0.0.1:{proxy.getsockname()[1]}",
        "NO_PROXY": "",
        "no_proxy": "",
    }
    place = {"PREFECT_HOME": str(tmp_path / "prefect")}
    process = python("-m", "flows.pipeline", **place, **away, **setting)
    output, _ = process.communicate(timeout=240)
    proxy.setblocking(False)
    with proxy, pytest.raises(BlockingIOError):  # nobody asked a proxy for this machine
        proxy.accept()
    assert process.returncode == 1 and "Traceback" not in output
    (line,) = [line for line in output.splitlines() if line.startswith("Error: ")]
    assert line.startswith(f"Error: {words}")
    assert attempts() == []


@pytest.mark.slow
@pytest.mark.parametrize(("name", "code"), [("INT", 130), ("TERM", 143)])
def test_f46_a_signal_ends_the_stage_and_the_temporary_server(
    repo: Path, tmp_path: Path, name: str, code: int
) -> None:
    settings = {"PREFECT_HOME": str(tmp_path / "prefect")}
    settings["PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"] = "240"
    with python("-m", "flows.pipeline", SLOW="train", **settings) as process:
        assert process.stdout
        assert any("train: step 1" in line for line in process.stdout)
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) >= 3, "server, dvc, stage"
        # A terminal sends Ctrl-C to the whole group, the server included.
        (os.killpg if name == "INT" else os.kill)(process.pid, signal.Signals[f"SIG{name}"])
        output, _ = process.communicate(timeout=240)  # Prefect's end takes a minute at times
    assert Path("saved").exists() and process.returncode == code, output
    assert psutil.wait_procs(children, timeout=60)[1] == []


def test_a_night_ends_for_one_that_began_before_and_a_run_that_lives_takes_its_state_back(
    prefect: None, repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repro, "CHECK_EVERY_S", 0.5)
    monkeypatch.setenv("SLOW", "params")
    ended: list[str] = []

    def night() -> None:
        with tags("cgan", "night"):
            ended.append(str(pipeline(return_state=True).name))

    with get_client(sync_client=True) as client:

        def state_of(run: FlowRun) -> tuple[str, str]:
            time.sleep(0.5)
            state = client.read_flow_run(run.id).state
            assert state
            return str(state.name), str(state.message)

        earlier = client.create_flow_run(pipeline, name="an elder", tags=["cgan", "night"])
        for each in (Running(), Crashed()):
            client.set_flow_run_state(earlier.id, each, force=True)
        known = {run.id for run in client.read_flow_runs()}
        thread = threading.Thread(target=night, daemon=True)
        thread.start()
        wait_until(lambda: Path("attempts.log").exists() and attempts())
        (elder,) = [run for run in client.read_flow_runs() if run.id not in known]
        # What the automation does when a server was away for long; it then starts another.
        client.set_flow_run_state(elder.id, Crashed(message="silent"), force=True)
        wait_until(lambda: state_of(elder) == ("Running", "It was alive."))
        with tags("cgan", "night"):
            state = pipeline(return_state=True)
        second = client.read_flow_run(state.state_details.flow_run_id)
        assert state_of(second) == ("Cancelled", f"`{elder.name}` is still running")
        assert state_of(elder)[0] == "Running" and not ended
        # One that began with another at once, or whose elder takes its state back, ends while it works.
        client.set_flow_run_state(elder.id, Crashed(), force=True)
        client.set_flow_run_state(earlier.id, Running(), force=True)
        thread.join(200)
        assert ended == ["Ended"] and attempts() == ["params"]
        client.set_flow_run_state(earlier.id, Crashed(), force=True)


def test_a_run_that_is_marked_as_crashed_finds_no_older_one_where_none_or_a_younger_works(
    prefect: None,
) -> None:
    found: list[str] = []

    @prefect_flow
    def night() -> None:
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(runtime.flow_run.id, Crashed(), force=True)
            found.append(turns.older_nightly_run())
            younger = client.create_flow_run(pipeline, name="younger", tags=["cgan", "night"])
            client.set_flow_run_state(younger.id, Running(), force=True)
            found.append(turns.older_nightly_run())
            client.set_flow_run_state(younger.id, Crashed(), force=True)

    with tags("cgan", "night"):
        night(return_state=True)
    assert found == ["", ""], "what fails in this one is no end for another"


def test_automations_are_applied_once_and_replaced_where_the_file_has_changed(
    prefect: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    CustomWebhookNotificationBlock(name="x", url="http://127.0.0.1:9").save("cgan")
    with get_client(sync_client=True) as client:

        def ids() -> dict[str, Any]:
            return {each.name: each.id for each in client.read_automations()}

        assert automations.apply("custom-webhook/cgan") == [*ids()]
        before = ids()
        automations.apply("custom-webhook/cgan")
        assert ids() == before, "it has seen the heartbeats of runs"
        changed = tmp_path / "silent.yaml"
        changed.write_text(automations.SILENT.read_text().replace("within: 600", "within: 700"))
        monkeypatch.setattr(automations, "SILENT", changed)

        def fail(*_: Any) -> None:
            raise httpx.ConnectError("away")

        with monkeypatch.context() as away, pytest.raises(httpx.ConnectError):
            away.setattr(SyncPrefectClient, "create_automation", fail)
            automations.apply()
        assert ids() == before, "the outdated one is better than none"
        automations.apply()
        changes = {name for name, each in ids().items() if each != before[name]}
        assert changes == {"cgan: heartbeats stopped"} and len(ids()) == 2
        with pytest.raises(CganError, match="slack-webhook/none is no block of this"):
            automations.apply("slack-webhook/none")
