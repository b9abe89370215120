"""The service over real HTTP: what it draws and says, and how it refuses."""

import base64
import io
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from browser import browsing
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from served import a_model, running
from typer.testing import CliRunner

from cgan.cli import app
from cgan.drawing.generator import Generator
from cgan.service.provider import GeneratorProvider


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_model(tmp_path_factory.mktemp("model") / "generator.safetensors")


@pytest.fixture(scope="module")
def client(model: Path) -> Iterator[httpx.Client]:
    with running(GeneratorProvider(str(model))) as found:
        yield found


def images_in(answer: httpx.Response) -> np.ndarray:
    """Of an answer in JSON."""
    files = [base64.b64decode(each["png_base64"]) for each in answer.json()["drawings"]]
    return np.stack([np.asarray(Image.open(io.BytesIO(file))) for file in files])


def test_a_picture_has_the_bytes_that_cgan_draw_writes(
    client: httpx.Client, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "drawn.png"
    cases: list[tuple[dict[str, str | int], str]] = [
        ({"text": "314"}, "314 --seed 0"),
        ({"text": "0123", "seed": 0, "count": 10}, "0123 --grid --seed 0"),
        ({"text": "01" * 35, "seed": 2**63 - 1}, f"{'01' * 35} --seed {2**63 - 1}"),
    ]
    for query, options in cases:
        draw = ["draw", *options.split(), "--model", str(model), "--out", str(out)]
        assert CliRunner().invoke(app, draw).exit_code == 0
        answer = client.get("/draw", params=query)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
        assert answer.content == out.read_bytes()
        assert answer.headers["cross-origin-resource-policy"] == "cross-origin", "for an <img>"


def test_json_holds_the_drawings_of_the_generator(tmp_path: Path) -> None:
    path = a_model(tmp_path / "generator.safetensors", "deconv", 10, 3, 16, 16, 8, 8)
    generator, labels = Generator.load(path), [2, 0, 2, 9]
    expected = generator.draw(labels * 2, seed=7)
    with running(GeneratorProvider(str(path))) as client:
        for scale in (1, 2):
            address = f"/draw?text=2029&seed=7&count=2&scale={scale}&format=json"
            answer = client.get(address)
            assert np.array_equal(images_in(answer)[:, ::scale, ::scale], expected)
            found = answer.json()
            assert [each["label"] for each in found["drawings"]] == labels * 2
            assert found["model"]["digest"] == generator.facts["digest"]


def test_a_request_of_thousands_does_not_hold_up_one_of_four(client: httpx.Client) -> None:
    with ThreadPoolExecutor(1) as pool:
        large = pool.submit(client.get, "/draw?text=1&count=10000&scale=1")
        assert client.get("/draw?text=2024").status_code == 200
        assert not large.done() and large.result().status_code == 200


BAD: list[tuple[str, str, int, str]] = [
    ("GET", "/draw", 422, "text"),
    ("GET", "/draw?text=", 422, "at least 1 character"),
    ("GET", "/draw?text=1&sede=2", 422, "sede"),
    ("GET", f"/draw?text={'1' * 10_001}", 422, "at most 10000 characters"),
    ("GET", "/draw?text=12x", 422, "'12x' is not a class"),
    ("GET", "/draw?text=%ff%00", 422, "is not a class"),
    ("GET", "/draw?text=1&seed=x", 422, "valid integer"),
    ("GET", "/draw?text=1&seed=-1", 422, "seed"),
    ("GET", "/draw?text=1&seed=9223372036854775808", 422, "seed"),
    ("GET", "/draw?text=12&count=5001", 422, "10,002 drawings"),
    ("GET", "/draw?text=1&scale=65", 422, "scale"),
    ("GET", f"/draw?text={'1' * 100}&scale=64", 422, "321,126,400 values"),
    ("GET", "/draw?text=1&count=10000", 422, "at scale 4"),
    ("GET", "/draw?text=1&format=csv", 422, "'png' or 'json'"),
    ("GET", "/draw/", 404, ""),
    ("PUT", "/draw", 405, ""),
]


def test_a_request_without_sense_is_refused_with_the_reason(client: httpx.Client) -> None:
    for method, path, status, words in BAD:
        answer = client.request(method, path)
        assert answer.headers["content-type"] == "application/json"
        assert (answer.status_code, words in answer.text) == (status, True), answer.text


def test_an_answer_is_framed_by_nobody_and_kept_by_nobody(client: httpx.Client) -> None:
    for path in ("/", "/draw?text=1", "/draw?text=x", "/healthz", "/nowhere"):
        headers = client.get(path).headers
        assert headers["x-frame-options"] == "DENY"
        assert headers["x-content-type-options"] == "nosniff"
    for form in ("png", "json"):
        kept = client.get(f"/draw?text=1&format={form}").headers["cache-control"]
        assert kept == "no-store", "the next champion draws otherwise"


def test_a_name_that_was_turned_to_this_machine_is_refused(client: httpx.Client) -> None:
    for path in ("/", "/draw?text=1", "/healthz", "/metrics"):
        for host in ("localhost", "127.0.0.1:1", "LOCALHOST:8000", "[::1]:8000"):
            assert client.get(path, headers={"Host": host}).status_code == 200
            assert client.head(path).status_code == (200 if path in ("/", "/healthz") else 405)
        for host in ("evil.example", "localhost.evil.example", "evil{.example", "192.168.0.7", ""):
            assert client.get(path, headers={"Host": host}).status_code == 400


def counts(client: httpx.Client) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
    }


def test_metrics_count_requests_and_drawings(client: httpx.Client, model: Path) -> None:
    before = counts(client)
    for _ in range(3):
        client.get("/draw?text=2024")
    client.get("/draw?text=x")
    client.get("/nowhere")
    client.request("BREW", "/draw")
    after = counts(client)
    for key, more in {
        ("cgan_requests_total", "/draw", "200", "GET"): 3,
        ("cgan_requests_total", "/draw", "422", "GET"): 1,
        ("cgan_requests_total", "404", "GET", "other"): 1,
        ("cgan_requests_total", "/draw", "405", "other"): 1,
        ("cgan_request_seconds_count", "/draw"): 5,
        ("cgan_drawings_total",): 12,
    }.items():
        assert after[key] - before.get(key, 0) == more, key
    digest = Generator.load(model).facts["digest"]
    assert after["cgan_model_info", "", digest] == 1
    assert 0 < after["cgan_request_seconds_sum", "/draw"] < 600


def test_what_is_served_is_said_and_the_schema_names_all_addresses(
    client: httpx.Client, model: Path
) -> None:
    digest = Generator.load(model).facts["digest"]
    for path in ("/", "/draw?text=1"):
        assert client.get(path).headers["cgan-model-digest"] == digest
    found = client.get("/healthz").json()
    assert found["model"]["digest"] == digest and found["problem"] is None
    assert found["model"]["quality"] is found["model"]["version"] is None
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", found["model"]["since"])
    schema = client.get("/openapi.json").json()
    assert set(schema["paths"]) == {"/", "/draw", "/healthz", "/metrics"}
    asked = {each["name"] for each in schema["paths"]["/draw"]["get"]["parameters"]}
    assert asked == {"text", "seed", "count", "scale", "format"}


def test_the_page_says_what_is_served_how_good_it_is_and_the_addresses_of_its_pictures(
    tmp_path: Path,
) -> None:
    model = a_model(tmp_path / "generator.safetensors", class_names=["<b>", "a cat", *"cdefghij"])
    with running(GeneratorProvider(str(model))) as client:
        page = client.get("/")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert f"<title>Draw with {model} (" in page.text
        for address in re.findall(r'href="(draw\?[^"]+)"', page.text):
            assert client.get(f"/{address.replace('&amp;', '&')}").status_code == 200
    with running(GeneratorProvider("digits")) as client:
        assert re.search(r"<p>Legible: 99\.\d % ", client.get("/").text)
        assert "99" in client.get("/healthz").json()["model"]["quality"]


@pytest.mark.slow
def test_the_page_draws_and_may_ask_for_nothing(client: httpx.Client, tmp_path: Path) -> None:
    with browsing(tmp_path / "profile") as page:
        page.open(f"{client.base_url}/#text=2024&seed=7")
        drawn = "document.getElementById('play-picture')"
        page.until(f"{drawn}?.getAttribute('aria-busy') === 'false'")
        label = page.run(f"{drawn}.getAttribute('aria-label')")
        assert label == "2024, drawn with seed 7"
        assert page.errors == []
        asked = {url.partition("#")[0] for url in page.requests if urlsplit(url).scheme == "http"}
        assert f"{client.base_url}/draw" not in asked and page.elsewhere() == []
        # What else a script might try is refused by the policy.
        page.run("fetch('/healthz').catch((error) => { window.refused = String(error); })")
        page.until("window.refused")
