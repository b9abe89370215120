"""`cgan status` on a real store, and `cgan report` on damaged files."""

import contextlib
import http.server
import io
import json
import os
import shutil
import socket
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, on_a_thread
from rich.console import Console
from short_reports import json_form
from synthetic import a_model
from tracked import root as root

from cgan.cli import main
from cgan.errors import CganError
from cgan.evaluation import METRICS
from cgan.files import locked
from cgan.model.file_facts import read_facts
from cgan.pipeline.registry.client import LAST_DECIDED_AT, open_registry
from cgan.pipeline.registry.status import require_recent_decision, status
from cgan.pipeline.runs.report import rank_in_words, summary
from cgan.pipeline.tracking.tags import GENERATOR_SHA256_TAG, MEASUREMENT_TAG
from cgan.project import GENERATOR, TRAIN_LOCK, project_root

EVIL = "\x1b[2J\x1b]0;owned\x07[red]deconv[/red]"


@pytest.fixture(autouse=True)
def clone(root: Path) -> None:
    """The files of git that the screen reads, and an empty store; nothing made yet."""
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, root)


def screen(root: Path) -> str:
    output = io.StringIO()
    status(root, Console(file=output, width=20, highlight=False))  # no line is broken
    text = output.getvalue()
    assert "\x1b" not in text and "\x07" not in text, "foreign text commands no terminal"
    return " ".join(text.split())


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def trained(
    name: str,
    verdict: str = "",
    summary: str = "",
    *,
    status: str = "FINISHED",
    fingerprint: str = "elsewhere",
    **metrics: float,
) -> str:
    """A training in the store, and its version where the gate has judged it; the run's id."""
    with open_registry("cgan") as registry:
        client = registry.client
        known = client.get_experiment_by_name("cgan")
        experiment_id = known.experiment_id if known else client.create_experiment("cgan")
        tags = {"mlflow.source.name": "cgan.stages.train", "git.dirty": "true"}
        tags |= {"mlflow.source.git.commit": "abcdef0123456789", "cgan.fingerprint": fingerprint}
        run_id = str(client.create_run(experiment_id, tags=tags, run_name=name).info.run_id)
        for key, value in metrics.items():
            client.log_metric(run_id, f"quality/{key}", value)
        if status != "RUNNING":
            client.set_terminated(run_id, status)
        if verdict:
            if not registry.versions():
                client.create_registered_model("cgan")
            tags = {"gate.verdict": verdict, "gate.summary": summary}
            client.create_model_version("cgan", "file:///x", run_id, tags=tags)
        return run_id


def test_an_empty_clone_says_what_to_do_and_makes_nothing_itself(root: Path) -> None:
    (root / "mlflow.db").unlink()
    before = sorted(root.rglob("*"))
    text = screen(root)
    assert "Data not fetched yet: `make repro`" in text and "Champion none yet" in text
    assert sorted(root.rglob("*")) == before
    # One that makes runs in checkouts has their results in its cache alone.
    (root / ".cgan").mkdir(exist_ok=True)
    (root / ".cgan/dvc.lock").write_text("schema: '2.0'\n")
    os.utime(root / ".cgan/dvc.lock", (1_800_000_000, 1_800_000_000))
    text = screen(root)
    assert "a scheduled run left them on 15 Jan 08:00 UTC" in text
    assert f"`cp {root.resolve()}/.cgan/dvc.lock . && dvc checkout`" in text


def test_champion_verdict_last_training_and_their_numbers_stand_on_the_screen(root: Path) -> None:
    assert "Champion none yet" in screen(root)
    with open_registry("cgan") as registry:
        trash = registry.client.create_experiment("cgan")
        registry.client.delete_experiment(trash)
        assert f"restore --experiment-id {trash}`" in screen(root)
        registry.client.restore_experiment(trash)
    numbers = {"conditional_accuracy": 0.991, "fid_judge": 1.25}
    trained(f"{EVIL} run", "promoted", f"{EVIL} is the first champion.", **numbers)
    with open_registry("cgan") as registry:
        registry.promote(1, previous=None, why="the first")
    text = screen(root)
    assert "version 1, since " in text and "[red]deconv[/red] run · FINISHED" in text
    assert "conditional accuracy 99.1 % · Fréchet distance 1.25" in text
    assert "[red]deconv[/red] is the first champion." in text
    trained("second run", "blocked", "Version 2 is blocked: worse.")
    third = trained("third run")
    text = screen(root)
    assert "Verdict Version 2 is blocked: worse." in text and text.count("Verdict") == 1
    assert "third run · FINISHED · trained " in text and "commit abcdef01 with changes" in text
    assert f"run {third}, not gated yet: `cgan gate`" in text
    assert "not evaluated yet: `dvc repro` does it" in text, "it has no numbers of another run"


def test_a_run_has_its_rank_among_those_on_the_same_data_measured_alike(root: Path) -> None:
    runs = {}
    # The same bytes twice: luck has nothing to do with it.
    measured = {"best": (0.30, 0.01), "best again": (0.30, 0.01), "close": (0.31, 0.1)}
    measured |= {"worst": (0.9, 0.01), "other data": (0.1, 0.1)}
    for name, (distance, spread) in measured.items():
        runs[name] = run_id = trained(name, fid_judge=distance)
        with open_registry("cgan") as registry:
            registry.client.set_tag(run_id, MEASUREMENT_TAG, "de"[name == "other data"])
            registry.client.set_tag(run_id, GENERATOR_SHA256_TAG, name.removesuffix(" again"))
            entry = {"value": distance, "replicates": [-spread, spread, 0.0]}
            report = {"fid_judge": entry, "measurement_context": {"seed": 1}}
            registry.client.log_dict(run_id, json_form(report), "reports/evaluation.json")
    by = "of 3 generators by Fréchet distance"
    for name in ("best", "best again"):
        assert rank_in_words(runs[name]) == (
            f"number 1 {by}, 0.3; close has 0.31, and the difference is within chance"
        )
    assert rank_in_words(runs["worst"]) in [
        f"number 3 {by}, 0.9; {twin} has 0.3, and the difference is more than chance"
        for twin in ("best", "best again")
    ]
    assert (
        rank_in_words(runs["other data"])
        == rank_in_words(trained("without a tag", fid_judge=0.1))
        == ""
    )


def test_what_trains_now_is_shown_and_never_what_was_cancelled_or_killed(root: Path) -> None:
    trained("good")
    trained("cancelled", status="KILLED")
    (root / ".cgan/runs/killed").mkdir(parents=True)
    assert "Cut off" not in screen(root)
    trained("killed", status="RUNNING", fingerprint="killed")  # nobody holds its lock
    text = screen(root)
    assert "Last training good · FINISHED" in text and "Trains now" not in text
    assert "Cut off killed" in text
    (root / ".cgan/runs/alive").mkdir()
    trained("alive", status="RUNNING", fingerprint="alive")
    with locked(root / ".cgan/runs/alive.lock"):
        assert "Trains now alive · RUNNING" in screen(root) and "good" not in screen(root)
    trained("far away", status="RUNNING")
    assert "Trains now far away" in screen(root)


def test_a_monitor_hears_of_a_verdict_that_is_too_old_and_of_a_store_that_is_away(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From outside: what watches for dead runs in Prefect's server can fail, and says nothing then."""

    def asked(age: str) -> tuple[int, str]:
        with monkeypatch.context() as patch, contextlib.redirect_stderr(io.StringIO()) as said:
            patch.setattr(sys, "argv", ["cgan", "status", "--max-age", age])
            with pytest.raises(SystemExit) as ended:
                main()
        return int(ended.value.code or 0), said.getvalue()

    code, words = asked("26h")
    assert code == 1 and "`cgan gate`" in words
    trained("a run", "blocked", "Version 1 is blocked: worse.")
    with open_registry("cgan") as registry:
        registry.record_decision_time()
        assert asked("10m") == (0, ""), "silence is good"
        past = datetime.now(UTC) - timedelta(hours=25.5)
        tag = f"{past:%Y-%m-%dT%H:%M:%SZ}"
        registry.client.set_registered_model_tag("cgan", LAST_DECIDED_AT, tag)
    assert asked("26h") == asked("2d") == asked("1540m") == (0, "")
    code, words = asked("25h")
    assert code == 1 and words.startswith(
        f"Error: the last verdict of `cgan gate` is 25.5 h old ({tag}), expected at most 25 h"
    )
    assert words.count("\n") == 1, "one line for cron's mail"
    assert asked("1529m")[0] == 1 and asked("26")[0] == 2 and asked("h")[0] == 2
    with open_registry(
        "cgan"
    ) as registry:  # of a clock that was fast, which would be silent for years
        for tag in ("2999-01-01T00:00:00Z", f"{datetime.now(UTC) + timedelta(hours=1.5):%FT%TZ}"):
            registry.client.set_registered_model_tag("cgan", LAST_DECIDED_AT, tag)
            code, words = asked("26h")
            assert code == 1 and f"lies in the future ({tag})" in words
        tag = f"{datetime.now(UTC) + timedelta(minutes=30):%FT%TZ}"
        registry.client.set_registered_model_tag("cgan", LAST_DECIDED_AT, tag)
        assert asked("26h") == (0, ""), "clocks differ a little"
    (root / "mlflow.db").unlink()
    code, words = asked("26h")
    assert code == 1 and "there is no MLflow store" in words


def test_a_monitor_waits_for_a_busy_server(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tag = {"key": LAST_DECIDED_AT, "value": f"{datetime.now(UTC):%FT%TZ}"}
    answer = json.dumps({"registered_models": [{"name": "cgan", "tags": [tag]}]}).encode()

    class Busy(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            time.sleep(4)
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None: ...

    with on_a_thread(http.server.HTTPServer(("127.0.0.1", 0), Busy)) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_port}")
        require_recent_decision(root, timedelta(hours=26))


def test_a_damaged_file_is_told_and_the_rest_is_shown(root: Path) -> None:
    write(root / "data/raw/source.json", {"rows": "x"})
    text = screen(root)
    assert "unknown: " in text and "Champion none yet" in text


def test_a_server_that_says_nothing_costs_seconds_and_shows_no_password(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:  # takes connections
        address = f"127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://user:secret@{address}")
        began = time.monotonic()
        text = screen(root)
        assert time.monotonic() - began < 60, "MLflow's own client asks for four minutes"
    assert f"http://{address} " in text
    assert "secret" not in text


def test_report_says_that_the_first_training_is_not_done_yet() -> None:
    with pytest.raises(CganError, match="Run the pipeline first"):
        "\n".join(summary())
    lock = project_root() / TRAIN_LOCK
    assert not lock.parent.exists(), "nothing is made"
    with locked(lock), pytest.raises(CganError, match=r"A training runs here now.*`cgan status`"):
        "\n".join(summary())
    with pytest.raises(CganError, match="Run the pipeline first"):
        "\n".join(summary())


def test_f85_report_over_damaged_files_or_without_their_generator_is_one_message() -> None:
    a_model(GENERATOR)
    measured: dict[str, Any] = {
        key: {"value": 0.9, "floor": 0.5} for key in ("conditional_accuracy", "fid_judge")
    }
    digest = read_facts(GENERATOR, "generator")["digest"]
    measured["measurement_context"] = {"drawn_images": 100, "draws": 3, "generator_digest": digest}
    judge = {"judge": {"accuracy": 0.9, "heldout_images": 50}}
    write(Path("reports/judge.json"), judge)
    write(Path("reports/evaluation.json"), json_form(measured))
    shown = "\n".join(summary())
    first = shown.splitlines()[0]
    assert "(real images 50.0 %" in first
    assert METRICS["conditional_accuracy"].name in shown and "  cgan draw 0,1 --seed" in shown
    assert "  cgan sharing " in shown and "compare" not in shown, "there is no run"
    assert all(len(line) <= 80 for line in shown.splitlines()[1:])
    measured["class_names"] = ["a red dog", "cat", "eel", "owl"]
    write(Path("reports/evaluation.json"), json_form(measured))
    write(Path("models/training.json"), {"run_name": "a run"})
    assert "  in MLflow     not recorded yet: dvc repro" in "\n".join(summary())
    write(Path("models/mlflow_run.json"), {"run_id": "77"})
    shown = "\n".join(summary())
    assert "  cgan draw 'a red dog, cat, eel' --seed" in shown
    assert (
        "  in MLflow     in the store of the machine that recorded it, not in this one's" in shown
    )
    assert "  its id        77\n" in shown and "  cgan compare RUN . " in shown
    server = {"run_id": "77", "experiment_id": "5", "tracking_uri": "http://me:secret@runs.example"}
    write(Path("models/mlflow_run.json"), server)
    assert "  in MLflow     http://runs.example/#/experiments/5/runs/77" in "\n".join(summary())
    for name, content, good in (
        ("judge", "[1]", judge),
        ("judge", '{"judge": {"accuracy": "high", "heldout_images": 5}}', judge),
        ("evaluation", '{"measurement_context": {}}', json_form(measured)),
        ("evaluation", "{", json_form(measured)),
    ):
        Path(f"reports/{name}.json").write_text(content)
        with pytest.raises(CganError, match=rf"reports/{name}\.json.*dvc repro"):
            "\n".join(summary())
        write(Path(f"reports/{name}.json"), good)
    Path("models/generator.safetensors").unlink()
    with pytest.raises(CganError, match=r"is about a generator that is gone.*dvc checkout"):
        "\n".join(summary())
