"""The flow, on a real DVC repository whose stages take a moment, with a real Prefect server."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from conftest import ROOT
from prefect import State
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter
from prefect.states import Completed, Failed
from prefect.testing.utilities import prefect_test_harness
from toy_project import repo as repo
from toy_project import template as template

from cgan.errors import CganError
from cgan.params.editing import set_params
from flows import dvc as repro
from flows import pipeline as flow_module
from flows.artifacts import StageResult
from flows.dvc import BusyError, Outcome, StageError, read_stages, repro_stage
from flows.pipeline import pipeline, reevaluate
from flows.remote import RemoteError

pytestmark = [
    # Prefect's own: connections of its background threads, closed by the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:prefect|websockets|httpx"),
]


def with_python() -> str:
    """A PATH on which `python` is this one, as an engineer's activated environment has it."""
    return f"{Path(sys.executable).parent}:{os.environ['PATH']}"


def dvc(*arguments: str) -> str:
    command = [sys.executable, "-m", "dvc", *arguments]
    environment = {**os.environ, "PATH": with_python()}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout


def is_gone(process: int) -> bool:
    for _ in range(40):
        try:
            if psutil.Process(process).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.05)
    return False


@pytest.fixture(scope="module")
def prefect() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=60):
        yield


def quiet(_: str) -> None: ...


def run_all() -> list[Outcome]:
    return [repro_stage(stage.name, quiet) for stage in read_stages()]


def attempts() -> list[str]:
    """The stages whose command started, in order."""
    log = Path("attempts.log")
    return [line.split()[0] for line in log.read_text().splitlines()] if log.exists() else []


# DVC's side


def test_stages_come_in_the_order_of_what_reads_what(repo: Path) -> None:
    stages = read_stages()
    assert [stage.name for stage in stages] == ["download", "train", "evaluate"]
    assert [sorted(stage.upstream) for stage in stages] == [[], ["download"], ["train"]]


def test_a_stage_is_ran_then_unchanged_then_restored(repo: Path) -> None:
    assert run_all() == [Outcome.RAN] * 3
    assert run_all() == [Outcome.UNCHANGED] * 3
    set_params({"train.seed": 2})
    assert repro_stage("train", quiet) == Outcome.RAN
    set_params({"train.seed": 1})
    assert repro_stage("train", quiet) == Outcome.RESTORED
    assert repro_stage("download", quiet, force=True) == Outcome.RAN


def test_one_dvc_runs_all_stages_and_each_line_comes_with_its_stage(
    repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: list[Any] = []
    start = repro._start
    monkeypatch.setattr(repro, "_start", lambda *a, **k: starts.append(a[0]) or start(*a, **k))
    names = [stage.name for stage in read_stages()]
    with contextlib.closing(repro.Repro(names)) as run:
        for name in names:
            lines: list[str] = []
            assert run.stage(name, lines.append) == Outcome.RAN
            assert lines[0] == f"Running stage '{name}':"
            assert {line.split(":")[0] for line in lines if "process" in line} == {name}
    assert len(starts) == 1
    with contextlib.closing(repro.Repro(names, stops={"train"})) as run:
        assert run.stage("download", quiet, force=True) == Outcome.RAN
        assert run.stage("train", quiet) == Outcome.UNCHANGED
        assert run.stage("train", quiet, force=True) == Outcome.RAN
        assert run.stage("evaluate", quiet) == Outcome.UNCHANGED
    assert len(starts) == 5, "a stage that may be run again is waited for, and so is a forced one"
    Path("models/generator.safetensors").unlink()
    with contextlib.closing(repro.Repro(["download", "evaluate"])) as run:
        assert run.stage("download", quiet) == Outcome.UNCHANGED, "not blamed for what follows"
        with pytest.raises(StageError, match=r"failed to reproduce 'evaluate'.*generator"):
            run.stage("evaluate", quiet)


def test_lines_arrive_while_the_stage_runs(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAIT_FOR", "heard")  # fails when nobody answers the first line
    lines: list[str] = []

    def answer(line: str) -> None:
        lines.append(line)
        if "process" in line:
            Path("heard").touch()

    assert repro_stage("download", answer) == Outcome.RAN
    assert f" of {Path(sys.executable).parent}/" in "".join(lines), (
        "a stage's `python` is the flow's interpreter"
    )


def test_a_failed_stage_raises_its_own_message_alone(
    repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIL", "download")
    with pytest.raises(StageError) as error:
        repro_stage("download", quiet)
    assert str(error.value) == "data/raw/train.csv, row 17, column pixel12: 256 is outside 0–255."


def test_a_stage_that_dies_without_a_message_shows_its_last_lines(repo: Path) -> None:
    Path("toy.py").write_text("print('last words')\n1 / 0")
    with pytest.raises(StageError, match=r"(?s)last words.*ZeroDivisionError"):
        repro_stage("download", quiet)


@contextlib.contextmanager
def slow_repro(stage: str, seconds: int = 30) -> Iterator[subprocess.Popen[bytes]]:
    """`dvc repro` by somebody else, with a slow stage that is running when the block begins."""
    environment = {"SLOW": stage, "SECONDS": str(seconds), "PATH": with_python()}
    with Path("other.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-um", "dvc", "repro"],
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
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


def test_f71_a_second_repro_names_the_process_in_its_way(repo: Path) -> None:
    with slow_repro("download") as process:
        for attempt in (lambda: repro_stage("train", quiet), repro.check_free):
            with pytest.raises(BusyError, match=rf"dvc.* repro.*process {process.pid}"):
                attempt()
    repro.check_free()


@pytest.mark.parametrize("deaf", [False, True])
def test_cancelling_ends_the_whole_process_group(
    repo: Path, monkeypatch: pytest.MonkeyPatch, deaf: bool
) -> None:
    monkeypatch.setenv("SLOW", "download")
    monkeypatch.setattr(repro, "GRACE_S", 1.0 if deaf else 20.0)
    if deaf:
        monkeypatch.setenv("DEAF", "1")
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
    assert is_gone(int(child[1]))
    assert ("download: saved a checkpoint" in lines) is not deaf


def test_f67_a_stage_ends_with_a_flow_that_was_killed(
    repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLOW", "download")
    flow = subprocess.Popen(
        [sys.executable, "-c", "from flows import dvc; dvc.repro_stage('download', print)"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert flow.stdout
    with flow.stdout as output:
        children = next(
            psutil.Process(flow.pid).children(recursive=True) for line in output if "step 2" in line
        )
        flow.kill()
        flow.wait()
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
    assert repro_stage("download", quiet) == Outcome.UNCHANGED


def test_a_run_in_a_checkout_knows_the_environment_s_remote_before_its_first_stage(
    repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CGAN_REMOTE", "https://name:secret@host/folder")
    assert flow_module._run_stages([], False, []) is None, "nothing is brought to a person's tree"
    monkeypatch.setenv("CGAN_CHECKOUT", str(repo))
    failed = flow_module._run_stages([], False, [])
    assert failed is not None and "CGAN_REMOTE holds a password" in str(failed.message)
    monkeypatch.setenv("CGAN_REMOTE", str(repo.parent / "remote"))
    assert flow_module._run_stages([], False, []) is None
    assert str(repo.parent / "remote") in Path(".dvc/config.local").read_text()


def test_a_refresh_forces_the_stage_that_fetches_and_no_other(
    repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forced: dict[str, bool] = {}

    def attempt(_: Any, repro: Any, stage: str, force: bool) -> State[Any]:
        forced[stage] = force
        return Failed() if stage == "evaluate" else Completed(data=Outcome.UNCHANGED)

    monkeypatch.setattr(flow_module, "_attempt", attempt)
    flow_module._run_stages(flow_module.choose(flow_module.read_stages(), None), True, [])
    assert forced == {"download": True, "train": False, "evaluate": False}


def test_a_delivery_that_fails_fails_the_run_and_is_made_up_for_by_the_next(
    repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed: list[list[str]] = []

    def push(_: Any, stages: list[str]) -> str:
        pushed.append(stages)
        if len(pushed) == 1:
            raise RemoteError("ssh://nas/cgan: it does not answer.")
        return "1 file"

    task = flow_module.tasks.deliver.fn
    monkeypatch.setattr(flow_module.tasks, "deliver", lambda *asked, return_state: task(*asked))
    monkeypatch.setattr(flow_module.remote, "push", push)
    for name, value in {"NAME": "nightly", "ID": "12345678", "RUN_COUNT": "1"}.items():
        monkeypatch.setenv(f"PREFECT__RUNTIME__FLOW_RUN__{name}", value)
    monkeypatch.setenv("CGAN_REMOTE", str(repo.parent / "remote"))
    first = [StageResult("train", Outcome.RAN, 1.0), StageResult("evaluate", "failed", 1.0)]
    again = [StageResult("train", Outcome.RESTORED, 1.0)]
    assert flow_module._deliver(first, whole=False) is None, "of a person's tree"
    monkeypatch.setenv("CGAN_CHECKOUT", str(repo))
    failed = flow_module._deliver(first, whole=False)
    assert failed is not None and failed.is_failed()
    assert "it does not answer. The results are in DVC's cache" in str(failed.message)
    assert flow_module._deliver(again, whole=False) is None
    assert flow_module._deliver(again, whole=False) is None, "and not again every night"
    assert pushed == [["train"], ["train"]]
    monkeypatch.setenv("PREFECT__RUNTIME__FLOW_RUN__RUN_COUNT", "2")  # it was cut off before
    assert flow_module._deliver(again, whole=False) is None
    assert len(pushed) == 3


WORKER = """
import os, subprocess, sys, time
watch = "import flows.checkout as w, time; w.begin(); print('up', flush=True); time.sleep(60)"
child = subprocess.Popen([sys.executable, "-c", watch], env={**os.environ, "PREFECT__WORKER_NAME": "w"})
print(child.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("started_by", ["worker start", "flow-run execute"])
def test_f90_a_run_ends_with_its_worker_though_nobody_buries_it(started_by: str) -> None:
    """Prefect's command in a container of the run's own counts as one."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", WORKER, *started_by.split()]
    worker = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert worker.stdout
    with worker.stdout as output:
        run = psutil.Process(int(output.readline()))
        assert output.readline() == "up\n"
        time.sleep(1.5)
        assert run.is_running(), "while its worker lives, it does"
        worker.kill()  # and stays a zombie: psutil has no command line of it
        assert psutil.wait_procs([run], timeout=10)[1] == []
    worker.wait()


def test_f90_a_log_that_nobody_reads_any_more_ends_no_run(tmp_path: Path) -> None:
    write = """
import flows.pipeline
from pathlib import Path
from rich.console import Console
console = Console()
for _ in range(10_000):
    console.print("a line of the log")
Path("done").touch()
"""
    run = subprocess.Popen(
        [sys.executable, "-c", write],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert run.stdout
    run.stdout.readline()
    run.stdout.close()
    run.wait(60)
    assert (tmp_path / "done").exists()


# params.yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [("train.lr=1e-3", 0.001), ("a=3", 3), ("a=true", True), ("a=deconv", "deconv"), ("a=", None)],
)
def test_a_set_option_is_read_as_dvc_reads_it(text: str, value: Any) -> None:
    _, parsed = flow_module._parse_override(text)
    assert (parsed, type(parsed)) == (value, type(value))


def test_a_set_option_without_a_value_is_refused() -> None:
    with pytest.raises(CganError, match="KEY=VALUE"):
        flow_module._parse_override("train.lr")


# The flow


def artifacts(state: Any) -> dict[str, Any]:
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(
            artifact_filter=ArtifactFilter(
                flow_run_id={"any_": [str(state.state_details.flow_run_id)]}  # type: ignore[arg-type]
            )
        )
    return {artifact.key: artifact.data for artifact in found}


def outcomes(state: Any) -> list[str]:
    return [row["what happened"] for row in json.loads(artifacts(state)["stages"])]


@pytest.mark.slow
def test_flow_and_dvc_repro_agree_in_both_directions(prefect: None, repo: Path) -> None:
    first = pipeline(return_state=True, gate=False)
    assert first.message == "trained a new generator; conditional accuracy 0.994"
    assert outcomes(first) == ["ran"] * 3
    assert "up to date" in dvc("status")
    assert "Running stage" not in dvc("repro")

    set_params({"evaluate.seed": 5})
    dvc("repro")
    second = pipeline(return_state=True, gate=False)
    assert (second.name, second.type.value) == ("Unchanged", "COMPLETED")
    assert second.message == (
        "every result was there already, nothing was trained; conditional accuracy 0.994"
    )
    assert outcomes(second) == ["unchanged"] * 3
    assert attempts() == ["download", "train", "evaluate", "evaluate"]


@pytest.mark.slow
def test_artifacts_show_the_picture_the_metrics_and_the_mlflow_run(
    prefect: None, repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_all()
    reference = {"run_id": "abc", "experiment": "cgan", "tracking_uri": "http://127.0.0.1:5000"}
    Path("models/mlflow_run.json").write_text(json.dumps(reference))
    Path("reports/run.html").write_text("<html>")
    shown = artifacts(pipeline(return_state=True, gate=False))
    # A picture in text: below an image artifact, Prefect writes the whole address as a link.
    assert shown["sample-grid"].startswith("![A row for each class](data:image/png;base64,")
    (row,) = json.loads(shown["metrics"])
    assert (row["metric"], row["value"]) == ("quality.conditional_accuracy", 0.9941)
    assert "class asked for" in row["in plain words"]
    assert "http://127.0.0.1:5000/#/experiments/0/runs/abc" in shown["mlflow-run"]
    assert "/#/experiments/0/runs/abc/artifacts/run.html" in shown["run-page"]

    reference["tracking_uri"] = "sqlite:///mlflow.db"
    Path("models/mlflow_run.json").write_text(json.dumps(reference))
    shown = artifacts(pipeline(return_state=True, stages=["download"]))
    assert "make ui" in shown["mlflow-run"]
    assert "reports/run" in shown["run-page"], "on the disk"

    monkeypatch.setenv("CGAN_MLFLOW_PAGE", "http://127.0.0.1:5001")
    shown = artifacts(pipeline(return_state=True, stages=["download"]))
    assert "http://127.0.0.1:5001/#/experiments/0/runs/abc" in shown["mlflow-run"]


def test_a_failed_stage_fails_the_flow_with_its_message_and_is_not_tried_again(
    prefect: None, repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIL", "train")
    state = pipeline(return_state=True)
    assert state.is_failed()
    assert state.message == (
        "Stage `train`: data/raw/train.csv, row 17, column pixel12: 256 is outside 0–255."
    )
    assert outcomes(state) == ["ran", "failed"]
    assert attempts() == ["download", "train"]


@pytest.mark.slow
def test_refresh_fetches_again_and_unchanged_data_trains_nothing(prefect: None, repo: Path) -> None:
    run_all()
    state = pipeline(refresh=True, return_state=True)
    assert outcomes(state) == ["ran", "unchanged", "unchanged"]
    assert "nothing was trained" in (state.message or "")


@pytest.mark.parametrize(
    ("verdict", "name"),
    [
        ("promoted", "Promoted"),
        ("blocked", "Blocked"),
        pytest.param("passed", "Passed", marks=pytest.mark.slow),
    ],
)
def test_after_all_stages_the_gate_s_verdict_names_the_run_s_state(
    prefect: None, repo: Path, monkeypatch: pytest.MonkeyPatch, verdict: str, name: str
) -> None:
    monkeypatch.setenv("VERDICT", verdict)
    state = pipeline(return_state=True)
    assert (state.name, state.type.value) == (name, "COMPLETED")
    assert (state.message or "").startswith(f"version 3 is {verdict}: accuracy is 99.4 %")
    shown = artifacts(state)
    assert shown["verdict"].startswith(f"# version 3 is {verdict}: accuracy is 99.4 %")
    assert "](data:image/png;base64," in shown["verdict"]
    (row,) = json.loads(shown["metrics"])
    assert row["change"] == "+0.0123 (better)"


@pytest.mark.slow
@pytest.mark.parametrize("verdict", ["unchanged", "promoted"])
def test_a_refresh_that_finds_the_same_data_ends_unchanged_unless_the_gate_promotes_late(
    prefect: None, repo: Path, monkeypatch: pytest.MonkeyPatch, verdict: str
) -> None:
    run_all()
    monkeypatch.setenv("VERDICT", verdict)
    state = pipeline(refresh=True, return_state=True)
    assert attempts() == ["download", "train", "evaluate", "download"]
    assert (state.name, state.type.value) == (verdict.capitalize(), "COMPLETED")


def test_a_gate_that_cannot_judge_fails_the_run_and_keeps_the_stages(
    prefect: None, repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VERDICT", "away")
    state = pipeline(return_state=True)
    assert state.is_failed()
    assert state.message == "Gate: the store is away. Start it."
    assert outcomes(state) == ["ran"] * 3


def test_a_run_of_some_stages_judges_nothing_and_gets_no_branch(
    prefect: None, repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    branches: list[bool] = []
    monkeypatch.setattr(flow_module, "_deliver", lambda _, whole: branches.append(whole))
    pipeline(stages=["download"], return_state=True)
    assert not Path("reports/gate.json").exists()
    assert branches == [False]


@pytest.mark.parametrize("verdict", ["healthy", "drifted"])
def test_f19_the_weekly_run_fetches_again_and_fails_on_drift_with_its_statistic(
    prefect: None, repo: Path, monkeypatch: pytest.MonkeyPatch, verdict: str
) -> None:
    Path("dvc.yaml").write_text(Path("dvc.yaml").read_text().replace("  train:", "  validate:"))
    monkeypatch.setenv("VERDICT", verdict)
    state = reevaluate(return_state=True)
    assert attempts() == ["download", "train"]  # the toy validates by its training
    assert artifacts(state)["reevaluation"] == "# version 3"
    if verdict == "healthy":
        assert (state.name, state.message) == ("Healthy", "version 3 is healthy")
    else:
        assert state.is_failed()
        assert state.message == "the pixel mean moved by 0.31, at most 0.1 is allowed."


def test_overrides_are_written_and_the_children_know_their_flow_run(
    prefect: None, repo: Path
) -> None:
    state = pipeline(overrides={"train.lr": 0.5}, stages=["train", "download"], return_state=True)
    assert yaml.safe_load(Path("params.yaml").read_text())["train"]["lr"] == 0.5
    assert attempts() == ["download", "train"]
    context = json.loads(Path("attempts.log").read_text().splitlines()[0].partition(" ")[2])
    assert context["prefect.flow_run_id"] == str(state.state_details.flow_run_id)
    named = r"\d\d \w{3} \d\d:\d\d · train.lr=0.5 · stages train, download"
    assert re.fullmatch(named, context["prefect.flow_run_name"])
    assert context.keys() == {"prefect.flow_run_id", "prefect.flow_run_name"}


def test_an_unknown_stage_is_refused_with_the_known_ones(prefect: None, repo: Path) -> None:
    state = pipeline(stages=["trian"], return_state=True)
    assert state.is_failed()
    assert state.message == (
        "no stage named `trian`. The stages in dvc.yaml are: download, train, evaluate."
    )


@pytest.mark.slow
def test_f71_a_flow_waits_for_another_repro_and_then_finds_all_done(
    prefect: None, repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow_module, "BUSY_DELAY_S", 1)
    with slow_repro("train", seconds=3) as other:
        state = pipeline(return_state=True)
        assert other.wait(timeout=30) == 0
    assert outcomes(state) == ["unchanged"] * 3
    assert attempts() == ["download", "train", "evaluate"]


def test_waiting_for_another_repro_ends_after_the_last_try(
    prefect: None, repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow_module, "BUSY_DELAY_S", 0.1)
    monkeypatch.setattr(flow_module.tasks, "BUSY_RETRIES", 2)
    with slow_repro("train"):
        state = pipeline(overrides={"train.seed": 3}, return_state=True)
    assert state.is_failed()
    assert "another DVC process is at work" in (state.message or "")
    assert yaml.safe_load(Path("params.yaml").read_text())["train"]["seed"] == 1, (
        "params.yaml must not change under a running stage"
    )


# The command line


def command(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "flows.pipeline", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


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


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143)],
)
@pytest.mark.slow
def test_f46_a_signal_ends_the_stage_and_the_temporary_server(
    repo: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    process = command(SLOW="train", PREFECT_HOME=str(tmp_path / "prefect"))
    assert process.stdout
    output = ""
    for line in process.stdout:
        output += line
        if "train: step 1" in line:
            break
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 3, "server, dvc, stage"
    if number == signal.SIGINT:  # a terminal sends it to the whole group, the server included
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    rest, _ = process.communicate(timeout=120)  # Prefect's own end takes a minute on a busy machine
    output += rest
    assert process.returncode == code, output
    assert "train: saved a checkpoint" in output
    assert "Traceback" not in output
    assert psutil.wait_procs(children, timeout=5)[1] == []


@pytest.mark.slow
def test_a_killed_flow_leaves_no_temporary_server(repo: Path, tmp_path: Path) -> None:
    process = command(SLOW="download", PREFECT_HOME=str(tmp_path / "prefect"))
    assert process.stdout
    with process.stdout as output:
        assert any("download: step 1" in line for line in output)
        children = psutil.Process(process.pid).children(recursive=True)
        assert any("uvicorn" in child.cmdline() for child in children)
        process.kill()
        process.wait()
    assert psutil.wait_procs(children, timeout=20)[1] == []
