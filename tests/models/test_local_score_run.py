"""A run with `train.generator: local_score`: every stage, and what draws afterwards."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from conftest import (
    NAMES,
    TINY,
    UNEVEN,
    Project,
    page_data,
    running,
    uneven,
    write_csv,
    write_params,
)
from typer.testing import CliRunner

from cgan.base.files import write_json
from cgan.cli import app
from cgan.data.images import load_images
from cgan.drawing.generator import Generator
from cgan.models import local_score
from cgan.models.local_score import LocalScoreSampler, LocalScoreSettings
from cgan.page import image_facts
from cgan.pipeline import project
from cgan.quality import intervals
from cgan.quality.evaluation import Evaluation
from cgan.service.app import MAX_ANSWER_S
from cgan.stages import evaluate, page, preprocess, record, render, train, train_judge, validate

PRICE = "its file is the training images"


@pytest.fixture(scope="module", autouse=True)
def sampled(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Path]:
    """The folder of a project in which all stages but download have run: the working directory."""
    folder = tmp_path_factory.mktemp("sampled")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setattr(intervals, "REPLICATES", 20)
        patch.setattr(image_facts, "MAX_PAGE_S", 1.0)
        patch.setattr(local_score, "suitable_settings", lambda *_: LocalScoreSettings(steps=6))
        shutil.copy(empty_store, folder / "mlflow.db")
        write_params(folder, **TINY)
        kind = {"generator": "local_score", "score_window_scale": 1.5}
        colour = {**UNEVEN["validate"], "channels": 3}
        write_params(folder, validate=colour, train_judge={"total_kimg": 6.0}, train=kind)
        write_csv(project.CSV, uneven(channels=3))
        write_json(project.DATA_SOURCE, {"source": "file", "origin": "three.csv", "rows": 36})
        for stage in (validate, preprocess, train_judge, train, evaluate, render, page, record):
            stage.main()
        yield folder


def command(*words: str) -> Any:
    return CliRunner().invoke(app, words)


def test_its_file_is_the_training_images_and_says_what_made_it() -> None:
    generator, data = Generator.load(project.GENERATOR), load_images(project.TRAIN_DATA)
    assert isinstance(generator.model, LocalScoreSampler)
    assert torch.equal(generator.model.images, data.tensors.pixels)
    assert torch.equal(generator.model.labels, data.tensors.labels)
    assert generator.model.settings.window_scale == 1.5
    assert set(generator.facts["params"]) == {"generator", "score_window_scale"}
    assert generator.facts["data_digest"] == data.digest
    assert (generator.class_names, generator.shape) == (NAMES, (8, 12, 3))
    assert f"local score sampler of {len(data)} training images" in repr(generator)
    assert len(project.LOSSES.read_text().splitlines()) == 1, "no row"
    assert not [*project.PREVIEWS.glob("*.png")] and project.LATENT_INTERPOLATION.is_file()


def test_page_and_card_say_the_price_and_show_drawings_by_class(tmp_path: Path) -> None:
    text = project.RUN_PAGE.read_text()
    shown = re.findall(r'<figure data-label="(\d)">', text)
    assert "weights" not in page_data(text) and len(text) < 4e6
    assert shown == ["0", "1", "2"] and text.count('alt="A drawing of ') > 50
    assert PRICE in text and "This generator was not trained" in text
    folder = tmp_path / "card"
    assert "--publish-anyway" in str(command("card", str(folder)).exception)
    assert not folder.exists() and command("card", str(folder), "--publish-anyway").exit_code == 0
    text = (folder / "README.md").read_text()
    assert PRICE in text and "not trained" in text and "DCGAN" not in text and "None" not in text


def test_the_service_says_the_price_and_draws_no_more_than_it_can_soon() -> None:
    generator = Generator.load(project.GENERATOR)
    with running(project.GENERATOR) as client:
        assert PRICE in client.get("/").text
        assert "training images" in client.get("/healthz").json()["model"]["caution"]
        most = int(MAX_ANSWER_S / generator.model.seconds_per_drawing)
        refused = client.get("/draw", params={"text": "pear", "count": most + 1})
        assert f"at most {most:,}" in refused.json()["detail"]


def test_its_run_in_mlflow_is_complete_and_its_model_draws(sampled: Path) -> None:
    import mlflow.pyfunc

    client, (run,) = Project(sampled).client(), Project(sampled).runs()
    assert run.info.status == "FINISHED" and run.data.params["train.generator"] == "local_score"
    assert "train.lr" not in run.data.params, "of a training"
    assert run.data.metrics["quality/conditional_accuracy"] > 0.5
    (model,) = client.search_logged_models([run.info.experiment_id])
    mlflow.set_tracking_uri(str(client.tracking_uri))
    loaded = mlflow.pyfunc.load_model(f"models:/{model.model_id}")
    assert len(loaded.predict(pd.DataFrame({"label": [2]}), params={"seed": 7})) == 1
    found = Evaluation.read(project.EVALUATION)
    assert found.score("copies").value is not None
    assert found.context["drawn_images"] == 300, "100 of each class"
