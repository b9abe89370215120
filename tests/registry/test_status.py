"""`cgan status` and `cgan report`: before anything has run, and in the finished project."""

import io
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import NAMES, ROOT, Project
from rich.console import Console

from cgan.base.errors import CganError
from cgan.base.files import read_json
from cgan.pipeline.project import EVALUATION, TRAINING
from cgan.pipeline.registry.status import print_status, report_lines
from cgan.quality.evaluation import Evaluation

EVIL = "\x1b[2J\x1b]0;owned\x07[red]deconv[/red]"


def screen(root: Path) -> str:
    output = io.StringIO()
    print_status(root, Console(file=output, width=20, highlight=False))  # no line is broken
    text = output.getvalue()
    assert "\x1b" not in text and "\x07" not in text, "foreign text commands no terminal"
    return " ".join(text.split())


def test_an_empty_clone_says_what_to_do_and_makes_nothing(root: Path) -> None:
    shutil.copy(ROOT / "params.yaml", root)
    assert "Champion none yet" in screen(root), "of an empty store"
    (root / "mlflow.db").unlink()
    before = sorted(root.rglob("*"))
    text = screen(root)
    assert "Data not fetched yet: `make repro`" in text and "Champion none yet" in text
    with pytest.raises(CganError, match=r"Run the pipeline first.*`cgan status`"):
        list(report_lines())
    assert sorted(root.rglob("*")) == before
    # One that makes runs in checkouts has their results in its cache alone.
    (root / ".cgan").mkdir(exist_ok=True)
    (root / ".cgan/dvc.lock").write_text("schema: '2.0'\n")
    assert f"`cp {root.resolve()}/.cgan/dvc.lock . && dvc checkout`" in screen(root)


def test_a_stage_that_runs_in_a_checkout_is_on_the_screen(root: Path) -> None:
    shutil.copy(ROOT / "params.yaml", root)
    checkout = root / ".cgan/checkouts/one"
    for name, text in (("__init__", ""), ("stages/__init__", ""), ("stages/train", "input()")):
        path = checkout / f"cgan/{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert "Running" not in screen(root)
    command = [sys.executable, "-m", "cgan.stages.train"]
    with subprocess.Popen(command, cwd=checkout, stdin=subprocess.PIPE) as process:
        assert "Running train, in a checkout, since " in screen(root)
        process.communicate(b"\n")


def test_champion_verdict_and_last_training_stand_on_the_screen(copied: Project) -> None:
    client, (run,) = copied.client(), copied.runs()
    client.update_run(run.info.run_id, name=f"{EVIL} run")
    text = screen(copied.folder)
    assert "version 1, since " in text and "[red]deconv[/red] run · FINISHED" in text
    report = Evaluation.read(EVALUATION).report(read_json(TRAINING)["training_s"])
    assert text.count(report.sentence) == 1, "of the champion, which the last training made"
    assert "Verdict Version 1 is good enough" in text and "not gated yet" not in text
    tags = {"mlflow.source.name": "cgan.stages.train"}
    later = client.create_run(run.info.experiment_id, tags=tags, run_name="second run")
    text = screen(copied.folder)
    assert "second run · RUNNING · started " in text
    assert f"run {later.info.run_id}, not gated yet: `cgan gate`" in text
    assert "not evaluated yet: `dvc repro` does it" in text, "it has no numbers of another run"


@pytest.mark.usefixtures("copied")
def test_report_shows_the_quality_and_where_to_look_next() -> None:
    shown = "\n".join(report_lines())
    report = Evaluation.read(EVALUATION).report(read_json(TRAINING)["training_s"])
    assert shown.startswith(report.as_text())
    assert f"  cgan draw '{', '.join(NAMES)}' --seed" in shown
    for words in ("  cgan sharing ", "  cgan compare RUN . ", "  in MLflow     http://127.0.0.1:"):
        assert words in shown
