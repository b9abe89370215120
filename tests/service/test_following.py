"""The champion of a real registry, followed: moves under load, a registry that goes away, bad versions."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from conftest import a_model, add_version, running, wait_until

from cgan.base.errors import ModelError
from cgan.drawing.generator import Generator
from cgan.drawing.picture import compose
from cgan.models.file_facts import read_facts
from cgan.models.model_file import load_generator
from cgan.models.sampling import encode_png
from cgan.pipeline.registry.client import Registry, open_registry
from cgan.pipeline.registry.runs import known_evaluation
from cgan.service.provider import GeneratorProvider


@pytest.fixture
def registry(root: Path) -> Iterator[Registry]:
    """With versions 1 and 2; nobody is champion."""
    with open_registry("cgan") as found:
        for number in (1, 2):
            add_version(found, number)
            (root / "generator.safetensors").rename(root / f"version-{number}.safetensors")
        yield found


def promote(registry: Registry, number: int) -> None:
    registry.promote(number, why="a test")


def following(asked: str | None = None) -> GeneratorProvider:
    provider = GeneratorProvider(asked)
    provider.poll()
    return provider


def served(provider: GeneratorProvider) -> tuple[int | None, str]:
    """Version and source."""
    assert provider.current
    return provider.current.version, provider.current.generator.source


@pytest.mark.slow
def test_changes_under_load_lose_no_request_and_mix_no_answer(
    root: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cgan.service.app.POLL_S", 0.2)
    expected = {}
    for number in (1, 2):
        network, _ = load_generator(root / f"version-{number}.safetensors")
        expected[number] = encode_png(compose(network, [2, 0, 2, 4], 1, 7)[1])
    promote(registry, 1)
    with running(following()) as client, ThreadPoolExecutor(8) as pool:
        for number in 10 * (2, 1):
            promote(registry, number)
            drawn = 0
            while drawn != number:
                for answer in pool.map(client.get, 8 * ["/draw?text=2024&seed=7"]):
                    drawn = int(answer.headers["cgan-model-version"])
                    assert answer.content == expected[drawn]


def test_the_last_good_model_stays_while_the_registry_is_away(
    root: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cgan.service.app.POLL_S", 0.05)
    promote(registry, 1)
    with running(following()) as client:
        store = root / "mlflow.db"
        elsewhere = store.rename(root / "elsewhere")

        def health() -> Any:
            answer = client.get("/healthz")
            assert answer.status_code == 200
            return answer.json()

        # Looked at in the very moment, SQLite makes an empty file: "no such table".
        wait_until(lambda: "MLflow store" in (health()["problem"] or ""))
        assert client.get("/draw?text=1").headers["cgan-model-version"] == "1"
        elsewhere.rename(store)
        promote(registry, 2)
        wait_until(lambda: health()["model"]["version"] == 2 and health()["problem"] is None)


def test_page_health_and_card_have_the_champion_s_quality(registry: Registry) -> None:
    digest = read_facts(Path("version-1.safetensors"), "generator")["digest"]
    copies, context = {"value": 0.25, "real": 0.01}, {"generator_digest": digest}
    report = {"metrics": {"copies": copies}, "context": context}
    for each in registry.versions():  # at the run of the second it stands by mistake
        registry.client.log_dict(each.run_id, report, "reports/evaluation.json")
    promote(registry, 1)
    provider = following()
    with running(provider) as client:
        words = "Near copies: 25.0 % (real images 1.0 %)."
        assert words in client.get("/").text
        assert client.get("/healthz").json()["model"]["quality"] == words
        evaluation = known_evaluation(Generator.load("champion"))
        assert evaluation and evaluation.score("copies").value == 0.25
        promote(registry, 2)
        provider.poll()
        assert client.get("/healthz").json()["model"]["quality"] is None


def test_no_file_replaces_a_champion_that_cannot_be_read(root: Path, registry: Registry) -> None:
    a_model(root / "models/generator.safetensors", seed=9)
    promote(registry, 1)
    shutil.move("mlartifacts", "elsewhere")
    for asked in (None, "champion"):
        provider = following(asked)
        assert provider.current is None and "models:/cgan/1" in provider.problem
    with running(provider) as client:
        for path in ("/draw?text=1", "/", "/healthz"):
            assert client.get(path).status_code == 503
        refused = client.get("/draw?text=1")
        assert "models:/cgan/1" in refused.text


def test_an_unreadable_version_changes_nothing(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(registry, 1)
    [damaged] = Path("mlartifacts", registry.version(2).run_id).rglob("generator.safetensors")
    whole = damaged.read_bytes()
    provider = following()
    damaged.write_bytes(whole[:-7])
    promote(registry, 2)
    for _ in range(2):
        provider.poll()
        assert served(provider)[0] == 1 and provider.problem.startswith("models:/cgan/2")
    damaged.write_bytes(whole)
    provider.poll()
    assert (served(provider)[0], provider.problem) == (2, "")
    monkeypatch.setattr("cgan.service.provider.Generator.load", Mock(side_effect=MemoryError))
    promote(registry, 1)
    provider.poll()
    assert served(provider)[0] == 2 and "MemoryError" in provider.problem


def test_without_a_champion_a_file_is_served_until_there_is_one(
    root: Path, registry: Registry
) -> None:
    assert served(following()) == (None, "digits"), "the package's own"
    shutil.copyfile("version-2.safetensors", a_model(root / "models/generator.safetensors"))
    provider, strict = following(), following("champion")
    assert served(provider) == (None, "models/generator.safetensors")
    assert strict.current is None and "has no champion" in provider.problem
    promote(registry, 1)
    for each in (provider, strict):
        each.poll()
        assert served(each) == (1, "models:/cgan/1")
    for asked in ("nowhere.safetensors", "models:/cgan/7", "runs:/none/generator"):
        with pytest.raises(ModelError):
            GeneratorProvider(asked)
    assert served(GeneratorProvider("models:/cgan/2"))[1] == "models:/cgan/2"
    (root / "mlflow.db").unlink()
    alone = following()
    assert served(alone) == (None, "models/generator.safetensors")
    assert (alone.problem, alone.alias) == ("", None)
