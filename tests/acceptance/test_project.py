"""A small project in which everything has run: what is in MLflow, who is served, what the doors draw."""

import re
import signal
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml
from browser import browsing
from conftest import answers, free_port, wait_until
from door import NAMES, STEPS, Project, many, new_project, sent_once
from door import finished as finished

from cgan import Generator

pytestmark = pytest.mark.timeout(1200)  # the first of these tests waits for `finished`
ASKED = [("012", 0), ("ring, bar", 7), ("2" * 9, 2**40)]


def test_a_training_is_one_complete_run_with_nothing_twice(finished: Project) -> None:
    client = finished.client()
    (run,) = finished.runs()
    assert run.info.status == "FINISHED"
    params = yaml.safe_load((finished.folder / "params.yaml").read_text())
    for key in ("discriminator", "latent_dim", "seed", "total_kimg", "batch_size"):
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
    networks = [file.path for file in client.list_artifacts(run.info.run_id, "networks")]
    assert networks == ["networks/generator.safetensors"], "the discriminator stays on the machine"
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert {"run.html", "grid.png", "confusion_matrix.png"} <= files
    (model,) = client.search_logged_models([run.info.experiment_id])
    assert model.source_run_id == run.info.run_id and model.status == "READY"
    assert finished.read("models/mlflow_run.json")["run_id"] == run.info.run_id


def test_a_training_begins_with_its_number_of_steps(finished: Project) -> None:
    said = finished.folder.with_suffix(".txt").read_text()
    assert re.search(rf"^Training .*: {STEPS} steps of \d+$", said, re.MULTILINE), said


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
    calls = [
        [*draw, "file.png"],
        [*draw, "champion.png", "--model", "champion"],
        ["registry", "list"],
    ]
    ended = many([(finished.folder, call) for call in calls])
    assert [code for code, _ in ended] == [0, 0, 0], ended
    drawn = [(finished.folder / name).read_bytes() for name in ("file.png", "champion.png")]
    assert drawn[0] == drawn[1]


def test_names_of_classes_are_drawn_like_their_numbers(finished: Project) -> None:
    texts = {"numbers": "2 0", "names": "ring, bar", "wrong": "ring, bra"}
    calls = [["draw", text, "--out", f"{name}.png"] for name, text in texts.items()]
    ended = many([(finished.folder, call) for call in calls])
    assert [code for code, _ in ended] == [0, 0, 1], ended
    assert "bra" in ended[2][1] and all(name in ended[2][1] for name in NAMES)
    files = [(finished.folder / f"{name}.png").read_bytes() for name in ("numbers", "names")]
    assert files[0] == files[1]


BAD_REQUESTS: list[dict[str, Any]] = [
    {"method": "GET", "url": "/draw?text=7"},
    {"method": "GET", "url": "/draw?text=ring&seed=-1"},
    {"method": "GET", "url": "/draw"},
    {"method": "GET", "url": "/draw?text=0&count=1000000000"},
    {"method": "GET", "url": "/draw?text=0&format=csv"},
    {"method": "GET", "url": f"/draw?text={'0' * 20_000}"},
    {"method": "GET", "url": "/nowhere"},
    {"method": "DELETE", "url": "/draw"},
    {"method": "POST", "url": "/draw", "json": {"text": "0"}},
]


def test_a_service_draws_the_bytes_of_cgan_draw_and_refuses_bad_requests(finished: Project) -> None:
    calls = [
        ["draw", text, "--seed", str(seed), "--out", f"served-{n}.png"]
        for n, (text, seed) in enumerate(ASKED)
    ]
    assert [code for code, _ in many([(finished.folder, call) for call in calls])] == [0] * 3
    with finished.started(f"cgan serve --port {free_port()}") as (process, output):
        wait_until(lambda: re.search(r"http://127.0.0.1:\d+", output.read_text()) or process.poll())
        found = re.search(r"http://127.0.0.1:\d+", output.read_text())
        assert found, output.read_text()
        with httpx.Client(base_url=found[0], timeout=60) as client:
            wait_until(lambda: answers(f"{found[0]}/healthz"))
            for n, (text, seed) in enumerate(ASKED):
                expected = (finished.folder / f"served-{n}.png").read_bytes()
                asked = {"text": text, "seed": seed}
                assert client.get("/draw", params=asked).content == expected
            drawings = client.get("/draw?text=20&format=json").json()["drawings"]
            assert [each["label"] for each in drawings] == [2, 0]
            for request in BAD_REQUESTS:
                refused = client.request(**request)
                assert 400 <= refused.status_code < 500, f"{request}: {refused.status_code}"
                assert "Traceback" not in refused.text and refused.json()["detail"], request
            elsewhere = {"Host": "elsewhere.example"}
            assert client.get("/draw?text=0", headers=elsewhere).status_code == 400
            assert client.get("/draw?text=012").status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert "Traceback" not in output.read_text()


PIXELS = """(() => {
    const drawn = [...document.querySelectorAll("canvas")].find((canvas) =>
        canvas.ariaBusy !== "true" && (canvas.ariaLabel ?? "").includes("seed 7"));
    if (!drawn) return null;
    const { width, height } = drawn;
    const copy = new OffscreenCanvas(width, height).getContext("2d");
    copy.drawImage(drawn, 0, 0);
    return [height, width, Array.from(copy.getImageData(0, 0, width, height).data)];
})()"""


def test_the_page_of_a_run_draws_offline_as_torch_draws(finished: Project, tmp_path: Path) -> None:
    torch = Generator.load(finished.folder / "models/generator.safetensors").draw("2012", seed=7)
    expected = np.concatenate(list(torch.astype(int)), axis=1)
    with browsing(tmp_path / "profile") as page:
        page.start((finished.folder / "reports/run.html").as_uri() + "#text=2012&seed=7")
        height, width, values = page.until(PIXELS)
        assert page.errors == [] and page.elsewhere() == []
    drawn = np.array(values).reshape(height, width, 4)[..., 0]
    assert drawn.shape == expected.shape
    apart = np.abs(drawn - expected)
    assert expected.std() > 30 and (apart <= 1).mean() >= 0.999 and apart.max() <= 2


def test_a_preset_changes_params_yaml_in_the_section_train_only(tmp_path: Path) -> None:
    project = new_project(tmp_path / "project")
    path = project.folder / "params.yaml"
    path.write_text((project.folder / "params.yaml").read_text() + "# mine\n")
    before, text = yaml.safe_load(path.read_text()), path.read_text()
    ended = many([(project.folder, ["preset", name]) for name in ("fast", "fast", "no-such")])
    after = yaml.safe_load(path.read_text())
    assert [code for code, _ in ended] == [0, 0, 1] and "fast" in ended[2][1]
    assert {section for section in before if before[section] != after[section]} == {"train"}
    assert {"total_kimg": 31.0, "latent_dim": 32}.items() <= after["train"].items()
    (code, listed), *_ = many([(project.folder, ["preset"])])
    assert code == 0 and all(name in listed for name in ("fast", "best", "gpu", "demo"))
    assert path.read_text().endswith("# mine\n") and path.read_text() != text


def test_status_and_report_tell_where_a_project_stands_before_and_after(
    finished: Project, tmp_path: Path
) -> None:
    asked = [["status"], ["report"]]
    fresh = new_project(tmp_path / "fresh").folder
    codes, words = zip(*many([(fresh, words) for words in asked]), strict=True)
    assert codes == (0, 1) and all("make repro" in text for text in words), words
    codes, words = zip(*many([(finished.folder, words) for words in asked]), strict=True)
    told = "".join(words)
    assert codes == (0, 0) and "Traceback" not in told
    for fact in (
        "version 1",
        "FINISHED",
        "180 rows",
        "signs.csv",
        "conditional accuracy",
        "run.html",
    ):
        assert fact in told, told
