"""The champion of a real registry, followed: moves under load, a registry that goes away, bad versions."""

from __future__ import annotations

import http.server
import io
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import mlflow
import numpy as np
import pytest
import torch
from conftest import MLFLOWS_OWN_WARNINGS
from served import a_model, command, eventually, running
from tracked import root as root

from cgan.errors import ModelError
from cgan.model.model_file import load_generator
from cgan.model.sampling import draw
from cgan.registry.client import Registry, open_registry
from cgan.service.app import Service
from cgan.service.served import Keeper
from cgan.serving.generator import Generator

pytestmark = MLFLOWS_OWN_WARNINGS
NPZ = {"Accept": "application/x-npz"}


@pytest.fixture
def registry(root: Path) -> Iterator[Registry]:
    """With versions 1 and 2; nobody is champion."""
    with open_registry("cgan") as found:
        client = found.client
        experiment = client.create_experiment("cgan", (root / "artifacts").as_uri())
        client.create_registered_model("cgan")
        for number in (1, 2):
            path = a_model(root / "generator.safetensors", seed=number)
            run_id = client.create_run(experiment).info.run_id
            client.log_artifact(run_id, str(path), "generator")
            client.log_metric(run_id, "quality/fid_judge", number / 10)
            client.create_model_version("cgan", f"runs:/{run_id}/generator", run_id)
            path.rename(root / f"version-{number}.safetensors")
        yield found


def promote(registry: Registry, number: int) -> None:
    registry.promote(number, instead_of=registry.champion(), why="a test")


def serving(keeper: Keeper) -> tuple[int | None, str]:
    """Which version is served, and the problem."""
    return (keeper.current.version if keeper.current else None), keeper.problem or ""


def damage(registry: Registry, number: int) -> Path:
    """Cut off the generator of a version in the store."""
    [path] = Path("artifacts", registry.version(number).run_id).rglob("generator.safetensors")
    path.write_bytes(path.read_bytes()[:-7])
    return path


def drawn(root: Path, number: int, seed: int) -> np.ndarray:
    network, _ = load_generator(root / f"version-{number}.safetensors")
    images: np.ndarray = draw(network, torch.tensor([2, 0, 2, 4]), seed)[:, 0].numpy()
    return images


@pytest.mark.slow
def test_a_champion_that_changes_under_load_loses_no_request_and_mixes_no_answer(
    root: Path, registry: Registry
) -> None:
    promote(registry, 1)
    expected = {n: {seed: drawn(root, n, seed) for seed in range(5)} for n in (1, 2)}
    answers: list[tuple[str, int, bool]] = []
    stop = threading.Event()

    def ask(address: httpx.URL) -> None:
        with httpx.Client(base_url=address, timeout=60) as client:
            seed = 0
            while not stop.is_set():
                seed = (seed + 1) % 5
                question = {"text": "2024", "seed": seed}
                answer = client.post("/draw", json=question, headers=NPZ)
                version = answer.headers.get("cgan-model-version", "none")
                images = (
                    np.load(io.BytesIO(answer.content))["images"] if version != "none" else None
                )
                right = images is not None and np.array_equal(images, expected[int(version)][seed])
                answers.append((version, answer.status_code, right))

    with command(folder=root) as (_, client):
        threads = [threading.Thread(target=ask, args=(client.base_url,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        eventually(lambda: len(answers) > 20)
        began = time.monotonic()
        promote(registry, 2)
        eventually(lambda: answers[-1][0] == "2")
        took = time.monotonic() - began
        registry.rollback("a test")
        eventually(lambda: answers[-1][0] == "1")
        stop.set()
        for thread in threads:
            thread.join(60)
    assert {version for version, _, _ in answers} == {"1", "2"}
    assert all(status == 200 and right for _, status, right in answers)
    assert (
        took < 15
    )  # some seconds: a look every other one, on a machine that is busy with the load


def ready(client: httpx.Client, part: str) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/readyz").json()[part]
    return found


@pytest.mark.slow
def test_the_last_good_model_stays_while_the_registry_is_away_and_readyz_says_so(
    root: Path, registry: Registry
) -> None:
    promote(registry, 1)
    with command(folder=root) as (service, client):
        assert ready(client, "registry")["answers"] is True
        (root / "mlflow.db").rename(root / "elsewhere.db")
        eventually(lambda: ready(client, "registry")["answers"] is False)
        found = client.get("/readyz")
        assert found.status_code == 200
        assert found.json()["model"]["version"] == 1
        assert "there is no MLflow store" in found.json()["registry"]["problem"]
        assert client.post("/draw", json={"text": "1"}).headers["cgan-model-version"] == "1"
        (root / "elsewhere.db").rename(root / "mlflow.db")
        promote(registry, 2)
        eventually(lambda: ready(client, "model")["version"] == 2)
        eventually(lambda: ready(client, "registry")["problem"] is None)
        assert ready(client, "registry")["seconds_since_answer"] < 5
        said = "".join(service.said)
        assert "Served for now: version 1 of `cgan`" in said
        assert said.count("there is no MLflow store") == 1
        assert "served is now version 2 of `cgan`" in said


@pytest.fixture
def blocked(root: Path) -> Path:
    """A project's generator that is not to be served while nobody can say who is champion."""
    return a_model(root / "models/generator.safetensors", seed=9)


def test_f73_a_start_while_the_registry_is_away_serves_the_copy_of_the_last_champion(
    root: Path, registry: Registry, blocked: Path, caplog: pytest.LogCaptureFixture
) -> None:
    promote(registry, 2)
    served = Keeper().current
    assert served
    assert (served.version, served.alias, served.registered) == (2, "champion", "cgan")
    assert served.about()["metrics"] == {"fid_judge": 0.2}
    assert served.digest == Generator.load("version-2.safetensors").facts["digest"]
    (root / "mlflow.db").rename(root / "elsewhere.db")
    assert Keeper("champion").current
    keeper = Keeper()
    with running(Service(keeper)) as client:
        ready = client.get("/readyz")
        assert ready.status_code == 200
        assert (ready.json()["model"]["version"], ready.json()["model"]["kept_copy"]) == (2, True)
        assert ready.json()["registry"]["answers"] is False
        assert "there is no MLflow store" in ready.json()["registry"]["problem"]
        answer = client.post("/draw", json={"text": "2024", "seed": 3}, headers=NPZ)
        images = np.load(io.BytesIO(answer.content))["images"]
        assert np.array_equal(images, drawn(root, 2, 3))
        assert "version 2 of `cgan`" in (page := client.get("/").text)
        assert "the copy kept on this machine" in page
    assert "the copy kept on this machine" in caplog.text
    (root / "elsewhere.db").rename(root / "mlflow.db")
    keeper._look()
    assert serving(keeper) == (2, "") and keeper.current and not keeper.current.kept
    assert keeper.current.metrics == {"fid_judge": 0.2}


def test_f73_a_start_while_the_registry_is_away_and_no_copy_was_kept_refuses_until_it_answers(
    root: Path, registry: Registry, blocked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(registry, 1)
    assert Keeper().current  # keeps a copy, which is of this store alone
    (root / "mlflow.db").rename(root / "other.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/another.db")
    keeper = Keeper()
    with running(Service(keeper)) as client:
        for path in ("/draw?text=1", "/"):
            refused = client.get(path)
            assert refused.status_code == 503
            assert "nothing is served yet: there is no MLflow store" in refused.json()["detail"]
        assert client.get("/readyz").status_code == 503
        assert client.get("/readyz").json()["model"] is None
        (root / "other.db").rename(root / "another.db")
        keeper._look()
        assert client.get("/readyz").json()["model"]["version"] == 1


def test_f73_a_store_that_answers_503_is_not_one_without_a_champion(
    root: Path, blocked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Away(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(503)

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Away) as server:
        threading.Thread(target=server.serve_forever).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_port}")
        keeper = Keeper()
        server.shutdown()
    assert keeper.current is None
    assert "cannot be used" in str(keeper.problem)


def test_f73_a_champion_that_cannot_be_loaded_is_not_replaced_by_the_projects_generator(
    root: Path, registry: Registry, blocked: Path
) -> None:
    promote(registry, 1)
    shutil.move("artifacts", "away")
    keeper = Keeper()
    assert keeper.answers
    assert keeper.current is None
    assert "version 1 of `cgan`, cannot be loaded" in str(keeper.problem)


def test_a_champion_whose_file_is_damaged_changes_nothing_until_it_is_mended_or_replaced(
    root: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cgan.service.served.RETRY_S", 0.0)
    client, first = registry.client, registry.version(1)
    client.create_model_version("cgan", f"runs:/{first.run_id}/generator", first.run_id)
    promote(registry, 1)
    keeper = Keeper("champion")
    whole = Path("version-2.safetensors").read_bytes()
    damaged = damage(registry, 2)
    promote(registry, 2)
    at_start = Keeper("champion")
    keeper._look()
    for each in (keeper, at_start):
        number, problem = serving(each)
        assert number == 1 and each.answers, "the one before"
        assert "the champion, version 2 of `cgan`, cannot be loaded" in problem
    damaged.write_bytes(whole)
    keeper._look()
    assert serving(keeper) == (2, "")
    before = keeper.current
    keeper._look()
    assert keeper.current is before, "nothing is loaded again"
    promote(registry, 3)
    at_start._look()
    assert serving(at_start) == (3, "")


def test_where_nobody_is_champion_a_file_is_served_until_somebody_is(
    root: Path, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    def source() -> str:
        assert keeper.current
        return keeper.current.source

    keeper = Keeper()
    assert source() == "digits", "the package's own"
    shutil.copyfile("version-2.safetensors", a_model(root / "models/generator.safetensors"))
    keeper = Keeper()
    assert source() == "models/generator.safetensors"
    assert "has no champion" in caplog.text
    assert "Served for now: models/generator.safetensors" in caplog.text
    promote(registry, 1)
    keeper._look()
    assert serving(keeper) == (1, "")


@pytest.mark.slow
def test_an_alias_that_nobody_has_is_waited_for(root: Path, registry: Registry) -> None:
    with command("--model", "champion", folder=root) as (_, client):
        refused = client.get("/draw?text=1")
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        assert "nothing is served yet: `cgan` has no champion" in refused.json()["detail"]
        for path in ("/", "/model"):
            assert client.get(path).status_code == 503
        assert client.get("/readyz").status_code == 503
        assert client.get("/healthz").status_code == 200
        promote(registry, 2)
        eventually(lambda: client.get("/readyz").status_code == 200)
        assert client.get("/draw?text=1").headers["cgan-model-version"] == "2"


def test_a_file_or_address_that_is_no_generator_is_refused_at_once(
    root: Path, registry: Registry
) -> None:
    for asked in ("nowhere.safetensors", "models:/cgan/7", "runs:/none/generator"):
        with pytest.raises(ModelError):
            Keeper(asked)
    keeper = Keeper("models:/cgan/2")
    assert keeper.current
    assert (keeper.alias, keeper.current.digest) == (
        None,
        Generator.load("version-2.safetensors").facts["digest"],
    )


def test_without_mlflow_a_file_is_served_and_an_alias_refused_in_words(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = "cgan.service.served.importlib.util.find_spec"
    monkeypatch.setattr(found, lambda name: None)
    with pytest.raises(ModelError, match="MLflow is not installed"):
        Keeper("champion")
    keeper = Keeper()
    assert keeper.alias is None
    assert keeper.current


def test_metrics_that_cannot_be_read_now_are_asked_for_again(
    root: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = {"fid_judge": {"value": 1.5, "floor": 0.5}, "passport": {"seed": 1},
              "conditional_accuracy": {"value": 0.9, "floor": 1.0, "by_class": [0.8, 1.0]}}  # fmt: skip
    run_id = registry.version(1).run_id
    registry.client.log_dict(run_id, report, "reports/evaluation.json")
    promote(registry, 1)
    away = threading.Event()
    away.set()
    download = mlflow.artifacts.download_artifacts

    def download_artifacts(artifact_uri: str, **named: Any) -> str:
        if away.is_set() and "evaluation" in artifact_uri:
            raise ConnectionError("the store is away")
        return str(download(artifact_uri, **named))

    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", download_artifacts)
    keeper = Keeper("champion")
    assert keeper.current
    assert keeper.current.metrics == {"fid_judge": 0.1}  # of the run, by the same keys
    assert keeper.current.passport is None
    assert keeper.problem
    assert "reports/evaluation.json of run" in keeper.problem
    keeper._look()
    assert "cannot give it now" in str(keeper.problem)
    away.clear()
    keeper._look()
    assert keeper.problem is None
    assert keeper.current.passport == {"seed": 1}
    assert keeper.current.metrics and keeper.current.metrics["fid_judge"] == 1.5
    before = keeper.current
    keeper._look()
    assert keeper.current is before


def test_a_version_that_fails_in_whatever_way_is_not_tried_again_at_each_look(
    root: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(registry, 1)
    keeper = Keeper("champion")
    tries: list[Path] = []

    def failing(path: Path) -> Any:
        tries.append(path)
        raise MemoryError

    monkeypatch.setattr("cgan.service.served.load_generator", failing)
    promote(registry, 2)
    for _ in range(3):
        keeper._look()
        assert keeper.problem
        assert "version 2 of `cgan`, cannot be loaded (MemoryError)." in keeper.problem
        assert keeper.answers
    assert len(tries) == 1


def test_the_registry_is_not_away_while_it_is_asked(
    root: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(registry, 1)
    keeper = Keeper("champion")
    seen: list[tuple[bool, str | None]] = []
    aliases = Registry.aliases

    def slow(self: Registry) -> dict[str, int]:
        seen.append((keeper.answers, keeper.problem))
        return aliases(self)

    monkeypatch.setattr(Registry, "aliases", slow)
    keeper._look()
    assert seen == [(True, None)]
