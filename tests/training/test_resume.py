"""A training that is told to end while it saves, killed at its end, or left over by a killed DVC."""

import signal
import time
from pathlib import Path

import psutil
import pytest
from conftest import wait_until
from door import Project, new_project

pytestmark = pytest.mark.slow
STEPS = 1000
STAGE, REPRO = "python -m cgan.stages.train", "dvc repro train"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Reproduced up to the training."""
    project = new_project(tmp_path_factory.mktemp("template") / "project")
    project.set(train={"total_kimg": STEPS * 16 / 1000})
    project.run("dvc repro train_judge")
    return project


@pytest.fixture
def project(template: Project, tmp_path: Path) -> Project:
    return template.copy(tmp_path / "project")


@pytest.fixture(scope="module")
def undisturbed(template: Project, tmp_path_factory: pytest.TempPathFactory) -> dict[Path, bytes]:
    """The results of a training that nobody disturbs."""
    project = template.copy(tmp_path_factory.mktemp("undisturbed") / "project")
    project.run(STAGE)
    return results(project)


def results(project: Project) -> dict[Path, bytes]:
    names = ("models/[gd]*.safetensors", "reports/*.csv", "samples/previews/*")
    paths = sorted(path for name in names for path in project.folder.glob(name))
    assert len(paths) > 4
    return {path.relative_to(project.folder): path.read_bytes() for path in paths}


def checkpoints(project: Project) -> list[Path]:
    return sorted(project.folder.glob(".cgan/runs/*/step-*.safetensors"))


def statuses(project: Project) -> list[str]:
    return [run.info.status for run in project.runs()]


def assert_one_training(project: Project, undisturbed: dict[Path, bytes]) -> None:
    """The bytes of one that nobody disturbed, one finished run that the project points to, nothing twice in
    it, and DVC with nothing left to do."""
    assert results(project) == undisturbed
    (run,) = project.runs()
    assert run.info.status == "FINISHED"
    assert project.read("models/training.json")["run_key"] == run.data.tags["cgan.run_key"]
    assert "updates " in run.data.tags["cgan.chosen_for_the_data"]
    for key in run.data.metrics:  # the stage record sends those that a kill took away
        points = project.client().get_metric_history(run.info.run_id, key)
        assert len({point.step for point in points}) == len(points), key
    assert "Stage 'train' didn't change" in project.run(REPRO)


def test_f46_f47_a_signal_and_more_of_them_during_the_save_leave_a_checkpoint_that_resumes(
    project: Project, undisturbed: dict[Path, bytes]
) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        known = checkpoints(project)
        with project.started(STAGE) as (training, output):
            wait_until(lambda: checkpoints(project) != known or training.poll() is not None)  # noqa: B023
            while training.poll() is None:  # every millisecond: some fall into the save
                training.send_signal(number)
                time.sleep(0.001)
            words = output.read_text()
        assert training.returncode == 128 + number, words
        assert "a checkpoint was saved" in words and "Traceback" not in words
        assert statuses(project) == ["KILLED"]
        assert not list(project.folder.glob(".cgan/runs/*/.*.tmp"))
    assert "Resuming at step" in project.run(REPRO)
    assert_one_training(project, undisturbed)


KILLED_AT = """
import importlib, os, signal, sys
from cgan.stages import runner, train

owner, name = importlib.import_module(sys.argv[1]), sys.argv[2]
plain = getattr(owner, name)

def dying(*args, **kwargs):
    plain(*args, **kwargs)
    if not str(args[:1]).endswith("/run.json'),)"):  # of the run's folder, at its begin
        os.kill(os.getpid(), signal.SIGKILL)

setattr(owner, name, dying)
runner.run_stage(train.main)
"""


@pytest.mark.parametrize(
    "point",
    ["stages.train write_outputs", "stages.train write_json", "stages.runner _refuse_changes"],
)
def test_f48_killed_at_any_point_of_its_end_or_before_dvc_lock_a_training_is_one_run_not_trained_again(
    project: Project, undisturbed: dict[Path, bytes], point: str
) -> None:
    (project.folder / "killed.py").write_text(KILLED_AT)
    with project.started(f"python killed.py cgan.{point}") as (training, _):
        assert training.wait(240) == -signal.SIGKILL
    assert f"Resuming at step {STEPS} of {STEPS}" in project.run(REPRO)
    assert_one_training(project, undisturbed)
    has_time = bool(project.read("models/training.json")["numbers"])
    assert has_time == (point == "stages.runner _refuse_changes"), "none of a part"


def test_f55_a_place_for_results_that_cannot_be_written_is_refused_before_training(
    project: Project,
) -> None:
    (project.folder / "samples").write_text("a file where a folder should be")
    assert "Error: samples: " in project.run(STAGE, code=1)
    assert not (project.folder / ".cgan/runs").exists()


def test_f59_f71_f82_a_training_left_over_by_a_killed_dvc_is_waited_for_and_nothing_trained_again(
    project: Project, undisturbed: dict[Path, bytes]
) -> None:
    with project.started(REPRO) as (dvc, _):
        wait_until(lambda: checkpoints(project) or dvc.poll() is not None)
        left = next(p for p in psutil.Process(dvc.pid).children(True) if "train" in p.cmdline()[-1])
        left.suspend()  # so that it is there when the next one comes
        dvc.kill()
        dvc.wait()
        with project.started(REPRO) as (second, output):
            words = f"(process {left.pid})"
            wait_until(lambda: words in output.read_text() or second.poll() is not None)
            left.resume()
            assert second.wait(240) == 0, output.read_text()
            assert f"Resuming at step {STEPS} of {STEPS}" in output.read_text()
    assert_one_training(project, undisturbed)
    # DVC knows the result now: who asks for a training all the same gets one, and a run of its own.
    assert "Resuming" not in project.run(f"{REPRO} --force")
    assert results(project) == undisturbed
    assert statuses(project) == ["FINISHED", "FINISHED"]
