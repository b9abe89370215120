"""The generator behind MLflow's server: what it draws, and how it refuses."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import types
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from conftest import ROOT
from mlflow.exceptions import MlflowException
from PIL import Image

from cgan.model.model_file import save_network
from cgan.model.networks import Architecture, build_generator
from cgan.serving.generator import Generator
from cgan.tracking.records import DRAWING_CODE

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


Ask = Callable[[Any], tuple[int, str]]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Ask, Callable[[], float]]]:
    """`mlflow models serve` with a model as the pipeline logs it: ask it, and its memory in MB."""
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

    model_of(tmp_path / "generator.safetensors", 1, 28, 28)
    code = tmp_path / "code" / "cgan"
    for name in DRAWING_CODE:
        (code / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / "cgan" / name, code / name)
    mlflow.pyfunc.save_model(
        str(tmp_path / "model"),
        python_model=str(code / "serving/mlflow_model.py"),
        artifacts={"generator": str(tmp_path / "generator.safetensors")},
        code_paths=[str(code)],
        signature=ModelSignature(
            inputs=Schema([ColSpec("long", "label")]),
            outputs=Schema([ColSpec("string", "png_base64")]),
            params=ParamSchema([ParamSpec("seed", "long", 0)]),
        ),
        input_example=(pd.DataFrame({"label": [0]}), {"seed": 0}),
        pip_requirements=[],
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    programs = str(Path(sys.executable).parent)  # it runs `uvicorn` from PATH
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(tmp_path / "model"),
         "--env-manager", "local", "--port", str(port), "--workers", "1"],
        env={**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"},
        start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip

    def ask(question: Any) -> tuple[int, str]:
        body = question if isinstance(question, bytes) else json.dumps(question).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations", body, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refusal:
            with refusal:
                return refusal.code, refusal.read().decode()

    def memory() -> float:
        family = psutil.Process(process.pid).children(recursive=True)
        return sum(child.memory_info().rss for child in family) / 1e6

    try:
        for _ in range(240):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None
            time.sleep(0.5)
        yield ask, memory
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_f74_server_answers_nonsense_with_4xx_in_bounded_memory_and_lives_on(
    server: tuple[Ask, Callable[[], float]],
) -> None:
    ask, memory = server

    def table(*labels: Any, **params: Any) -> dict[str, Any]:
        rows = [[label] for label in labels]
        return {"dataframe_split": {"columns": ["label"], "data": rows}, "params": params}

    assert ask(table(2, 0, 2, 4, seed=7))[0] == 200
    before = memory()
    nonsense: list[tuple[Any, str]] = [
        (table(10), "is not a class"),
        (table(-1), "is not a class"),
        (table(), "expected 1 to 10,000 labels"),
        (table(*[1] * 1_000_000), "expected 1 to 10,000 labels, got 1,000,000"),
        (table(1, seed=-1), "the seed is -1"),
        (table(1, seed="x"), "Invalid parameters"),
        (table(None), "Failed to convert column label"),
        (table([1]), "Failed to convert column label"),
        ({"dataframe_split": {"columns": ["y"], "data": [[1]]}}, "missing inputs"),
        ({"x": 1}, "must be a JSON dictionary"),
        ([1, 2], "must be a JSON dictionary"),
        (b"{", "valid JSON"),
        (b'{"dataframe_split":{"columns":["label"],"data":[[NaN]]}}', "non-finite"),
    ]
    for question, words in nonsense:
        status, answer = ask(question)
        assert status == 400, (words, status)
        assert words in answer
        assert "Traceback" not in answer
    assert memory() < before + 300
    assert ask(table(2, 0, 2, 4, seed=7))[0] == 200
