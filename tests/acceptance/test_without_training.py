"""A project whose generator is not trained: from params.yaml to the page, by commands and files."""

from pathlib import Path

import pytest
from door import Project, many, new_project

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_a_run_without_training_draws_says_its_price_and_is_not_run_twice(tmp_path: Path) -> None:
    project: Project = new_project(tmp_path / "project")
    project.set(train={"generator": "local_score"})
    said = project.run("cgan validate inbox/signs.csv")
    assert "drawings" in said
    assert "Its file holds the training images" in project.run("dvc repro")
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
