"""The champion of a real registry, followed: moves under load, a registry that goes away, bad versions."""

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import httpx
import psutil
import pytest
from served import a_model, command, eventually, running
from tracked import add_version
from tracked import root as root

from cgan.drawing.generator import Generator
from cgan.drawing.picture import compose
from cgan.errors import ModelError
from cgan.model.file_facts import read_facts
from cgan.model.model_file import load_generator
from cgan.model.sampling import encode_png
from cgan.pipeline.registry.client import Registry, open_registry
from cgan.pipeline.runs.card import known_evaluation
from cgan.service.provider import GeneratorProvider


@pytest.fixture
def registry(root: Path) -> Iterator[Registry]:
    """With versions 1 and 2; nobody is champion."""
    with open_registry("cgan") as found:
        for number in (1, 2):
            run_id = add_version(found, number)
            path = (root / "generator.safetensors").rename(root / f"version-{number}.safetensors")
            context = {"generator_digest": read_facts(path, "generator")["digest"]}
            report = {"metrics": {"fid_judge": {"value": number / 10}}, "context": context}
            found.client.log_dict(run_id, report, "reports/evaluation.json")
        yield found


def promote(registry: Registry, number: int) -> None:
    registry.promote(number, previous=registry.champion_number(), why="a test")


def following(asked: str | None = None) -> GeneratorProvider:
    provider = GeneratorProvider(asked)
    provider.poll()
    return provider


def version(provider: GeneratorProvider) -> int | None:
    return provider.current.version if provider.current else None


def source(provider: GeneratorProvider) -> str | None:
    return provider.current.generator.source if provider.current else None


def drawn(root: Path, number: int, seed: int) -> bytes:
    network, _ = load_generator(root / f"version-{number}.safetensors")
    return encode_png(compose(network, [2, 0, 2, 4], 1, seed)[1])


@pytest.mark.slow
def test_twenty_changes_of_the_champion_under_load_lose_no_request_and_mix_no_answer(
    root: Path, registry: Registry
) -> None:
    promote(registry, 1)
    expected = {n: {seed: drawn(root, n, seed) for seed in range(5)} for n in (1, 2)}
    answers: list[tuple[int, bool]] = []
    stop = threading.Event()

    def ask(client: httpx.Client) -> None:
        while not stop.is_set():
            seed = len(answers) % 5
            answer = client.get(f"/draw?text=2024&seed={seed}")
            number = int(answer.headers["cgan-model-version"])
            answers.append((number, answer.content == expected[number][seed]))

    with command(folder=root) as (process, _, client):
        threads = [threading.Thread(target=ask, args=(client,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        memory = []
        for number in 10 * (2, 1):
            promote(registry, number)
            eventually(lambda number=number: answers and answers[-1][0] == number, 60)
            memory.append(psutil.Process(process.pid).memory_info().rss)
        stop.set()
        for thread in threads:
            thread.join(60)
    assert {number for number, _ in answers} == {1, 2} and all(right for _, right in answers)
    assert memory[-1] - memory[9] < 30e6, "flat"


def test_the_last_good_model_stays_while_the_registry_is_away_and_healthz_says_so(
    root: Path,
    registry: Registry,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cgan.service.app.POLL_S", 0.05)
    promote(registry, 1)
    caplog.set_level("INFO", "cgan.service")
    with running(following()) as client:

        def health(part: str) -> Any:
            answer = client.get("/healthz")
            assert answer.status_code == 200
            return answer.json()[part]

        assert health("problem") is None
        store = root / "mlflow.db"
        elsewhere = store.rename(root / "elsewhere")
        # Looked at in the very moment, SQLite makes an empty file: "no such table".
        eventually(lambda: "MLflow store" in (health("problem") or ""))
        assert client.get("/draw?text=1").headers["cgan-model-version"] == "1"
        elsewhere.rename(store)
        promote(registry, 2)
        eventually(lambda: health("model")["version"] == 2 and health("problem") is None)
    said = [text for text in caplog.messages if "Served for now" in text]
    assert 1 <= len(said) <= 3, said  # looks are twenty a second
    assert len(said) == len({*said}), "of each problem once"


def test_page_and_health_have_the_quality_by_the_evaluation_of_the_champion_s_run(
    registry: Registry,
) -> None:
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
        promote(registry, 2)
        provider.poll()
        assert client.get("/healthz").json()["model"]["quality"] is None


def test_a_model_card_of_the_champion_has_the_evaluation_of_its_run(registry: Registry) -> None:
    promote(registry, 2)
    evaluation = known_evaluation(Generator.load("champion"))
    assert evaluation and evaluation.score("fid_judge").value == 0.2


@pytest.mark.parametrize("asked", [None, "champion"])
def test_f73_the_projects_generator_does_not_replace_a_champion_that_cannot_be_read(
    asked: str | None, root: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_model(root / "models/generator.safetensors", seed=9)
    promote(registry, 1)
    shutil.move("mlartifacts", "elsewhere")
    provider = following(asked)
    assert provider.current is None
    assert "version 1 of `cgan`, cannot be loaded" in provider.problem
    with running(provider) as client:
        for path in ("/draw?text=1", "/", "/healthz"):
            assert client.get(path).status_code == 503
        refused = client.get("/draw?text=1")
        assert refused.headers["retry-after"] == "1" and "cannot be loaded" in refused.text
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")  # where nobody answers
    provider = following(asked)
    assert provider.current is None and provider.problem


def test_a_version_that_cannot_be_read_changes_nothing_until_it_is_restored(
    root: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Mock(monotonic=Mock(return_value=0.0))
    monkeypatch.setattr("cgan.service.provider.time", clock)
    promote(registry, 1)
    [damaged] = Path("mlartifacts", registry.version(2).run_id).rglob("generator.safetensors")
    whole = damaged.read_bytes()
    provider = following()
    damaged.write_bytes(whole[:-7])
    promote(registry, 2)
    provider.poll()
    assert version(provider) == 1
    words = "the champion, version 2 of `cgan`, cannot be loaded: models:/cgan/2/"
    assert provider.problem.startswith(words)
    tried_at = []
    with monkeypatch.context() as patch:
        patch.setattr(Generator, "load", load := Mock(side_effect=ModelError("damaged")))
        for clock.monotonic.return_value in range(0, 1000, 2):
            calls = load.call_count
            provider.poll()
            tried_at += [clock.monotonic()] * (load.call_count - calls)
            assert "version 2 of `cgan`, cannot be loaded: " in provider.problem
    assert tried_at == [4, 12, 28, 60, 124, 252, 508, 808], "pauses double up to five minutes"
    damaged.write_bytes(whole)
    clock.monotonic.return_value = 1108
    provider.poll()
    assert (version(provider), provider.problem) == (2, "")
    promote(registry, 1)
    provider.poll()
    assert version(provider) == 1
    damaged.write_bytes(whole[:-7])
    promote(registry, 2)
    for clock.monotonic.return_value in (1110, 1115):  # 4 s later: what failed before is past
        provider.poll()
        damaged.write_bytes(whole)
    assert (version(provider), provider.problem) == (2, "")
    monkeypatch.setattr("cgan.service.provider.Generator.load", Mock(side_effect=MemoryError))
    promote(registry, 1)
    provider.poll()
    assert version(provider) == 2 and "cannot be loaded: MemoryError" in provider.problem


def test_where_nobody_is_champion_a_file_is_served_until_somebody_is(
    root: Path, registry: Registry
) -> None:
    assert source(following()) == "digits", "the package's own"
    shutil.copyfile("version-2.safetensors", a_model(root / "models/generator.safetensors"))
    provider, strict = following(), following("champion")
    assert source(provider) == "models/generator.safetensors" and strict.current is None
    assert "has no champion" in provider.problem
    promote(registry, 1)
    for each in (provider, strict):
        each.poll()
        assert version(each) == 1


def test_a_file_or_address_that_is_no_generator_is_refused_at_once(
    root: Path, registry: Registry
) -> None:
    for asked in ("nowhere.safetensors", "models:/cgan/7", "runs:/none/generator"):
        with pytest.raises(ModelError):
            GeneratorProvider(asked)
    provider = GeneratorProvider("models:/cgan/2")
    assert (provider.alias, source(provider)) == (None, "models:/cgan/2")


def test_without_a_registry_or_without_mlflow_a_file_is_served(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "mlflow.db").unlink()
    provider = following()
    assert (source(provider), provider.problem, provider.alias) == ("digits", "", None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:///nowhere")  # that no store can have
    provider = following("champion")
    assert provider.current is None and "migrate-filestore" in provider.problem
    monkeypatch.setattr("cgan.service.provider.importlib.util.find_spec", lambda name: None)
    assert GeneratorProvider().alias is None
