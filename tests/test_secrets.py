"""Keys planted in the environment, looked for afterwards in everything that was written or said."""

import base64
import logging
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import (
    ROOT,
    Store,
    a_model,
    commit,
    free_port,
    log_steps,
    refusing,
    training,
)
from mlflow import MlflowClient

from cgan.base.errors import TrackingError
from cgan.pipeline.project import SOURCE_FOLDER, TRAINING
from cgan.pipeline.tracking.logged_model import save_mlflow_model
from cgan.pipeline.tracking.run import open_run, read_training

MARK = f"planted-{uuid.uuid4().hex}"


FORMS = [
    MARK.encode(),
    base64.b64encode(f"someone:{MARK}".encode()),
    base64.b64encode(MARK.encode()).rstrip(b"="),
]


@pytest.fixture
def said(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> Callable[[], str]:
    """Everything that was logged, at any level, or printed, by children too."""
    caplog.set_level(logging.DEBUG)
    for noisy in ("httpcore", "httpx", "asyncio", "aiosqlite"):
        caplog.set_level(logging.INFO, noisy)
    monkeypatch.setenv("KAGGLE_USERNAME", "someone")
    monkeypatch.setenv("KAGGLE_KEY", MARK)
    return lambda: caplog.text + "".join(capfd.readouterr())


def holding(*folders: Path) -> list[str]:
    """The files that hold the mark, in clear or as HTTP sends it."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert files
    return [str(path) for path in files if any(form in path.read_bytes() for form in FORMS)]


def test_keys_are_nowhere_after_trainings_whose_server_refuses(
    said: Callable[[], str], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a repository where somebody wrote the key into a source file, params and dvc.yaml: none goes out."""
    shutil.copy(ROOT / "params.yaml", root)
    logged = [root / name for name in ("params.yaml", "dvc.yaml", "dvc.lock")]
    written = [*logged, root / "cgan/mine.py", root / "sent"]
    written[-2].parent.mkdir()
    written[-2].touch()
    commit(root)
    for path in written[:-1]:
        with path.open("a") as file:
            file.write(f"# {MARK}\n")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://someone:{MARK}@127.0.0.1:{free_port()}")
    with pytest.raises(RuntimeError), training("failed"):
        raise RuntimeError("the training failed")
    with refusing() as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://someone:{MARK}@{address}")
        with training("finished") as tracker:
            log_steps(tracker)
        about = read_training(TRAINING)
        with pytest.raises(TrackingError, match=f"MLflow at http://{address}"), open_run(about):
            pass
    written[-1].write_bytes(FORMS[1])
    assert sorted(holding(root)) == sorted(map(str, written)), "the search finds what is there"
    for path in written:
        path.unlink()
    assert holding(root) == []
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/mlflow.db")
    with open_run(about) as run:
        run.log_inputs({})
        run.log_files(sorted(SOURCE_FOLDER.glob("*")), SOURCE_FOLDER.name)
        generator = a_model(root / "generator.safetensors")
        run.log_model(lambda to: save_mlflow_model(generator, to), 1, {"digest": "d"})
    assert len(Store(root / "mlflow.db").runs()) == 1
    # Where the run is goes into models/mlflow_run.json.
    monkeypatch.setattr(MlflowClient, "tracking_uri", f"http://someone:{MARK}@mlflow.example")
    with open_run(about) as run:
        assert run.location["tracking_uri"] == "http://mlflow.example"
    words = said()
    for path in logged:
        assert (
            f"{path.name} is not kept with the run, as it contains the value of KAGGLE_KEY" in words
        )
    (root / "said").write_text(words)
    assert holding(root) == []


@pytest.mark.slow
def test_keys_are_nowhere_after_flows(
    said: Callable[[], str], repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that succeeds, one whose stage fails: in Prefect's database too."""
    from prefect.settings import get_current_settings
    from prefect.testing.utilities import prefect_test_harness

    from flows.pipeline import pipeline

    with refusing() as address, prefect_test_harness(server_startup_timeout=400):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://someone:{MARK}@{address}")
        assert pipeline(return_state=True).is_completed()
        monkeypatch.setenv("FAIL", "train")
        state: Any = pipeline(return_state=True, refresh=True, overrides={"train.seed": 9})
        assert state.is_failed()
        secret = get_current_settings().server.database.connection_url
        assert secret
        database = Path(secret.get_secret_value().partition(":///")[2])
        (tmp_path / "said").write_text(said())
        assert holding(tmp_path, database.parent) == []
        stored = b"".join(path.read_bytes() for path in database.parent.glob(f"{database.name}*"))
        assert b"row 17, column pixel12" in stored, "that is the database"
