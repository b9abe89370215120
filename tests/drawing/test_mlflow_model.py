"""The generator behind MLflow's server: what it draws, how it refuses, and the code that it carries along."""

from __future__ import annotations

import base64
import io
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from conftest import a_model, closure, source_of
from mlflow.exceptions import MlflowException
from PIL import Image

from cgan.pipeline.project import PACKAGE
from cgan.pipeline.tracking.logged_model import DRAWING_CODE, save_mlflow_model

if TYPE_CHECKING:
    from cgan.drawing.mlflow_model import GeneratorModel


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> GeneratorModel:
    from cgan.drawing.mlflow_model import GeneratorModel  # brings mlflow, and that its warnings

    model, path = GeneratorModel(), tmp_path_factory.mktemp("model") / "generator.safetensors"
    model.load_context(types.SimpleNamespace(artifacts={"generator": str(a_model(path))}))
    return model


def test_pictures_are_those_of_the_generator(model: GeneratorModel) -> None:
    drawn = model.predict(pd.DataFrame({"label": [2, 0, 2]}), {"seed": 7})["png_base64"]
    pictures = [np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))) for text in drawn]
    assert np.array_equal(np.stack(pictures), model.generator.draw([2, 0, 2], seed=7))


@pytest.mark.parametrize(
    ("labels", "seed", "words"),
    [
        ([3, 10], 0, "label 10 at index 1 is not a class. The classes are 0 to 9"),
        ([], 0, "expected 1 to 10,000 labels, found 0"),
        (range(10_001), 0, "expected 1 to 10,000 labels, found 10,001"),
        ([1], 2**80, "the seed is "),
    ],
)
def test_a_question_without_sense_or_bound_is_a_client_error(
    model: GeneratorModel, labels: Any, seed: int, words: str
) -> None:
    with pytest.raises(MlflowException, match=words) as refusal:
        model.predict(pd.DataFrame({"label": list(labels)}), {"seed": seed})
    assert refusal.value.get_http_status_code() == 400


def test_a_model_carries_the_code_that_it_draws_with() -> None:
    # The registry is for names of versions, not for a model's file.
    seen = closure("cgan.drawing.mlflow_model", {"cgan.pipeline.registry.runs"})
    files = {str(source_of(name)).removeprefix("cgan/") for name in seen}
    carried = {path for name in DRAWING_CODE for path in PACKAGE.glob(name)}
    assert files < {str(path.relative_to(PACKAGE)) for path in carried}


def test_a_file_with_a_secret_is_no_part_of_the_model_s_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    planted = (PACKAGE / "drawing/card.py").read_text().splitlines()[0]
    monkeypatch.setenv("SOME_TOKEN", planted)
    save_mlflow_model(a_model(tmp_path / "generator.safetensors"), tmp_path / "model")
    files = [path for path in (tmp_path / "model").rglob("*") if path.is_file()]
    kept = {path.name for path in files}
    assert "card.py" not in kept and {"generator.py", "mlflow_model.py"} <= kept
    assert "card.py is left out of the model in MLflow: it contains the value of " in caplog.text
    assert not any(planted.encode() in path.read_bytes() for path in files)
    assert planted not in caplog.text
