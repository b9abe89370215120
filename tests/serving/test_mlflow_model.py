"""The generator behind MLflow's server: what it draws, and how it refuses."""

from __future__ import annotations

import base64
import io
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.exceptions import MlflowException
from PIL import Image

from cgan.model.model_file import save_network
from cgan.model.networks import Architecture, build_generator
from cgan.serving.generator import Generator

if TYPE_CHECKING:
    from cgan.serving.mlflow_model import GeneratorModel

pytestmark = [  # MLflow's own
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred:UserWarning"),
]


def model_of(path: Path, *shape: int) -> GeneratorModel:
    from cgan.serving.mlflow_model import GeneratorModel  # brings mlflow, and that its warnings

    torch.manual_seed(0)
    save_network(path, build_generator(Architecture("deconv", 10, *shape, 4, 6)), {})
    model = GeneratorModel()
    model.load_context(types.SimpleNamespace(artifacts={"generator": str(path)}))
    return model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> GeneratorModel:
    return model_of(tmp_path_factory.mktemp("model") / "generator.safetensors", 1, 28, 28)


def test_pictures_are_those_of_the_generator(model: GeneratorModel) -> None:
    drawn = model.predict(pd.DataFrame({"label": [2, 0, 2]}), {"seed": 7})["png_base64"]
    pictures = [np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))) for text in drawn]
    generator: Generator = model.generator
    assert np.array_equal(np.stack(pictures), generator.draw([2, 0, 2], seed=7))


@pytest.mark.parametrize(
    ("labels", "seed", "words"),
    [
        ([3, 10], 0, "label 10 at index 1 is not a class. The classes are 0 to 9"),
        ([-1], 0, "label -1 at index 0 is not a class"),
        ([], 0, "expected 1 to 10,000 labels, got 0"),
        (range(10_001), 0, "expected 1 to 10,000 labels, got 10,001"),
        ([1], -1, "the seed is -1"),
        ([1], 2**80, "expected a whole number from 0 to"),
    ],
)
def test_f74_question_without_sense_is_a_client_error_with_the_reason(
    model: GeneratorModel, labels: Any, seed: int, words: str
) -> None:
    with pytest.raises(MlflowException) as refusal:
        model.predict(pd.DataFrame({"label": list(labels)}), {"seed": seed})
    assert words in str(refusal.value)
    assert refusal.value.get_http_status_code() == 400


def test_f74_answer_is_bounded_in_bytes_for_large_pictures(tmp_path: Path) -> None:
    model = model_of(tmp_path / "generator.safetensors", 3, 256, 256)
    with pytest.raises(MlflowException, match="expected 1 to 682 labels, got 683"):
        model.predict(pd.DataFrame({"label": [0] * 683}))
