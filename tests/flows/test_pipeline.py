"""The flow: its tasks, its states, and what it starts. The last test runs toy stages."""

import contextlib
import json
import re
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from conftest import ROOT, wait_until
from prefect import __version__ as prefect_version
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, FlowRunFilter
from prefect.client.schemas.objects import FlowRun

from cgan.base.errors import CganError
from cgan.base.files import write_bytes
from flows import pipeline as flow
from flows.children import run_child
from flows.pipeline import pipeline

STAGES = list(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])
SCORE = {"name": "conditional accuracy", "value": 0.9941, "real": 1.0}
OUTPUTS = {
    "models/mlflow_run.json": {"run_id": "abc", "experiment_id": "1", "tracking_uri": "sqlite:///"},
    "reports/evaluation.json": {"metrics": {"conditional_accuracy": SCORE}, "context": {}},
    "samples/grid.png": {},
}


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Prefect's server. To make its tables takes half of its start, so a database with them is kept."""
    from prefect.testing import utilities  # imports all of the server

    folder = tmp_path_factory.mktemp("prefect")
    database, kept = folder / "prefect-test.db", ROOT / f".cgan/tests/prefect-{prefect_version}.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utilities, "mkdtemp", lambda: str(folder))
        if kept.exists():
            shutil.copyfile(kept, database)
        with utilities.prefect_test_harness(server_startup_timeout=400):
            if not kept.exists():
                with contextlib.closing(sqlite3.connect(database)) as now:
                    write_bytes(kept, now.serialize())
            yield


def gates_at_work() -> int:
    """Of those on all machines of a Prefect server, which takes one at a time."""
    with get_client(sync_client=True) as client:
        limits = client.read_global_concurrency_limits()
    assert all((limit.name, limit.limit) == ("cgan-gate", 1) for limit in limits)
    return sum(limit.active_slots for limit in limits)


class Children:
    """What stands in the place of DVC and `cgan gate`: notes what was started, and may fail."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.stale = STAGES
        self.failing, self.verdict = "", "promoted"
        self.gates = 0

    def start(self, *module: str, **_: Any) -> None:
        name = module[3] if module[:2] == ("dvc", "repro") else module[1]
        self.started.append(" ".join((name, *module[4:])))
        if name == self.failing:
            raise CganError("row 17, column pixel12: 256 is outside 0–255.")
        if name == "gate":
            self.gates = gates_at_work()
            report = {"verdict": self.verdict, "sentence": f"version 3 is {self.verdict}"}
            Path("reports/gate.json").write_text(json.dumps(report))
            Path("reports/gate.md").write_text(f"# version 3 is {self.verdict}")


@pytest.fixture
def children(prefect: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Children:
    """In a working directory with the outputs of a run."""
    for name, content in OUTPUTS.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_PORT", "5300")
    stand_in = Children()
    monkeypatch.setattr(flow, "run_child", stand_in.start)
    monkeypatch.setattr(flow, "stale_stages", lambda: {*stand_in.stale})
    monkeypatch.setattr(flow, "has_remote", Path("remote").exists)
    monkeypatch.setattr(flow, "push", flow.push.with_options(retries=0))
    return stand_in


def flow_run(state: Any) -> FlowRun:
    """What Prefect's page shows."""
    with get_client(sync_client=True) as client:
        return client.read_flow_run(state.state_details.flow_run_id)


def artifact(state: Any) -> str:
    run = {"flow_run_id": {"any_": [state.state_details.flow_run_id]}}
    with get_client(sync_client=True) as client:
        (found,) = client.read_artifacts(artifact_filter=ArtifactFilter.model_validate(run))
    assert found.key == "run"
    return str(found.data)


def assert_tasks(state: Any, expected: dict[str, str]) -> None:
    """The names of the tasks' states. They come to the server as events, a moment later."""
    run = FlowRunFilter.model_validate({"id": {"any_": [state.state_details.flow_run_id]}})

    def found() -> dict[str, str]:
        runs = client.read_task_runs(flow_run_filter=run)
        return {each.name.rpartition("-")[0]: str(each.state_name) for each in runs}

    with get_client(sync_client=True) as client:
        wait_until(lambda: found() == expected)


def test_a_run_has_its_stages_verdict_and_drawings(children: Children) -> None:
    state = pipeline(overrides={"train.lr": 0.5}, return_state=True)
    assert (state.name, state.type.value) == ("Promoted", "COMPLETED")
    assert state.message == "version 3 is promoted"
    assert_tasks(state, dict.fromkeys(STAGES, "Completed") | {"gate": "Promoted"})
    assert children.started == [*STAGES, "gate"]
    assert (children.gates, gates_at_work()) == (1, 0), "that of another machine would wait"
    shown = artifact(state)
    assert shown.count("version 3 is promoted") == 1 and "](data:image/png;base64," in shown
    assert "](http://127.0.0.1:5300/#/experiments/1/runs/abc?" in shown
    assert yaml.safe_load(Path("params.yaml").read_text())["train"]["lr"] == 0.5
    assert re.fullmatch(r"\d\d \w{3} \d\d:\d\d · train.lr=0.5", flow_run(state).name)


def test_what_is_blocked_is_said(children: Children) -> None:
    """And what is not stale ends at once, but for data that are fetched again."""
    children.stale, children.verdict = [], "blocked"
    state = pipeline(refresh=True, return_state=True)
    assert (state.name, state.type.value) == ("Blocked", "COMPLETED")
    assert state.message == "version 3 is blocked"
    again = {"download": "Completed", "gate": "Blocked"}
    assert_tasks(state, dict.fromkeys(STAGES, "Unchanged") | again)
    assert children.started == ["download --force", "gate"]
    assert children.gates == 0, "with nothing new it waits for nobody"


def test_without_the_gate_a_run_says_the_quality(children: Children) -> None:
    """And what is behind a stale stage counts as stale: DVC knows more when that has run."""
    children.stale = ["train"]
    state = pipeline(gate=False, return_state=True)
    assert state.name == "Completed" and "99.4 %" in str(state.message)
    assert "| conditional accuracy | 99.4 % " in artifact(state)
    assert children.started == STAGES[STAGES.index("train") :]


@pytest.mark.parametrize(("failing", "where"), [("validate", "Stage `validate`"), ("gate", "Gate")])
def test_what_fails_ends_the_run_with_its_message(
    children: Children, failing: str, where: str
) -> None:
    children.failing = failing
    state = pipeline(return_state=True)
    assert state.is_failed()
    assert state.message == f"{where}: row 17, column pixel12: 256 is outside 0–255."
    assert children.started[-1] == failing, "once, and nothing after it"


@pytest.mark.parametrize("failing", ["", "record", "push"])
def test_the_next_checkout_begins_with_this_one_s_results(
    children: Children, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    """Also where MLflow or the remote is away."""
    monkeypatch.setenv("CGAN_CHECKOUT", str(tmp_path))
    monkeypatch.setenv("CGAN_HOME", str(tmp_path / "home"))
    Path("remote").touch()
    Path("dvc.lock").write_text("of this run")
    children.failing = failing
    state = pipeline(return_state=True)
    assert Path("home/dvc.lock").read_text() == "of this run"
    assert "train --pull" in children.started
    assert state.is_failed() == bool(failing)
    if failing == "push":
        assert "version 3 is promoted" in str(state.message)


def test_a_failure_says_its_last_error_or_its_last_lines(tmp_path: Path) -> None:
    lines = [str(number) for number in range(30)]
    for output, message in (
        (["Error: one", "two", "Error: three", "four"], "Error: three\nfour"),
        (lines, "\n".join(lines[10:])),
        ([], "ended with exit code 7"),
    ):
        Path(tmp_path, "failing.py").write_text(f"print(*{output}, sep='\\n'); raise SystemExit(7)")
        with pytest.raises(CganError) as caught:
            run_child("failing", on_line=lambda _: None, folder=tmp_path)
        assert str(caught.value) == message
    run_child("failing", on_line=lambda _: None, folder=tmp_path, exit_codes=(0, 7))


@pytest.mark.parametrize("deaf", ["", "1"])
def test_what_ends_a_run_ends_all_that_it_started(
    repo: Path, monkeypatch: pytest.MonkeyPatch, deaf: str
) -> None:
    monkeypatch.setenv("SLOW", "params")
    monkeypatch.setenv("DEAF", deaf)
    monkeypatch.setattr("flows.children.CHECKPOINT_S", 1 if deaf else 120)
    lines: list[str] = []

    def cancel_at_step_2(line: str) -> None:
        lines.append(line)
        if "step 2" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_child("dvc", "repro", "--single-item", "params", on_line=cancel_at_step_2)
    child = re.search(r"process (\d+)", "\n".join(lines))
    assert child
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(int(child[1])).wait(60)
    assert Path("saved").exists() is not bool(deaf)
