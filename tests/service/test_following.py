"""The champion of a real registry, followed: moves under load, a registry that goes away, bad versions."""

from __future__ import annotations

import contextlib
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
from cgan.model.file_facts import read_facts
from cgan.model.model_file import load_generator
from cgan.model.sampling import draw
from cgan.registry.client import Registry, open_registry
from cgan.reports.card import known
from cgan.service.served import Keeper
from cgan.serving.generator import Generator

pytestmark = MLFLOWS_OWN_WARNINGS
NPZ = {"Accept": "application/x-npz"}


def report_of(number: int, path: Path) -> dict[str, Any]:
    accuracy = {"value": 0.9, "floor": 1.0, "by_class": [0.8, 1.0]}
    fid = {"value": number / 10, "floor": 0.05}
    passport = {"seed": number, "generator_digest": read_facts(path, "generator")["digest"]}
    return {"fid_judge": fid, "conditional_accuracy": accuracy, "passport": passport}


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
            client.log_dict(run_id, report_of(number, path), "reports/evaluation.json")
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


def images_of(answer: httpx.Response) -> np.ndarray:
    images: np.ndarray = np.load(io.BytesIO(answer.content))["images"]
    return images


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
    answers: list[tuple[str, bool]] = []
    stop = threading.Event()

    def ask(client: httpx.Client) -> None:
        while not stop.is_set():
            seed = len(answers) % 5
            answer = client.post("/draw", json={"text": "2024", "seed": seed}, headers=NPZ)
            number = answer.headers["cgan-model-version"]
            right = np.array_equal(images_of(answer), expected[int(number)][seed])
            answers.append((number, right))

    with command(folder=root) as (_, _, client):
        threads = [threading.Thread(target=ask, args=(client,)) for _ in range(8)]
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
    assert {number for number, _ in answers} == {"1", "2"} and all(right for _, right in answers)
    assert took < 15, "a look every two seconds, on a machine that is busy with the load"


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
            assert client.post("/draw", json={"text": "1"}).headers["cgan-model-version"] == "1"
        promote(registry, 2)
        eventually(lambda: ready("model")["version"] == 2)
        eventually(lambda: ready("registry")["problem"] is None)
        assert ready("registry")["seconds_since_answer"] < 5
    assert caplog.text.count("there is no MLflow store") == 1, "logged once"


def test_a_model_card_of_the_champion_has_the_evaluation_of_its_run(registry: Registry) -> None:
    promote(registry, 2)
    report, reference = known(Generator.load("champion"))
    assert report["fid_judge"]["value"] == 0.2
    assert reference["run_id"] == registry.version(2).run_id


@pytest.fixture
def blocked(root: Path) -> Path:
    """A project's generator that is not to be served while nobody can say who is champion."""
    return a_model(root / "models/generator.safetensors", seed=9)


def test_f73_a_start_while_the_registry_is_away_serves_the_copy_of_the_last_champion(
    root: Path, registry: Registry, blocked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(registry, 2)
    with following() as keeper:
        served = keeper.current
    assert served
    assert (served.version, served.alias, served.registered) == (2, "champion", "cgan")
    assert served.quality["metrics"]["fid_judge"] == 0.2
    assert served.quality["passport"]["seed"] == 2
    with contextlib.ExitStack() as stack:
        with away(root / "mlflow.db"):
            client = stack.enter_context(running(stack.enter_context(following())))
            ready = client.get("/readyz").json()
            assert (ready["model"]["version"], ready["model"]["kept_copy"]) == (2, True)
            assert ready["registry"]["problem"]
            answer = client.post("/draw", json={"text": "2024", "seed": 3}, headers=NPZ)
            assert np.array_equal(images_of(answer), drawn(root, 2, 3))
            assert "the copy kept on this machine" in client.get("/").text
        eventually(lambda: client.get("/readyz").json()["model"]["kept_copy"] is False)

    # The copy is of that store alone; another that is away, and of which no copy was kept, is waited for.
    (root / "mlflow.db").rename(root / "other.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/another.db")
    with following() as keeper, running(keeper) as client:
        for path in ("/draw?text=1", "/", "/model", "/readyz"):
            assert client.get(path).status_code == 503
        refused = client.get("/draw?text=1")
        assert refused.headers["retry-after"] == "1" and "no MLflow store" in refused.text
        assert client.get("/healthz").status_code == 200
        (root / "other.db").rename(root / "another.db")
        eventually(lambda: version(keeper) == 2)


@pytest.mark.parametrize("asked", [None, "champion"])
def test_f73_the_projects_generator_does_not_replace_a_champion_that_cannot_be_read(
    asked: str | None,
    root: Path,
    registry: Registry,
    blocked: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    promote(registry, 1)
    shutil.move("artifacts", "elsewhere")
    with following(asked) as keeper:
        assert keeper.answer_age_s() is not None and keeper.current is None
        assert "version 1 of `cgan`, cannot be loaded" in str(keeper.problem)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")  # where nobody answers
    with following(asked) as keeper:
        assert keeper.current is None and keeper.problem


def test_a_version_that_cannot_be_read_changes_nothing_until_it_is_restored(
    root: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(registry, 1)
    [damaged] = Path("artifacts", registry.version(2).run_id).rglob("generator.safetensors")
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
            for each in (keeper, at_start):
                eventually(lambda each=each: version(each) == 2 and not each.problem)

        def failing(path: Path) -> Any:
            raise MemoryError

        monkeypatch.setattr("cgan.service.served.load_generator", failing)
        promote(registry, 1)
        eventually(lambda: "failed (MemoryError)" in (keeper.problem or ""))
        assert version(keeper) == 2


def test_where_nobody_is_champion_a_file_is_served_until_somebody_is(
    root: Path, registry: Registry
) -> None:
    with following() as keeper:
        assert source(keeper) == "digits", "the package's own"
    shutil.copyfile("version-2.safetensors", a_model(root / "models/generator.safetensors"))
    with following() as keeper, following("champion") as strict:
        assert source(keeper) == "models/generator.safetensors" and strict.current is None
        assert "has no champion" in str(keeper.problem)
        promote(registry, 1)
        eventually(lambda: version(keeper) == version(strict) == 1)


def test_a_file_or_address_that_is_no_generator_is_refused_at_once(
    root: Path, registry: Registry
) -> None:
    for asked in ("nowhere.safetensors", "models:/cgan/7", "runs:/none/generator"):
        with pytest.raises(ModelError):
            Keeper(asked)
    keeper = Keeper("models:/cgan/2")
    assert (keeper.alias, source(keeper)) == (None, "models:/cgan/2")


def test_without_a_registry_or_without_mlflow_a_file_is_served(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "mlflow.db").unlink()
    with following() as keeper:
        assert (source(keeper), keeper.problem, keeper.alias) == ("digits", None, "champion")
    monkeypatch.setenv(
        "MLFLOW_TRACKING_URI", "file:///nowhere"
    )  # an address that no store can have
    with Keeper("champion") as keeper:
        assert keeper.current is None and "migrate-filestore" in str(keeper.problem)
    monkeypatch.setattr("cgan.service.served.importlib.util.find_spec", lambda name: None)
    assert Keeper().alias is None
