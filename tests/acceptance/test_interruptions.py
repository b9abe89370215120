"""MLflow away, a spoilt training, a flow that is killed: the same bytes, one run, each point once."""

import shutil
import signal
from pathlib import Path

import pytest
from conftest import answers, free_port, wait_until
from door import LOG_EVERY, Project, many, sent_once
from door import finished as finished
from mlflow import MlflowClient
from mlflow.entities import Run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
LONG = 800  # steps


def new_runs(project: Project, before: Project) -> list[Run]:
    known = {run.info.run_id for run in before.runs()}
    return [run for run in project.runs() if run.info.run_id not in known]


def recorded(project: Project) -> int:
    """The last step with a loss of the runs that go on now, or were killed."""
    running = [run for run in project.runs() if run.info.status != "FINISHED"]
    steps = [
        point.step
        for run in running
        if "loss/generator" in run.data.metrics
        for point in project.client().get_metric_history(run.info.run_id, "loss/generator")
    ]
    return max(steps, default=0)


def test_with_mlflow_away_a_training_makes_the_same_bytes_and_delivers_its_run_later(
    finished: Project, tmp_path: Path
) -> None:
    project, port = finished.copy(tmp_path / "project"), free_port()
    address = f"http://127.0.0.1:{port}"
    for made in (".cgan", "mlartifacts"):
        shutil.rmtree(project.folder / made)
    for name in ("mlflow.db", "models/generator.safetensors"):
        (project.folder / name).unlink()
    words = project.run("dvc repro --force --downstream train", 255, MLFLOW_TRACKING_URI=address)
    assert f"Error: MLflow at {address} cannot be used now" in words
    assert project.weights() == finished.weights()
    with project.started(f"cgan ui --port {port}") as (process, output):
        wait_until(lambda: answers(f"{address}/health") or process.poll() is not None)
        assert process.poll() is None, output.read_text()
        for _ in range(2):
            project.run("dvc repro", MLFLOW_TRACKING_URI=address)
            client = MlflowClient(address)
            (run,) = project.runs(client)
            assert run.info.status == "FINISHED" and "quality/fid_judge" in run.data.metrics
            sent_once(client, run)
            assert len(client.search_logged_models([run.info.experiment_id])) == 1


def test_the_gate_blocks_a_spoilt_generator_and_a_rollback_undoes_a_promotion(
    finished: Project, tmp_path: Path
) -> None:
    project = finished.copy(tmp_path / "project")

    def champion() -> int:
        return int(project.client().get_model_version_by_alias("cgan", "champion").version)

    draw = ["draw", "012", "--model", "champion", "--out"]
    promote = ["registry", "promote", "2", "--why", "try"]
    project.set(train={"lr": 1e-6, "seed": 3})
    ended = many([(project.folder, [*draw, "before.png"])])
    project.run("dvc repro")
    assert "BLOCKED" in project.run("cgan gate", code=3)
    report = project.read("reports/gate.json")
    assert report["verdict"] == "blocked" and report["reasons"]
    assert "conditional_accuracy" in [c["name"] for c in report["checks"] if not c["passed"]]
    assert champion() == 1
    ended += many([(project.folder, call) for call in ([*draw, "after.png"], promote)])
    assert [code for code, _ in ended] == [0, 0, 1] and "blocked" in ended[2][1]
    drawn = [(project.folder / name).read_bytes() for name in ("before.png", "after.png")]
    assert drawn[0] == drawn[1]
    project.run("cgan registry promote 2 --why try --force")
    assert champion() == 2
    project.run("cgan registry rollback --why worse")
    assert champion() == 1


def test_a_flow_that_is_killed_goes_on_and_with_nothing_to_do_trains_nothing(
    finished: Project, tmp_path: Path
) -> None:
    project, undisturbed = (finished.copy(tmp_path / name) for name in ("project", "undisturbed"))
    for copy in (project, undisturbed):
        copy.set(train={"total_kimg": LONG * 16 / 1000, "seed": 2})
    undisturbed.run("dvc repro")
    flow = "python -m flows.pipeline"
    home = {"PREFECT_HOME": str(tmp_path / "prefect")}
    home["PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"] = "400"
    project.cut_off(flow, lambda: recorded(project) >= 4 * LOG_EVERY, signal.SIGKILL, **home)
    project.run(flow, 0, **home)
    assert project.weights() == undisturbed.weights()
    (run,) = new_runs(project, finished)
    assert run.info.status == "FINISHED" and "quality/fid_judge" in run.data.metrics
    sent_once(project.client(), run, LONG)
    before = [run.to_dictionary() for run in project.runs()]
    assert project.read("reports/gate.json")["verdict"] in ("promoted", "blocked")
    assert "Running stage" not in project.run(flow, 0, **home)
    assert [run.to_dictionary() for run in project.runs()] == before
