"""Promises 5 to 7: equal bytes by every door, and after kills, Ctrl-C, a full disk, or with MLflow away.

Every kill of a whole project is here. `whole.sh` is all of it: `dvc repro`, then the gate.
"""

import contextlib
import itertools
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import Project, answers, free_port, new_project, sent_once, wait_until
from mlflow import MlflowClient

from cgan.files import sha256_of

pytestmark = pytest.mark.timeout(3000)
KILLS = int(os.environ.get("CGAN_KILLS", "4"))
SEED = int(os.environ.get("CGAN_KILLS_SEED", "0"))
STEPS = 800
EVERYTHING = ""
# A kill can fall into DVC's write of its rwlock or of dvc.lock. There is no committed one here to bring
# back, so it goes.
WHOLE = """
[ -s .dvc/tmp/rwlock ] || rm -f .dvc/tmp/rwlock
python -m dvc status 2>&1 | grep --quiet "dvc.lock' " && rm dvc.lock
python -m dvc repro && python -m cgan.cli gate
"""
PARAMS: dict[str, dict[str, Any]] = {
    "train": {"total_kimg": STEPS * 8 / 1000, "batch_size": 8},
    "evaluate": {"samples": 100, "gan_train_kimg": 0.05},
    "gate": {f"min_{name}_accuracy": 0.0 for name in ("conditional", "worst_class", "judge")},
}
# They name a run or a time.
NOT_COMPARED = {"mlflow_run.json", "training.json", "dvc.lock"}
NOT_COMPARED |= {"gate.json", "gate.md", "run.html", "README.md"}


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


def test_dvc_repro_and_fit_make_the_same_bytes(copied: Project) -> None:
    (copied.folder / "fit.py").write_text(FIT)
    copied.run("python fit.py")
    fitted = [path for path in Path("fitted").rglob("*") if path.is_file()]
    previews = Path("samples/previews").iterdir()
    assert len(fitted) == 3 + len(list(previews)) > 4
    for path in fitted:
        assert path.read_bytes() == path.relative_to("fitted").read_bytes(), path


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Project:
    """Nothing has run here."""
    project = new_project(tmp_path_factory.mktemp("template") / "project")
    project.set(**PARAMS)
    (project.folder / "whole.sh").write_text(WHOLE)
    project.run("git add .")
    project.run("git -c user.name=t -c user.email=t@t commit --quiet -m params")
    shutil.copyfile(empty_store, project.folder / "mlflow.db")
    return project


@pytest.fixture(scope="module")
def undisturbed(
    template: Project, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Project, float]:
    """All of it has run here, and how many seconds it took."""
    project = template.copy(tmp_path_factory.mktemp("undisturbed") / "project")
    began = time.monotonic()
    project.run("bash whole.sh")
    return project, time.monotonic() - began


@pytest.fixture
def fresh(template: Project, tmp_path: Path) -> Project:
    return template.copy(tmp_path / "project")


def results(project: Project) -> dict[str, str]:
    """The digest of each file that a stage made."""
    folders = ("models", "samples", "data", "reports")
    found = [path for name in folders for path in project.folder.glob(f"{name}/**/*")]
    # DVC's own copies, which it leaves where it was killed: a dot, 22 characters and `.tmp`, never ours.
    found = [path for path in found if not re.fullmatch(r"\.[\w-]{22}\.tmp", path.name)]
    files = [path for path in found if path.is_file() and path.name not in NOT_COMPARED]
    return {str(path.relative_to(project.folder)): sha256_of(path) for path in files}


def checkpoints(project: Project) -> list[Path]:
    return list(project.folder.glob(".cgan/runs/*/step-*.safetensors"))


def assert_as_if_undisturbed(project: Project, undisturbed: Project) -> None:
    """Every byte, one finished run, no value of a metric twice, one model, one version, one champion."""
    assert results(project) == results(undisturbed)
    client = project.client()
    (run,) = project.runs(client)
    assert run.info.status == "FINISHED"
    assert project.read("models/mlflow_run.json")["run_id"] == run.info.run_id
    sent_once(client, run, STEPS)
    kinds = {key.partition("/")[0] for key in run.data.metrics}
    assert {"loss", "logits", "quality", "gate"} <= kinds
    assert len(client.search_logged_models([run.info.experiment_id])) == 1
    (version,) = client.search_model_versions("name = 'cgan'")
    champion = client.get_model_version_by_alias("cgan", "champion")
    assert champion.version == version.version
    assert "</html>" in (project.folder / "reports/run.html").read_text()
    assert "up to date" in project.run("dvc status")


# -- Kills ------------------------------------------------------------------------------------------


def at_work(project: Project, module: str) -> list[psutil.Process]:
    """Each `python -m MODULE…` in the project's folder."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            command = " ".join(process.cmdline()[1:3])
            if process.cwd() == str(project.folder) and command.startswith(f"-m {module}"):
                found.append(process)
    return found


def kill(project: Project, module: str, is_time: Callable[[], bool]) -> bool:
    """Start all of it, and SIGKILL these once it is time and there are some; in the end, whoever is left of
    it. False: it had ended before."""
    victims: list[psutil.Process] = []
    with project.started("bash whole.sh") as (runner, _):
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
def test_a_pipeline_killed_at_random_ends_as_if_undisturbed(
    fresh: Project, undisturbed: tuple[Project, float]
) -> None:
    """One kill after the other."""
    expected, seconds = undisturbed
    dice, victims = random.Random(SEED), itertools.cycle(("dvc", "cgan.stages", EVERYTHING))
    for _ in range(KILLS):
        end = time.monotonic() + dice.random() * 0.6 * seconds
        kill(fresh, next(victims), lambda: time.monotonic() > end)  # noqa: B023
    fresh.run("bash whole.sh")
    assert_as_if_undisturbed(fresh, expected)


@pytest.mark.slow
@pytest.mark.parametrize("module", ["cgan.stages.train", "cgan.stages.record", "cgan.cli"])
def test_a_killed_training_record_or_gate_is_one_run(
    fresh: Project, undisturbed: tuple[Project, float], module: str
) -> None:
    """The training with a checkpoint, the others at work for a second."""

    def is_time() -> bool:
        if module == "cgan.stages.train":
            return checkpoints(fresh) != []
        return any(time.time() > each.create_time() + 1.5 for each in at_work(fresh, module))

    assert kill(fresh, module, is_time)
    fresh.run("bash whole.sh")
    assert_as_if_undisturbed(fresh, undisturbed[0])


# -- Whatever else comes between ----------------------------------------------------------------------


@pytest.mark.slow
def test_ctrl_c_of_a_pipeline_saves_and_the_next_one_goes_on(
    fresh: Project, undisturbed: tuple[Project, float]
) -> None:
    assert fresh.cut_off("dvc repro", lambda: checkpoints(fresh), signal.SIGINT) != 0
    (run,) = fresh.runs()
    assert run.info.status == "KILLED"
    assert "Resuming at step" in fresh.run("bash whole.sh")
    assert_as_if_undisturbed(fresh, undisturbed[0])


@pytest.mark.slow
def test_a_full_disk_is_said_and_then_the_training_goes_on(
    copied: Project, finished: Project
) -> None:
    stage = "python -m cgan.stages.train"  # whoever asks for it by hand gets a training anew
    (copied.folder / "full.sh").write_text(f"ulimit -f 20\nexec {stage}\n")
    words = copied.run("bash full.sh", code=1)
    assert re.search(
        r"Error: \S+: File too large. Free some space. .* goes on from its last", words
    )
    copied.run(stage)
    assert results(copied) == results(finished)


@pytest.mark.slow
def test_with_mlflow_away_bytes_are_equal_and_a_run_comes_later(
    fresh: Project, undisturbed: tuple[Project, float]
) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    words = fresh.run("dvc repro", 255, MLFLOW_TRACKING_URI=address)
    assert f"Error: MLflow at {address} cannot be used now" in words
    assert fresh.weights() == undisturbed[0].weights()
    with fresh.started(f"cgan ui --port {address.rpartition(':')[2]}") as (process, output):
        wait_until(lambda: answers(f"{address}/health") or process.poll() is not None)
        assert process.poll() is None, output.read_text()
        for _ in range(2):
            fresh.run("dvc repro", MLFLOW_TRACKING_URI=address)
            client = MlflowClient(address)
            (run,) = fresh.runs(client)
            assert run.info.status == "FINISHED" and "quality/fid_judge" in run.data.metrics
            sent_once(client, run, STEPS)
            assert len(client.search_logged_models([run.info.experiment_id])) == 1
