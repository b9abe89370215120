"""The service over real HTTP: what it draws and says, and who may ask. How it refuses: tests/promises."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import ROOT, a_model, running
from prometheus_client.parser import text_string_to_metric_families

from cgan.pipeline.params_file import read_yaml


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_model(tmp_path_factory.mktemp("model") / "generator.safetensors")


@pytest.fixture(scope="module")
def client(model: Path) -> Iterator[httpx.Client]:
    with running(model) as found:
        yield found


def test_drawings_are_kept_by_nobody(client: httpx.Client) -> None:
    for form in ("png", "json"):
        kept = client.get(f"/draw?text=1&format={form}").headers["cache-control"]
        assert kept == "no-store", "the next champion draws otherwise"


def test_a_name_that_was_turned_to_this_machine_is_refused(client: httpx.Client) -> None:
    for path in ("/", "/draw?text=1", "/healthz", "/metrics"):
        for host in ("localhost", "127.0.0.1:1", "LOCALHOST:8000", "[::1]:8000"):
            assert client.get(path, headers={"Host": host}).status_code == 200
        for host in ("evil.example", "localhost.evil.example", "evil{.example", "192.168.0.7", ""):
            assert client.get(path, headers={"Host": host}).status_code == 400
    compose = read_yaml(ROOT / "deploy/service/compose.yaml")
    published = [port for each in compose["services"].values() for port in each["ports"]]
    assert published and all(port.startswith("127.0.0.1:") for port in published)
    image = (ROOT / "deploy/service/Containerfile").read_text()
    for line in re.findall(r"^COPY (?!--from)(.+) \S+$", image, re.MULTILINE):
        assert all((ROOT / name).exists() for name in line.split())


def test_metrics_count_requests_and_drawings(client: httpx.Client) -> None:
    def counts() -> dict[tuple[str, ...], float]:
        return {
            (sample.name, *sorted(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(client.get("/metrics").text)
            for sample in family.samples
        }

    before = counts()
    for path in ("/draw?text=2024", "/draw?text=x", "/nowhere"):
        client.get(path)
    after = counts()
    for key, more in {
        ("cgan_requests_total", "/draw", "200", "GET"): 1,
        ("cgan_requests_total", "/draw", "422", "GET"): 1,
        ("cgan_requests_total", "404", "GET", "other"): 1,
        ("cgan_request_seconds_count", "/draw"): 2,
        ("cgan_drawings_total",): 4,
    }.items():
        assert after[key] - before.get(key, 0) == more, key


def test_the_page_names_the_model_its_quality_and_pictures(tmp_path: Path) -> None:
    model = a_model(tmp_path / "generator.safetensors", class_names=["<b>", "a cat", *"cdefghij"])
    with running(model) as client:
        page = client.get("/")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert f"<title>Draw with {model} (" in page.text and "<b>" not in page.text
        for address in re.findall(r'href="(draw\?[^"]+)"', page.text):
            assert client.get(f"/{address.replace('&amp;', '&')}").status_code == 200
    with running("digits") as client:
        assert re.search(r"<p>Legible: 99\.\d % ", client.get("/").text)
        assert "99" in client.get("/healthz").json()["model"]["quality"]


def test_the_page_draws_and_asks_for_nothing(client: httpx.Client, browser: Any) -> None:
    asked: list[str] = []
    with browser.new_page() as page:
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{client.base_url}/#text=2024&seed=7")
        page.wait_for_selector("#play-picture[aria-busy=false]")
        label = page.locator("#play-picture").get_attribute("aria-label")
        assert label == "2024, drawn with seed 7"
        assert [url.partition("#")[0] for url in asked if url.startswith("http")] == [
            f"{client.base_url}/"
        ]
