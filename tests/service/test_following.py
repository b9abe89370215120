"""The champion of a real registry, followed: moves under load, a registry that goes away, bad versions."""

from __future__ import annotations

import contextlib
import http.server
import io
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
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
from cgan.service.served import Keeper
from cgan.serving.generator import Generator

pytestmark = MLFLOWS_OWN_WARNINGS
NPZ = {"Accept": "application/x-npz"}


def report_of(number: int) -> dict[str, Any]:
    accuracy = {"value": 0.9, "floor": 1.0, "by_class": [0.8, 1.0]}
    fid = {"value": number / 10, "floor": 0.05}
    return {"fid_judge": fid, "conditional_accuracy": accuracy, "passport": {"seed": number}}


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
            client.log_dict(run_id, report_of(number), "reports/evaluation.json")
            client.create_model_version("cgan", f"runs:/{run_id}/generator", run_id)
            path.rename(root / f"version-{number}.safetensors")
        yield found


def promote(registry: Registry, number: int) -> None:
    registry.promote(number, instead_of=registry.champion(), why="a test")


def following(asked: str | None = None) -> Keeper:
    return Keeper(asked, poll_s=0.05)


def version(keeper: Keeper) -> int | None:
    return keeper.current.version if keeper.current else None


def source(keeper: Keeper) -> str | None:
    return keeper.current.source if keeper.current else None


@contextlib.contextmanager
def away(store: Path) -> Iterator[None]:
    """As long as this lasts, the store cannot be asked."""
    elsewhere = store.rename(store.with_suffix(".away"))
    yield
    elsewhere.rename(store)


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


def test_the_last_good_model_stays_while_the_registry_is_away_and_readyz_says_so(
    root: Path, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    promote(registry, 1)
    caplog.set_level("INFO", "cgan.service")
    with following() as keeper, running(keeper) as client:

        def ready(part: str) -> dict[str, Any]:
            answer = client.get("/readyz")
            assert answer.status_code == 200
            return dict(answer.json()[part])

        assert ready("registry")["problem"] is None
        with away(root / "mlflow.db"):
            eventually(lambda: "there is no MLflow store" in (ready("registry")["problem"] or ""))
            assert ready("model")["version"] == 1
            assert client.post("/draw", json={"text": "1"}).headers["cgan-model-version"] == "1"
        promote(registry, 2)
        eventually(lambda: ready("model")["version"] == 2)
        eventually(lambda: ready("registry")["problem"] is None)
        assert ready("registry")["seconds_since_answer"] < 5
    assert "Served for now: version 1 of `cgan`" in caplog.text
    assert caplog.text.count("there is no MLflow store") == 1
    assert "served is now version 2 of `cgan`" in caplog.text


@pytest.fixture
def blocked(root: Path) -> Path:
    """A project's generator that is not to be served while nobody can say who is champion."""
    return a_model(root / "models/generator.safetensors", seed=9)


def test_f73_a_start_while_the_registry_is_away_serves_the_copy_of_the_last_champion(
    root: Path, registry: Registry, blocked: Path, caplog: pytest.LogCaptureFixture
) -> None:
    promote(registry, 2)
    with following() as keeper:
        served = keeper.current
    assert served
    assert (served.version, served.alias, served.registered) == (2, "champion", "cgan")
    assert served.quality["metrics"]["fid_judge"] == 0.2
    assert served.quality["passport"] == {"seed": 2}
    assert served.digest == Generator.load("version-2.safetensors").facts["digest"]
    with contextlib.ExitStack() as stack:
        with away(root / "mlflow.db"):
            keeper = stack.enter_context(following())
            client = stack.enter_context(running(keeper))
            ready = client.get("/readyz")
            assert ready.status_code == 200
            assert ready.json()["model"]["version"] == 2
            assert ready.json()["model"]["kept_copy"] is True
            assert "there is no MLflow store" in ready.json()["registry"]["problem"]
            answer = client.post("/draw", json={"text": "2024", "seed": 3}, headers=NPZ)
            images = np.load(io.BytesIO(answer.content))["images"]
            assert np.array_equal(images, drawn(root, 2, 3))
            assert "version 2 of `cgan`" in (page := client.get("/").text)
            assert "the copy kept on this machine" in page
            assert "the copy kept on this machine" in caplog.text
        eventually(lambda: client.get("/readyz").json()["model"]["kept_copy"] is False)
        assert client.get("/model").json()["metrics"]["fid_judge"] == 0.2


def test_f73_a_start_while_the_registry_is_away_and_no_copy_was_kept_refuses_until_it_answers(
    root: Path, registry: Registry, blocked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(registry, 1)
    with following():
        pass  # keeps a copy, which is of this store alone
    (root / "mlflow.db").rename(root / "other.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/another.db")
    with following() as keeper, running(keeper) as client:
        for path in ("/draw?text=1", "/"):
            refused = client.get(path)
            assert refused.status_code == 503
            assert "nothing is served yet: there is no MLflow store" in refused.json()["detail"]
        assert client.get("/readyz").status_code == 503
        assert client.get("/readyz").json()["model"] is None
        (root / "other.db").rename(root / "another.db")
        eventually(lambda: version(keeper) == 1)


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
        with following() as keeper:
            assert keeper.current is None
            assert "cannot be used" in str(keeper.problem)
        server.shutdown()


def test_f73_a_champion_that_cannot_be_loaded_is_not_replaced_by_the_projects_generator(
    root: Path, registry: Registry, blocked: Path
) -> None:
    promote(registry, 1)
    shutil.move("artifacts", "away")
    with following() as keeper:
        assert keeper.answer_age_s() is not None
        assert keeper.current is None
        assert "version 1 of `cgan`, cannot be loaded" in str(keeper.problem)


def test_a_champion_whose_file_is_damaged_changes_nothing_until_it_is_restored_or_replaced(
    root: Path, registry: Registry
) -> None:
    client, first = registry.client, registry.version(1)
    client.create_model_version("cgan", f"runs:/{first.run_id}/generator", first.run_id)
    promote(registry, 1)
    folder = Path("artifacts", registry.version(2).run_id)
    [damaged] = folder.rglob("generator.safetensors")
    whole = damaged.read_bytes()
    with following() as keeper:
        damaged.write_bytes(whole[:-7])
        promote(registry, 2)
        eventually(lambda: keeper.problem)
        with following() as at_start:
            for each in (keeper, at_start):
                assert version(each) == 1, "the one before"
                assert "the champion, version 2 of `cgan`, cannot be loaded" in str(each.problem)
            damaged.write_bytes(whole)
            eventually(lambda: version(at_start) == 2 and not at_start.problem)
        eventually(lambda: version(keeper) == 2 and not keeper.problem)
        promote(registry, 3)
        eventually(lambda: version(keeper) == 3)


def test_a_version_that_fails_in_whatever_way_leaves_the_last_one(
    root: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(path: Path) -> Any:
        raise MemoryError

    promote(registry, 1)
    with following("champion") as keeper:
        monkeypatch.setattr("cgan.service.served.load_generator", failing)
        promote(registry, 2)
        eventually(lambda: "failed (MemoryError)" in (keeper.problem or ""))
        assert version(keeper) == 1


def test_where_nobody_is_champion_a_file_is_served_until_somebody_is(
    root: Path, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    with following() as keeper:
        assert source(keeper) == "digits", "the package's own"
    shutil.copyfile("version-2.safetensors", a_model(root / "models/generator.safetensors"))
    with following() as keeper:
        assert source(keeper) == "models/generator.safetensors"
        assert "has no champion" in caplog.text
        assert "Served for now: models/generator.safetensors" in caplog.text
        promote(registry, 1)
        eventually(lambda: version(keeper) == 1)


def test_an_alias_that_nobody_has_is_waited_for(root: Path, registry: Registry) -> None:
    with following("champion") as keeper, running(keeper) as client:
        refused = client.get("/draw?text=1")
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        assert "nothing is served yet: `cgan` has no champion" in refused.json()["detail"]
        for path in ("/", "/model", "/readyz"):
            assert client.get(path).status_code == 503
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
    assert keeper.alias is None
    assert source(keeper) == "models:/cgan/2"


def test_without_a_registry_a_file_is_served_and_without_mlflow_an_alias_is_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with following() as keeper:
        assert source(keeper) == "digits"
    found = "cgan.service.served.importlib.util.find_spec"
    monkeypatch.setattr(found, lambda name: None)
    with pytest.raises(ModelError, match="MLflow is not installed"):
        Keeper("champion")
    keeper = Keeper()
    assert (keeper.alias, source(keeper)) == (None, "digits")
