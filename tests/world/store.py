"""MLflow's store: a small training that is recorded, and a look into the database at what arrived."""

import contextlib
import http.server
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cgan.base.files import write_bytes
from cgan.pipeline.params_file import load_params
from cgan.pipeline.project import training_folder
from cgan.training.auto import resolve
from world.door import ROOT, on_a_thread, run
from world.images import a_model

if TYPE_CHECKING:
    from cgan.pipeline.registry.client import Registry
    from cgan.pipeline.tracking.live import LiveTracker
    from cgan.pipeline.tracking.run import TrainingRecord

PARAMS = load_params(ROOT / "params.yaml")
LOGGED = list(range(50, 501, 50))
"""The steps of a training that is recorded here."""


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's sqlite store with its tables, to copy. It takes seconds to make and is kept."""
    kept = ROOT / f".cgan/tests/mlflow-{version('mlflow')}.db"
    if not kept.exists():
        folder = tmp_path_factory.mktemp("store")
        make = "from mlflow import MlflowClient; MlflowClient('sqlite:///mlflow.db')"
        run(sys.executable, "-W", "ignore", "-c", make, cwd=folder)
        write_bytes(kept, (folder / "mlflow.db").read_bytes())
    return kept


@pytest.fixture
def root(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with an empty store, and nothing else: the working directory."""
    monkeypatch.chdir(tmp_path)
    # A busy machine's store is no slow one.
    monkeypatch.setattr("cgan.pipeline.tracking.live.PATIENCE_S", 240.0)
    shutil.copyfile(empty_store, tmp_path / "mlflow.db")
    (tmp_path / "dvc.yaml").touch()
    return tmp_path


@contextlib.contextmanager
def training(key: str = "k1", experiment: str = "cgan") -> Iterator["LiveTracker"]:
    """As the stage train does it, in the working directory."""
    from cgan.pipeline.tracking.store import experiment_name
    from cgan.stages.origin import keep_source, origin_tags, project_tree, run_name
    from cgan.stages.train import recorded_params, tracked_training

    source = project_tree()
    data = {"name": "sample", "path": "data/raw/train.csv", "sha256": "ab" * 32, "rows": 36}
    about: TrainingRecord = {
        "run_name": run_name(PARAMS.train),
        "experiment": experiment_name(experiment),
        "params": recorded_params(PARAMS, resolve(PARAMS.train)),
        "tags": {**origin_tags(data, source), "cgan.device": "cpu", "cgan.fingerprint": key},
        "dataset": data,
    }
    keep_source(source)
    with tracked_training(training_folder(key), about) as live:
        yield live
        about["training_s"] = 2.5


def log_steps(live: "LiveTracker", steps: list[int] = LOGGED) -> None:
    for step in steps:
        live.log_metrics({"loss/generator": 1 / step, "progress/kimg": step * 0.064}, step)
    live.log_metrics({"probe/fid_judge": 100 / steps[-1]}, steps[-1])


def add_version(registry: "Registry", seed: int, **tags: str) -> str:
    """A version with a generator of its own, `generator.safetensors`; the id of its run."""
    from cgan.pipeline.tracking.store import experiment_id

    client, path = registry.client, a_model(Path("generator.safetensors"), seed=seed)
    if not registry.versions():
        client.create_registered_model(registry.model)
    run_id = str(client.create_run(experiment_id(client, "cgan")).info.run_id)
    client.log_artifact(run_id, str(path), "generator")
    client.create_model_version(registry.model, f"runs:/{run_id}/generator", run_id, tags=tags)
    return run_id


class Store:
    """What the database holds, past MLflow's own code."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self, query: str, *values: str) -> list[Any]:
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            found = connection.execute(query, values).fetchall()
            connection.commit()
        return found

    def steps(self, key: str) -> list[int]:
        query = "select step from metrics where key = ? order by step"
        return [step for (step,) in self.rows(query, key)]

    def runs(self) -> list[tuple[str, str, str]]:
        return self.rows("select run_uuid, name, status from runs order by start_time")

    def tags(self, run_id: str) -> dict[str, str]:
        return dict(self.rows("select key, value from tags where run_uuid = ?", run_id))

    def params(self, run_id: str) -> dict[str, str]:
        return dict(self.rows("select key, value from params where run_uuid = ?", run_id))


@contextlib.contextmanager
def refusing() -> Iterator[str]:
    """A server that answers 500 and says back what it was sent."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = f"{self.path} {self.headers}".encode()
            self.send_response(500)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_PATCH = answer  # noqa: N815

        def log_message(self, format: str, *args: object) -> None: ...

    with on_a_thread(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as server:
        yield f"127.0.0.1:{server.server_port}"
