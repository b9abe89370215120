"""A project in which everything has run: what is in MLflow, what is stale, and the same by a flow."""

import json
import re
import signal
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, STEPS, Project, sent_once

STAGES = list(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])


def ran(words: str) -> list[str]:
    return re.findall("Running stage '(.*)'", words)


def test_a_training_is_one_complete_run_with_nothing_twice(finished: Project) -> None:
    client = finished.client()
    (run,) = finished.runs()
    assert run.info.status == "FINISHED"
    params = yaml.safe_load((finished.folder / "params.yaml").read_text())
    for key in ("latent_dim", "seed", "total_kimg", "batch_size"):
        assert run.data.params[f"train.{key}"] == str(params["train"][key])
    sent_once(client, run)
    made = finished.read("reports/metrics.json")["quality"]
    assert made["conditional_accuracy"] > 0.9
    for key in ("conditional_accuracy", "fid_judge", "worst_class_accuracy"):
        (point,) = client.get_metric_history(run.info.run_id, f"quality/{key}")
        assert point.value == pytest.approx(made[key], rel=1e-4), "six digits"
    probes = client.get_metric_history(run.info.run_id, "probe/conditional_accuracy")
    assert len(probes) >= 2 and probes[-1].step == STEPS
    pictures = {file.path for file in client.list_artifacts(run.info.run_id, "samples/by_step")}
    assert {f"samples/by_step/step-{step:06}.png" for step in (0, STEPS)} <= pictures
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert {"run.html", "grid.png", "confusion_matrix.png"} <= files
    (model,) = client.search_logged_models([run.info.experiment_id])
    assert model.source_run_id == run.info.run_id and model.status == "READY"
    assert finished.read("models/mlflow_run.json")["run_id"] == run.info.run_id
    champion = client.get_model_version_by_alias("cgan", "champion")
    assert (int(champion.version), champion.run_id) == (1, run.info.run_id), "the first good one"


def test_with_nothing_stale_nothing_runs_and_nothing_is_recorded(copied: Project) -> None:
    before = [run.to_dictionary() for run in copied.runs()]
    assert ran(copied.run("dvc repro")) == []
    assert [run.to_dictionary() for run in copied.runs()] == before


def test_what_depends_on_a_change_is_stale_and_nothing_else(copied: Project) -> None:
    for path, change in (
        ("cgan/pipeline/registry/gate.py", "# new\n"),
        ("cgan/page/page.css", "/* new */\n"),
        ("cgan/training/update.py", "# new\n"),
        ("inbox/digits.csv", "\n"),
    ):
        with (copied.folder / path).open("a") as file:
            file.write(change)
    copied.set(gate={"promote": False})  # a param of no stage but the one that checks all
    stale = set(json.loads(copied.run("dvc status --json")))
    assert stale == {"params", "download", "train", "page"}


def test_wrong_params_are_refused_before_anything_is_removed(copied: Project) -> None:
    """Also where a training is stale; and all are named at once."""

    def outputs() -> dict[Path, bytes]:
        folders = map(Path, ("data", "models", "samples"))
        return {path: path.read_bytes() for each in folders for path in each.rglob("*.*")}

    before = outputs()
    copied.set(evaluate={"samples": 0}, train={"seed": 2, "lr": -1.0})
    words = copied.run("dvc repro", code=255)
    assert ran(words) == ["params"]
    assert "`evaluate.samples`" in words and "`train.lr`" in words
    assert outputs() == before


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_flow_has_a_task_for_each_stage_by_name(copied: Project, tmp_path: Path) -> None:
    """DVC says which of them work. After a failure or a kill the next one goes on there."""
    home = {"PREFECT_HOME": str(tmp_path / "prefect")}
    home["PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"] = "400"
    command = "python -m flows.pipeline"

    def flow(code: int = 0) -> tuple[list[str], dict[str, str], str]:
        """The stages that ran, its tasks with their states, and its words."""
        words = copied.run(command, code, **home)
        tasks = re.findall(r"Task run '(\w+)-\w+' - Finished in state (\w+)", words)
        return ran(words), dict(tasks), words

    done, tasks, _ = flow()
    assert list(tasks) == [*STAGES, "gate"]
    assert (done, tasks) == ([], dict.fromkeys([*STAGES, "gate"], "Unchanged"))
    csv = copied.folder / "inbox/digits.csv"
    good = csv.read_text()
    csv.write_text(good.replace("\n", "\nx", 1))
    done, tasks, words = flow(code=1)
    assert done == ["download", "validate"] and list(tasks) == STAGES[:3]
    assert re.search(r"Error: Stage `validate`: (.|\n)*row 1\b.*label", words)
    csv.write_text(good)
    copied.set(train={"seed": 2})
    known = [run.info.run_id for run in copied.runs()]
    copied.cut_off(command, lambda: len(copied.runs()) > len(known), signal.SIGKILL, **home)
    done, tasks, _ = flow()
    assert done[-1] == "record" and "train_judge" not in done
    (run,) = [run for run in copied.runs() if run.info.run_id not in known]
    assert run.info.status == "FINISHED" and run.data.tags["prefect.flow_run_id"]
    sent_once(copied.client(), run)
    assert tasks["gate"].lower() == copied.read("reports/gate.json")["verdict"]
