"""`cgan status` on a real store, and `cgan report`."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, a_model
from rich.console import Console

from cgan.errors import CganError
from cgan.evaluation import METRICS, Evaluation, Score
from cgan.model.file_facts import read_facts
from cgan.pipeline.registry.client import open_registry
from cgan.pipeline.registry.status import status
from cgan.pipeline.runs.report import summary
from cgan.project import EVALUATION, GENERATOR

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


def trained(name: str, verdict: str = "", summary: str = "", **metrics: float) -> str:
    """A training in the store, and its version where the gate has judged it; the run's id."""
    with open_registry("cgan") as registry:
        client = registry.client
        known = client.get_experiment_by_name("cgan")
        experiment_id = known.experiment_id if known else client.create_experiment("cgan")
        tags = {"mlflow.source.name": "cgan.stages.train", "git.dirty": "true"}
        tags |= {"mlflow.source.git.commit": "abcdef0123456789"}
        run_id = str(client.create_run(experiment_id, tags=tags, run_name=name).info.run_id)
        for key, value in metrics.items():
            client.log_metric(run_id, f"quality/{key}", value)
        client.set_terminated(run_id, "FINISHED")
        if verdict:
            if not registry.versions():
                client.create_registered_model("cgan")
            tags = {"gate.verdict": verdict, "gate.summary": summary}
            client.create_model_version("cgan", "file:///x", run_id, tags=tags)
        return run_id


def test_an_empty_clone_says_what_to_do_and_makes_nothing(root: Path) -> None:
    (root / "mlflow.db").unlink()
    before = sorted(root.rglob("*"))
    text = screen(root)
    assert "Data not fetched yet: `make repro`" in text and "Champion none yet" in text
    assert sorted(root.rglob("*")) == before
    # One that makes runs in checkouts has their results in its cache alone.
    (root / ".cgan").mkdir(exist_ok=True)
    (root / ".cgan/dvc.lock").write_text("schema: '2.0'\n")
    assert f"`cp {root.resolve()}/.cgan/dvc.lock . && dvc checkout`" in screen(root)


def test_champion_verdict_and_last_training_stand_on_the_screen(root: Path) -> None:
    assert "Champion none yet" in screen(root)
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
    assert "third run · FINISHED · started " in text and "commit abcdef01 with changes" in text
    assert f"run {third}, not gated yet: `cgan gate`" in text
    assert "not evaluated yet: `dvc repro` does it" in text, "it has no numbers of another run"


def test_a_damaged_file_is_told_and_the_rest_is_shown(root: Path) -> None:
    write(root / "data/raw/source.json", {"rows": "x"})
    text = screen(root)
    assert "unknown: " in text and "Champion none yet" in text


def test_report_shows_the_quality_and_where_to_look_next() -> None:
    with pytest.raises(CganError, match=r"Run the pipeline first.*`cgan status`"):
        "\n".join(summary())
    digest = read_facts(a_model(GENERATOR), "generator")["digest"]
    score = Score(value=0.9, real=0.5)
    Evaluation(
        metrics={"conditional_accuracy": score, "fid_judge": score},
        context={"drawn_images": 100, "generator_digest": digest},
        class_names=["a red dog", "cat", "eel", "owl"],
    ).write(EVALUATION)
    write(Path("reports/judge.json"), {"judge": {"accuracy": 0.9, "heldout_images": 50}})
    shown = "\n".join(summary())
    assert "(real images 50.0 %" in shown.splitlines()[0]
    assert METRICS["conditional_accuracy"].name in shown and "  cgan sharing " in shown
    assert "  cgan draw 'a red dog, cat, eel' --seed" in shown
    assert "compare" not in shown, "there is no run"
    server = {"run_id": "77", "run_name": "a run", "experiment_id": "5"}
    write(Path("models/training.json"), {"run_name": "a run"})
    write(Path("models/mlflow_run.json"), server | {"tracking_uri": "http://runs.example"})
    shown = "\n".join(summary())
    assert "  in MLflow     http://runs.example/#/experiments/5/runs/77" in shown
    assert "  cgan compare RUN . " in shown
