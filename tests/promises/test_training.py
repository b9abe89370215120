"""Promises 5 to 7: equal bytes by every door, and after kills, Ctrl-C, a full disk, or with MLflow away."""

import contextlib
import functools
import itertools
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from conftest import Project, answers, free_port, new_project, sent_once, wait_until
from mlflow import MlflowClient

from cgan.base.files import sha256_of

FIT = """
import cgan, pathlib, yaml
from cgan.quality.judge import load_judge
params = yaml.safe_load(open("params.yaml"))
images = cgan.read(params["data"]["path"], **params["validate"])
split = params["preprocess"]
train, _ = images.split(split["holdout_fraction"], seed=split["seed"])
judge, _ = load_judge("models/judge.safetensors")
run = cgan.fit(train, judge=judge, progress=False, **params["train"])
fitted = pathlib.Path("fitted")
for folder in ("models", "reports", "samples/previews"):
    (fitted / folder).mkdir(parents=True)
run.generator.save(fitted / "models/generator.safetensors")
run.history.to_csv(fitted / "reports/losses.csv", index=False, float_format="%.6g")
run.probes.to_csv(fitted / "reports/probes.csv", index=False, float_format="%.6g")
for step, png in run.previews.items():
    (fitted / f"samples/previews/step-{step:06d}.png").write_bytes(png)
"""


@pytest.mark.slow
def test_dvc_repro_and_fit_make_the_same_bytes(copied: Project) -> None:
    (copied.folder / "fit.py").write_text(FIT)
    copied.run("python fit.py")
    fitted = [path for path in Path("fitted").rglob("*") if path.is_file()]
    previews = Path("samples/previews").iterdir()
    assert len(fitted) == 3 + len(list(previews)) > 4
    for path in fitted:
        assert path.read_bytes() == path.relative_to("fitted").read_bytes(), path


# They name a run or a time.
NOT_COMPARED = {"mlflow_run.json", "training.json", "dvc.lock"}
NOT_COMPARED |= {"gate.json", "gate.md", "run.html", "README.md"}


def results(project: Project) -> dict[str, str]:
    """The digest of each file that a stage made."""
    folders = ("models", "samples", "data", "reports")
    found = [path for name in folders for path in project.folder.glob(f"{name}/**/*")]
    # Copies that were being written when DVC or a stage was killed, which nobody reads.
    found = [path for path in found if not re.fullmatch(r"\..+\.tmp", path.name)]
    files = [path for path in found if path.is_file() and path.name not in NOT_COMPARED]
    return {str(path.relative_to(project.folder)): sha256_of(path) for path in files}


def at_work(project: Project, module: str, seconds: float = 0) -> list[psutil.Process]:
    """Each `python -m MODULE…` in the project's folder that is so old."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            command = " ".join(process.cmdline()[1:3])
            is_ours = process.cwd() == str(project.folder) and command.startswith(f"-m {module}")
            if is_ours and time.time() > process.create_time() + seconds:
                found.append(process)
    return found


# Up to a stage, or all of it. A kill can fall into DVC's write of its rwlock or of dvc.lock. There is no
# committed one here to bring back, so it goes.
WHOLE = """
[ -s .dvc/tmp/rwlock ] || rm -f .dvc/tmp/rwlock
python -m dvc status 2>&1 | grep --quiet "dvc.lock' " && rm dvc.lock
python -m dvc repro $1 || exit
[ "$1" ] || python -m cgan.cli gate
"""
EVERYTHING = ""


def kill(project: Project, stage: str, module: str, is_time: Callable[[], object]) -> bool:
    """Start what leads to the stage, and SIGKILL the module once it is time and it is at work; in the end,
    whoever is left. False: it had ended before."""
    victims: list[psutil.Process] = []
    with project.started(f"bash ../whole.sh {stage}") as (runner, _):
        while runner.poll() is None and not victims:
            if is_time():
                victims = at_work(project, module)
            time.sleep(0.002)
        for process in victims:
            with contextlib.suppress(psutil.Error):
                process.kill()
        runner.wait()
        victims += at_work(project, EVERYTHING)
    # Dead, but not reaped by PID 1 yet, dvc still counts for DVC as one that holds its lock.
    assert psutil.wait_procs(victims, timeout=60)[1] == []
    return victims != []


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_after_kills_and_ctrl_c_all_is_as_if_undisturbed(
    finished: Project, empty_store: Path, tmp_path: Path
) -> None:
    """Every byte, one finished run, no value of a metric twice, one model, one version, one champion."""
    project = new_project(tmp_path / "project")
    (tmp_path / "whole.sh").write_text(WHOLE)
    shutil.copyfile(empty_store, project.folder / "mlflow.db")
    dice = random.Random(int(os.environ.get("CGAN_KILLS_SEED", "0")))
    victims = itertools.cycle(("dvc", "cgan.stages", EVERYTHING))

    def kill_in(stage: str) -> None:
        seconds = 2 * dice.random()
        is_time = functools.partial(at_work, project, f"cgan.stages.{stage}", seconds)
        kill(project, stage, next(victims), is_time)

    def checkpoints() -> set[Path]:
        return {*project.folder.glob(".cgan/runs/*/step-*.safetensors")}

    for stage in ("download", "preprocess", "train_judge"):
        kill_in(stage)
    assert project.cut_off("dvc repro", checkpoints, signal.SIGINT) != 0
    assert [run.info.status for run in project.runs()] == ["KILLED"]
    of_ctrl_c = checkpoints()
    assert kill(project, "train", "cgan.stages.train", lambda: checkpoints() - of_ctrl_c)
    for stage in ("evaluate", "render", "page"):
        kill_in(stage)
    for stage, module in (("record", "cgan.stages.record"), ("", "cgan.cli")):
        assert kill(project, stage, module, functools.partial(at_work, project, module, 1.5))

    project.run("bash ../whole.sh")
    assert results(project) == results(finished)
    client = project.client()
    (run,) = project.runs(client)
    assert (run.info.status, run.data.tags["cgan.resumed"]) == ("FINISHED", "true")
    assert project.read("models/mlflow_run.json")["run_id"] == run.info.run_id
    sent_once(client, run)
    kinds = {key.partition("/")[0] for key in run.data.metrics}
    assert {"loss", "logits", "quality"} <= kinds
    assert len(client.search_logged_models([run.info.experiment_id])) == 1
    (version,) = client.search_model_versions("name = 'cgan'")
    champion = client.get_model_version_by_alias("cgan", "champion")
    assert champion.version == version.version
    assert "</html>" in (project.folder / "reports/run.html").read_text()
    assert "up to date" in project.run("dvc status")


TRAIN = "python -m cgan.stages.train"  # whoever asks for it by hand gets a training anew


@pytest.mark.slow
def test_a_full_disk_is_said_and_then_the_training_goes_on(
    copied: Project, finished: Project
) -> None:
    (copied.folder / "full.sh").write_text(f"ulimit -f 20\nexec {TRAIN}\n")
    words = copied.run("bash full.sh", code=1)
    assert re.search(
        r"Error: \S+: File too large. Free some space. .* goes on from its last", words
    )
    copied.run(TRAIN)
    assert results(copied) == results(finished)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_with_mlflow_away_bytes_are_equal_and_a_run_comes_later(
    copied: Project, finished: Project
) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    before = {run.info.run_id for run in copied.runs()}
    copied.run("python -m dvc repro -s -f train", MLFLOW_TRACKING_URI=address)
    words = copied.run("dvc repro", 255, MLFLOW_TRACKING_URI=address)
    assert f"Error: MLflow at {address} cannot be used" in words
    assert copied.weights() == finished.weights()
    with copied.started(f"cgan ui --port {address.rpartition(':')[2]}") as (process, output):
        wait_until(lambda: answers(f"{address}/health") or process.poll() is not None)
        assert process.poll() is None, output.read_text()
        for _ in range(2):
            copied.run("dvc repro", MLFLOW_TRACKING_URI=address)
            client = MlflowClient(address)
            (run,) = [run for run in copied.runs(client) if run.info.run_id not in before]
            assert run.info.status == "FINISHED" and "quality/fid_judge" in run.data.metrics
            sent_once(client, run)
            models = client.search_logged_models([run.info.experiment_id])
            assert [model.source_run_id for model in models].count(run.info.run_id) == 1
