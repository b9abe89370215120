"""A small project in which everything has run: what is in MLflow, who is served, what the doors draw."""

import re
import signal
from pathlib import Path

import httpx
import pytest
import yaml
from conftest import answers, free_port, wait_until
from door import STEPS, Project, many, new_project, sent_once
from door import finished as finished

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


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
        assert point.value == pytest.approx(made[key])
    probes = client.get_metric_history(run.info.run_id, "probe/conditional_accuracy")
    assert len(probes) >= 2 and probes[-1].step == STEPS
    pictures = [file.path for file in client.list_artifacts(run.info.run_id, "images")]
    assert {*map(int, re.findall(r"step\+(\d+)", "\n".join(pictures)))} >= {0, STEPS}
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert {"run.html", "grid.png", "confusion_matrix.png"} <= files
    (model,) = client.search_logged_models([run.info.experiment_id])
    assert model.source_run_id == run.info.run_id and model.status == "READY"
    assert finished.read("models/mlflow_run.json")["run_id"] == run.info.run_id


def test_a_second_repro_runs_nothing_and_records_nothing(finished: Project) -> None:
    before = [run.to_dictionary() for run in finished.runs()]
    assert "Running stage" not in finished.run("dvc repro")
    assert [run.to_dictionary() for run in finished.runs()] == before


def test_the_gate_makes_the_first_good_generator_champion_and_it_draws(finished: Project) -> None:
    assert finished.read("reports/gate.json")["verdict"] == "promoted"
    assert "champion" in (finished.folder / "reports/gate.md").read_text()
    (run,), client = finished.runs(), finished.client()
    champion = client.get_model_version_by_alias("cgan", "champion")
    assert (int(champion.version), champion.run_id) == (1, run.info.run_id)
    draw = ["draw", "0 1 2", "--seed", "5", "--out"]
    calls = [*draw, "file.png"], [*draw, "champion.png", "--model", "champion"]
    ended = many([(finished.folder, call) for call in calls])
    assert [code for code, _ in ended] == [0, 0], ended
    drawn = [(finished.folder / name).read_bytes() for name in ("file.png", "champion.png")]
    assert drawn[0] == drawn[1]


def test_a_service_draws_the_bytes_of_cgan_draw(finished: Project) -> None:
    """And refuses what it cannot draw."""
    draw = ["draw", "ring, bar", "--seed", "7", "--out", "served.png"]
    assert [code for code, _ in many([(finished.folder, draw)])] == [0]
    with finished.started(f"cgan serve --port {free_port()}") as (process, output):
        wait_until(lambda: re.search(r"http://127.0.0.1:\d+", output.read_text()) or process.poll())
        found = re.search(r"http://127.0.0.1:\d+", output.read_text())
        assert found, output.read_text()
        wait_until(lambda: answers(f"{found[0]}/healthz"))
        with httpx.Client(base_url=found[0], timeout=60) as client:
            drawn = client.get("/draw", params={"text": "ring, bar", "seed": 7}).content
            assert drawn == (finished.folder / "served.png").read_bytes()
            refused = client.get("/draw", params={"text": "7"})
            assert 400 <= refused.status_code < 500 and refused.json()["detail"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == -signal.SIGTERM
        assert "Traceback" not in output.read_text()


def test_status_and_report_tell_where_a_project_stands(finished: Project) -> None:
    ended = many([(finished.folder, ["status"]), (finished.folder, ["report"])])
    assert [code for code, _ in ended] == [0, 0]
    told = "".join(words for _, words in ended)
    facts = ("version 1", "FINISHED", "180 rows", "signs.csv", "conditional accuracy", "run.html")
    assert [fact for fact in facts if fact not in told] == [], told


def test_a_run_without_training_draws_and_says_its_price(tmp_path: Path) -> None:
    """The sampler's file holds the training images."""
    project = new_project(tmp_path / "project")
    project.set(train={"generator": "local_score"})
    said = project.run("cgan validate inbox/signs.csv")
    assert "drawings" in said
    assert "its file holds the training images" in project.run("dvc repro")
    (run,) = project.runs()
    assert run.info.status == "FINISHED" and run.data.params["train.generator"] == "local_score"
    assert project.read("reports/metrics.json")["quality"]["conditional_accuracy"] > 0.9
    page = (project.folder / "reports/run.html").read_text()
    assert "its file is the training images" in page and "gallery-class" in page
    draw = ["draw", "ring, bar", "--seed", "5", "--out"]
    calls = [
        [*draw, "one.png"],
        [*draw, "two.png"],
        ["draw", "--per-class", "2", "--out", "set"],
        ["report"],
        ["card", "hub"],
        ["card", "hub", "--publish-anyway"],
    ]
    ended = many([(project.folder, call) for call in calls])
    assert [code for code, _ in ended] == [0, 0, 0, 0, 1, 0], ended
    one, two = ((project.folder / name).read_bytes() for name in ("one.png", "two.png"))
    assert one == two
    assert len(list((project.folder / "set").rglob("*.png"))) == 6
    assert "--publish-anyway" in ended[4][1]
    assert (project.folder / "hub/generator.safetensors").is_file()
    assert "Running stage" not in project.run("dvc repro")
