"""The flow, on a real DVC repository whose stages take a moment, with a real Prefect server."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from conftest import ROOT, wait_until
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter
from prefect.testing.utilities import prefect_test_harness
from toy_project import attempts, git, quiet, repro_stage

from cgan.errors import CganError
from cgan.params.editing import set_params
from cgan.project import RUN_REFERENCE
from flows import dvc
from flows import pipeline as flow
from flows.artifacts import in_words
from flows.checkout import dvc_in
from flows.dvc import BusyError, Outcome, StageError
from flows.pipeline import parse_override, pipeline

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:prefect|websockets|httpx"),
]


@pytest.fixture(scope="module")
def prefect() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=60):
        yield


# DVC's side


def test_a_stage_is_ran_then_unchanged_then_restored_and_with_tags_a_training_runs_again(
    repo: Path,
) -> None:
    names = ["download", "train", "evaluate"]
    with contextlib.closing(dvc.Repro()) as run:
        for name in names:
            lines: list[str] = []
            assert run.stage(name, lines.append) == Outcome.RAN
            (own,) = [line for line in lines if "process" in line]
            assert own.startswith(f"{name}: ") and f" of {Path(sys.executable).parent}/" in own
        assert [run.stage(name, quiet) for name in names] == [Outcome.UNCHANGED] * 3
        set_params({"train.seed": 2})
        assert run.stage("train", quiet) == Outcome.RAN
        set_params({"train.seed": 1})
        assert run.stage("train", quiet) == Outcome.RESTORED
        assert run.stage("download", quiet, force=True) == Outcome.RAN
    tags = {"cgan.sweep.job": "one"}
    with contextlib.closing(dvc.Repro(context=tags, tags=tags)) as run:
        assert run.stage("train", quiet) == Outcome.RAN, "what was there is another run's"
        assert [run.stage(name, quiet) for name in names] == [Outcome.UNCHANGED] * 3
    assert attempts() == [*names, "train", "download", "train"]


def test_a_stage_that_fails_raises_its_own_message_alone_or_its_last_lines(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CganError, match=r"`trian`.*download, train, evaluate"):
        dvc.choose(["trian"])
    with pytest.raises(StageError, match=r"failed to reproduce 'evaluate'.*generator"):
        repro_stage("evaluate")
    monkeypatch.setenv("FAIL", "download")
    with pytest.raises(StageError) as error:
        repro_stage("download")
    assert str(error.value) == "data/raw/train.csv, row 17, column pixel12: 256 is outside 0–255."
    Path("toy.py").write_text("print('last words')\n1 / 0")
    with pytest.raises(StageError, match=r"(?s)last words.*ZeroDivisionError"):
        repro_stage("download")
    (tmp_path / "dvc.py").write_text(
        "import os; print('killed', flush=True); os.kill(os.getpid(), 9)"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(StageError, match=r"(?s)137.*killed"):
        repro_stage("download", pull=True)
    for document in ("", "stages:\n"):
        Path("dvc.yaml").write_text(document)
        with pytest.raises(CganError, match=r"dvc\.yaml: no stages"):
            dvc.choose(None)


@contextlib.contextmanager
def slow_repro(stage: str) -> Iterator[subprocess.Popen[bytes]]:
    """`dvc repro` by somebody else, with a slow stage that is running when the block begins."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # of an activated environment
    with Path("other.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-um", "dvc", "repro"],
            env={**os.environ, "PYTHONUNBUFFERED": "1", "SLOW": stage, "PATH": path},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        while "step 0" not in Path("other.log").read_text():
            assert process.poll() is None
            time.sleep(0.05)
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_cancelling_ends_the_whole_process_group_even_if_it_is_deaf(
    repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLOW", "download")
    monkeypatch.setenv("DEAF", "1")
    monkeypatch.setattr(dvc, "GRACE_S", 1)
    lines: list[str] = []

    def cancel_at_step_2(line: str) -> None:
        lines.append(line)
        if "step 2" in line:
            raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        repro_stage("download", cancel_at_step_2)
    assert time.monotonic() - started < 10
    child = re.search(r"process (\d+)", "\n".join(lines))
    assert child
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(int(child[1])).wait(5)


def test_f46_a_stage_that_starts_after_the_run_was_told_to_end_ends_too(
    repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLOW", "train")
    with contextlib.closing(dvc.Repro()) as run:
        run.stage("download", quiet)
        threading.Timer(0.02, run.stdin.close).start()
        started = time.monotonic()
        with pytest.raises(StageError):
            run.stage("train", quiet)
    assert time.monotonic() - started < 10


def python(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def command(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return python("-m", "flows.pipeline", *arguments, **environment)


def test_f67_a_stage_ends_with_a_flow_that_was_killed(repo: Path) -> None:
    code = "from flows.dvc import *; Repro().stage('download', print)"
    with python("-c", code, SLOW="download") as flow:
        assert flow.stdout
        assert any("step 2" in line for line in flow.stdout)
        with pytest.raises(BusyError, match="flow run or sweep of this project"):
            dvc.check_free()
        children = psutil.Process(flow.pid).children(recursive=True)
        flow.kill()
    assert len(children) >= 3, "guard, dvc, stage"
    assert psutil.wait_procs(children, timeout=10)[1] == []
    assert Path("saved").exists()


SLOW_LOCK = """
import builtins, time
plain = builtins.open

def slow(file, mode="r", *args, **kwargs):
    opened = plain(file, mode, *args, **kwargs)
    if str(file).endswith("dvc.lock") and "w" in mode:
        time.sleep(1.5)  # it is empty now
    return opened

builtins.open = slow
"""


def test_f90_a_run_that_is_ended_while_dvc_writes_dvc_lock_leaves_it_whole(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(SLOW_LOCK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    sizes = []

    def end_at_the_update(line: str) -> None:
        if "lock file" in line:
            time.sleep(0.7)
            sizes.append(Path("dvc.lock").stat().st_size)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        repro_stage("download", end_at_the_update)
    assert sizes[0] == 0, "it was ended in the middle of the write"
    assert set(yaml.safe_load(Path("dvc.lock").read_text())["stages"]) == {"download"}
    assert repro_stage("download") == Outcome.UNCHANGED


WORKER = """
import os, subprocess, sys, time
watch = "import flows.checkout as w, time; w.begin(); print('up', flush=True); time.sleep(60)"
names = {"PREFECT__WORKER_NAME": "w", "CGAN_WORKER_PROCESS": sys.argv[1] or str(os.getpid())}
child = subprocess.Popen([sys.executable, "-c", watch], env={**os.environ, **names})
print(child.pid, flush=True)
time.sleep(60)
"""


def test_f90_a_run_ends_with_its_worker_though_nobody_buries_it_or_it_was_gone_before() -> None:
    with python("-c", WORKER, "") as worker:
        assert worker.stdout
        run = psutil.Process(int(worker.stdout.readline()))
        assert worker.stdout.readline() == "up\n"
        time.sleep(1.5)
        assert run.is_running(), "while its worker lives, it does"
        worker.kill()  # and stays a zombie
        assert psutil.wait_procs([run], timeout=10)[1] == []
    gone = subprocess.Popen(["true"])
    gone.wait()
    with python("-c", WORKER, str(gone.pid)) as other:  # who is the parent then
        assert other.stdout
        run = psutil.Process(int(other.stdout.readline()))
        wait_until(lambda: run.status() == psutil.STATUS_ZOMBIE, 20)
        other.kill()


def test_f90_a_log_that_nobody_reads_any_more_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code = """
import flows.pipeline
from pathlib import Path
from rich.console import Console
console = Console()
for _ in range(10_000):
    console.print("a line of the log")
Path("done").touch()
"""
    run = python("-c", code)
    assert run.stdout
    run.stdout.readline()
    run.stdout.close()
    run.wait(60)
    assert (tmp_path / "done").exists()


def test_f90_a_lock_that_dvc_cannot_read_is_told_with_the_command_that_helps(
    repo: Path,
) -> None:
    repro_stage("download")
    git(repo, "add", ".")
    git(repo, "commit", "--quiet", "--message", "results")
    for damage in ("", "<<<<<<< HEAD\n", "- a\n"):
        whole = Path("dvc.lock").read_text() if "<" in damage else ""
        Path("dvc.lock").write_text(damage + whole)
        with pytest.raises(StageError, match=r"`git checkout dvc\.lock`") as refused:
            repro_stage("download")
        _, *restore = shlex.split(str(refused.value).split("`")[1])
        git(repo, *restore)
    rwlock = Path(".dvc/tmp/rwlock")
    rwlock.write_text("")
    with pytest.raises(StageError, match=r"`rm \.dvc/tmp/rwlock`"):
        repro_stage("download")
    rwlock.unlink()
    assert repro_stage("download") == Outcome.UNCHANGED


# params.yaml


def test_a_set_option_is_read_as_dvc_reads_it() -> None:
    values = {"1e-3": 0.001, "3": 3, "true": True, "deconv": "deconv", "": None}
    for text, value in values.items():
        parsed = parse_override(f"train.lr={text}")[1]
        assert (parsed, type(parsed)) == (value, type(value))
    with pytest.raises(CganError, match="KEY=VALUE"):
        parse_override("train.lr")


# The flow


def artifacts(state: Any) -> dict[str, str]:
    run = {"any_": [str(state.state_details.flow_run_id)]}
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=ArtifactFilter(flow_run_id=run))  # type: ignore[arg-type]
    return {str(artifact.key): str(artifact.data) for artifact in found}


def outcomes(state: Any) -> list[str]:
    stages = artifacts(state)["run"].partition("\n\n")[0]
    return [line.split(" | ")[1].rstrip(" |") for line in stages.splitlines()[2:]]


def test_the_verdict_names_the_run_s_state_and_artifacts_show_what_there_is(
    prefect: None, repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = pipeline(overrides={"train.lr": 0.5}, return_state=True)
    assert (state.name, state.type.value) == ("Promoted", "COMPLETED")
    assert (state.message or "").startswith("version 3 is promoted: accuracy is 99.4 %")
    assert "trained a new generator" in str(state.message)
    assert outcomes(state) == ["ran"] * 3
    verdict = artifacts(state)["verdict"]
    assert verdict.startswith("# version 3 is promoted") and "](data:image/png;base64," in verdict
    assert yaml.safe_load(Path("params.yaml").read_text())["train"]["lr"] == 0.5
    context = json.loads(Path("attempts.log").read_text().splitlines()[0].partition(" ")[2])
    assert context.keys() == {"prefect.flow_run_id", "prefect.flow_run_name"}
    assert context["prefect.flow_run_id"] == str(state.state_details.flow_run_id)
    named = r"\d\d \w{3} \d\d:\d\d · train.lr=0.5"
    assert re.fullmatch(named, context["prefect.flow_run_name"])

    # A refresh that finds the same data; a page of MLflow's server.
    reference = {"run_id": "abc", "run_name": "c|gan", "tracking_uri": "http://127.0.0.1:5000"}
    RUN_REFERENCE.write_text(json.dumps(reference))
    monkeypatch.setenv("VERDICT", "unchanged")
    state = pipeline(refresh=True, return_state=True)
    assert (state.name, state.type.value) == ("Unchanged", "COMPLETED")
    assert "99.4 % show the class asked for" in str(state.message)
    assert outcomes(state) == ["ran", "unchanged", "unchanged"]
    shown = artifacts(state)["run"]
    # A picture in text: below an image artifact, Prefect writes the whole address as a link.
    assert "![A row for each class](data:image/png;base64," in shown
    assert "| conditional accuracy | 0.9941 |  | 1.0 | " in shown
    assert "http://127.0.0.1:5000/#/experiments/0/runs/abc/artifacts/run.html" in shown

    # Some stages, which judge nothing.
    RUN_REFERENCE.write_text(json.dumps(reference | {"tracking_uri": "sqlite:///mlflow.db"}))
    Path("reports/gate.json").unlink()
    state = pipeline(stages=["train", "download"], return_state=True)
    assert outcomes(state) == ["unchanged"] * 2
    shown = artifacts(state)["run"]
    assert "make ui" in shown and "c\\|gan" in shown
    assert not Path("reports/gate.json").exists()

    # An evaluation of another version.
    Path("reports/evaluation.json").write_text('{"conditional_accuracy": 1}')
    assert in_words({"train": "ran"}) == "trained a new generator"


def test_a_stage_or_a_gate_that_fails_fails_the_run_with_its_message_and_is_not_tried_again(
    prefect: None, repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIL", "train")
    state = pipeline(return_state=True)
    assert state.is_failed()
    assert state.message == (
        "Stage `train`: data/raw/train.csv, row 17, column pixel12: 256 is outside 0–255."
    )
    assert outcomes(state) == ["ran", "failed"]
    monkeypatch.setenv("FAIL", "")
    monkeypatch.setenv("VERDICT", "away")
    state = pipeline(return_state=True)
    assert state.is_failed()
    assert state.message == "Gate: the store is away. Start it."
    assert outcomes(state) == ["unchanged", "ran", "ran"]
    assert attempts() == ["download", "train", "train", "evaluate"]


@pytest.mark.slow
def test_results_of_a_run_in_a_checkout_are_pushed_and_a_push_that_fails_fails_it(
    prefect: None, repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    store.write_text("no folder")
    dvc_in(repo, "remote", "add", "--local", "--default", "storage", str(store))
    monkeypatch.setitem(flow.WHILE_AWAY, "retries", 0)
    monkeypatch.setenv("CGAN_CHECKOUT", str(tmp_path / "removed at the end"))
    failed = pipeline(return_state=True)
    assert failed.is_failed() and str(failed.message).startswith("dvc push: ")
    assert outcomes(failed) == ["ran"] * 3
    store.unlink()
    monkeypatch.setenv("VERDICT", "unchanged")
    assert pipeline(return_state=True).name == "Unchanged"
    assert (store / "files").is_dir() and (store / "runs").is_dir(), "the next run makes up for it"


def test_f71_a_flow_waits_for_another_repro_names_it_after_the_last_try_and_then_finds_all_done(
    prefect: None, repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(flow.WHILE_BUSY, "retries", 2)
    monkeypatch.setitem(flow.WHILE_BUSY, "retry_delay_seconds", 0.1)
    with slow_repro("train") as other:
        state = pipeline(overrides={"train.seed": 3}, return_state=True)
        busy = rf"busy(.|\n)*PID {other.pid}(.|\n)*repro"
        assert state.is_failed() and re.search(busy, str(state.message))
        seed = yaml.safe_load(Path("params.yaml").read_text())["train"]["seed"]
        assert seed == 1, "params.yaml must not change under a running stage"
        monkeypatch.setitem(flow.WHILE_BUSY, "retries", 60)
        monkeypatch.setitem(flow.WHILE_BUSY, "retry_delay_seconds", 1)
        threading.Timer(2, Path("enough").touch).start()
        state = pipeline(return_state=True)
        assert other.wait(timeout=30) == 0
    assert outcomes(state) == ["unchanged"] * 3
    assert attempts() == ["download", "train", "evaluate"]
    dvc.check_free()


# The command line


def test_f66_a_configured_server_that_is_away_is_one_clear_message(repo: Path) -> None:
    process = command(PREFECT_API_URL="http://127.0.0.1:9/api")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    (line,) = output.strip().splitlines()
    assert line.startswith(
        "Error: Prefect's API at http://127.0.0.1:9/api cannot be used (ConnectError"
    )
    assert attempts() == []


def test_prefect_keeps_its_files_in_the_project_where_home_cannot_be_written(repo: Path) -> None:
    output, _ = command("--help", HOME="/proc/nowhere").communicate(timeout=60)
    assert output.startswith("usage:"), "no warning of Prefect's, and 24 tracebacks in a run"
    assert (repo / ".cgan/prefect").is_dir()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "code"), [("INT", 130), ("TERM", 143), ("KILL", -9)])
def test_f46_a_signal_ends_the_stage_and_the_temporary_server(
    repo: Path, tmp_path: Path, name: str, code: int
) -> None:
    with command(SLOW="train", PREFECT_HOME=str(tmp_path / "prefect")) as process:
        assert process.stdout
        assert any("train: step 1" in line for line in process.stdout)
        children = psutil.Process(process.pid).children(recursive=True)
        assert any("uvicorn" in child.cmdline() for child in children)
        assert len(children) >= 3, "server, dvc, stage"
        # A terminal sends Ctrl-C to the whole group, the server included.
        (os.killpg if name == "INT" else os.kill)(process.pid, signal.Signals[f"SIG{name}"])
        if name != "KILL":
            output, _ = process.communicate(timeout=120)  # Prefect's end takes a minute at times
            assert "train: saved a checkpoint" in output
            assert "Traceback" not in output
    assert process.returncode == code
    assert psutil.wait_procs(children, timeout=20)[1] == []
