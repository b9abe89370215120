"""A store that MLflow's server keeps for all: files go by way of the server, and older ones stay readable."""

from __future__ import annotations

import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from conftest import MLFLOWS_OWN_WARNINGS, free_port
from tracked import a_generator, log_steps, mlflow_server, training
from tracked import root as root

from cgan.errors import TrackingError
from cgan.files import sha256_of
from cgan.registry.archive import generator_file
from cgan.run.follower import flush
from cgan.store.address import open_store, store_uri

pytestmark = [pytest.mark.slow, *MLFLOWS_OWN_WARNINGS]


def recorded(root: Path, key: str, experiment: str) -> str:
    """The id of a run with a picture and a model."""
    with training(root, key, experiment=experiment) as tracker:
        log_steps(tracker)
        tracker.log_model(a_generator(root / "g.safetensors"), 500, {"digest": "d"})
    flush(root)  # a busy machine does not deliver all in time
    client, number = open_store(store_uri(root), root, experiment)
    [run] = client.search_runs([number], f"tags.`cgan.run_key` = '{tracker.info.run_key}'")
    return str(run.info.run_id)


def test_runs_of_before_open_and_new_experiments_keep_files_behind_the_server(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    former = recorded(root, "k1", "former")
    with mlflow_server(root, free_port()) as site:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", site)
        assert_open(root, site, former)
    # Without the server, the database is no way to its files.
    own = f"sqlite:///{root}/mlflow.db"
    open_store(own, root, "former")
    with pytest.raises(TrackingError, match=r"experiment `new` go through MLflow's server"):
        open_store(own, root, "new")


def assert_open(root: Path, site: str, former: str) -> None:
    runs = [former, recorded(root, "k2", "former"), recorded(root, "k3", "new")]
    client, _ = open_store(site, root, "new")
    places = [client.get_run(run).info.artifact_uri.partition(":")[0] for run in runs]
    assert places == ["file", "file", "mlflow-artifacts"]
    for run in runs:
        [picture] = [
            each.path for each in client.list_artifacts(run, "images") if each.path.endswith("png")
        ]
        query = urllib.parse.urlencode({"run_uuid": run, "path": picture})
        with urllib.request.urlopen(f"{site}/get-artifact?{query}") as answer:  # as pages do
            assert answer.read().startswith(b"\x89PNG")
        with generator_file(f"runs:/{run}/generator") as path:
            assert sha256_of(path) == sha256_of(root / "g.safetensors")
