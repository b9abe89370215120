"""The service over real HTTP: what it draws and says, the forms of answers, and how it refuses."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from browser import browsing
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from served import a_model, detail, eventually, running
from typer.testing import CliRunner

from cgan.cli import app
from cgan.service.served import Keeper, of_file
from cgan.serving.generator import Generator

FORMS = {"image/png", "application/json", "text/csv", "application/x-npz"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_model(tmp_path_factory.mktemp("model") / "generator.safetensors")


@pytest.fixture(scope="module")
def client(model: Path) -> Iterator[httpx.Client]:
    with running(Keeper(str(model))) as found:
        yield found


# ------------------------------------------------------------------------------------- drawings


def test_a_picture_has_the_bytes_that_cgan_draw_writes(
    client: httpx.Client, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "drawn.png"
    cases: list[tuple[dict[str, Any], str]] = [
        ({"labels": [3, 1, 4], "seed": 1, "scale": 3}, "314 --seed 1 --scale 3"),
        ({"text": "0123", "seed": 5, "count": 4}, "0123 --grid --rows 4 --seed 5"),
        ({"text": "01" * 35, "seed": 2**63 - 1}, f"{'01' * 35} --seed {2**63 - 1}"),
    ]
    for question, options in cases:
        draw = ["draw", *options.split(), "--model", str(model), "--out", str(out)]
        assert CliRunner().invoke(app, draw).exit_code == 0
        answer = client.post("/draw", json=question)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
        assert answer.content == out.read_bytes()
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        if "text" in question:
            browser = {"Accept": "image/avif,image/webp,image/*,*/*;q=0.8"}
            got = client.get("/draw", params=question, headers=browser)
            assert got.content == answer.content
            assert got.headers["cross-origin-resource-policy"] == "cross-origin", "for an <img>"


@pytest.mark.parametrize("shape", [(1, 28), (3, 16)])
def test_json_csv_and_npz_hold_the_drawings_of_the_generator(
    shape: tuple[int, int], tmp_path: Path
) -> None:
    path = a_model(tmp_path / "generator.safetensors", channels=shape[0], side=shape[1])
    generator, labels = Generator.load(path), [2, 0, 2, 9]
    expected = generator.draw(labels * 2, seed=7)
    question = {"labels": labels, "seed": 7, "count": 2}
    with running(Keeper(str(path))) as client:

        def ask(form: str, **more: int) -> httpx.Response:
            return client.post("/draw", json={**question, **more}, headers={"Accept": form})

        documents = [(scale, ask("application/json", scale=scale).json()) for scale in (1, 2)]
        table, packed = ask("text/csv").text, ask("application/x-npz").content
    for scale, each in documents:
        files = [base64.b64decode(drawing["png_base64"]) for drawing in each["drawings"]]
        pictures = np.stack([np.asarray(Image.open(io.BytesIO(file))) for file in files])
        assert np.array_equal(pictures[:, ::scale, ::scale], expected)
        assert [each["label"] for each in each["drawings"]] == labels * 2 == each["labels"]
        assert (each["seed"], tuple(each["shape"])) == (7, generator.shape)
        assert each["model"]["digest"] == generator.facts["digest"]

    head, *rows = csv.reader(io.StringIO(table))
    assert head[:2] == ["label", "pixel0"]
    planes = expected if expected.ndim == 3 else expected.transpose(0, 3, 1, 2)
    numbers = np.column_stack([labels * 2, planes.reshape(len(rows), -1)])
    assert np.array_equal(np.array(rows, int), numbers)

    archive = np.load(io.BytesIO(packed))
    assert np.array_equal(archive["images"], expected)
    assert archive["labels"].tolist() == labels * 2


def test_accept_chooses_the_form(client: httpx.Client) -> None:
    for accept, kind in {
        "": "image/png",
        "application/json, text/plain, */*": "application/json",
        "text/html,image/avif,*/*;q=0.8": "image/png",
        "TEXT/*;q=0.5": "text/csv",
    }.items():
        answer = client.post("/draw", json={"text": "1"}, headers={"Accept": accept})
        assert answer.status_code == 200
        assert answer.headers["content-type"].split(";")[0] == kind
    answer = client.post("/draw", json={"text": "1"}, headers={"Accept": "text/html"})
    assert answer.status_code == 406 and all(form in detail(answer) for form in FORMS)


def test_answers_to_many_at_once_are_those_that_each_gets_alone(
    client: httpx.Client, model: Path
) -> None:
    generator = Generator.load(model)

    def right(seed: int) -> bool:
        labels = [(seed + i) % 10 for i in range(1 + seed % 13)]
        headers = {"Accept": "application/x-npz"}
        answer = client.post("/draw", json={"labels": labels, "seed": seed}, headers=headers)
        images = np.load(io.BytesIO(answer.content))["images"]
        return np.array_equal(images, generator.draw(labels, seed))

    with ThreadPoolExecutor(20) as pool:
        assert all(pool.map(right, range(60)))


def test_a_request_of_thousands_does_not_hold_up_one_of_four(client: httpx.Client) -> None:
    with ThreadPoolExecutor(1) as pool:
        large = pool.submit(client.post, "/draw", json={"labels": [1] * 10_000})
        eventually(lambda: counts(client)["cgan_in_flight",] == 2)
        assert client.post("/draw", json={"text": "2024"}).status_code == 200
        assert not large.done() and large.result().status_code == 200


# ------------------------------------------------------------------------------------- refusals

EXAMPLE = 'Content-Type: application/json, such as {"text"'
BAD: list[tuple[Any, int, str]] = [
    (b"", 422, "body: "),
    (b"{", 422, "body.1: JSON decode error"),
    (b'"2024"', 422, f"found '2024'. Send JSON as {EXAMPLE}"),
    (b'{"text": "\xff"}', 400, ""),
    (b'{"labels": [NaN]}', 422, "found nan"),
    (b'{"labels": ' + b"[" * 30_000 + b"]" * 30_000 + b"}", 400, ""),
    (b'{"text": "1", "seed": 1e400}', 422, "body.seed: "),
    ({}, 422, "expected `text` or `labels`, found neither"),
    ({"text": "1", "labels": [1]}, 422, "found both"),
    ({"text": ""}, 422, "body.text: "),
    ({"text": "1" * 10_001}, 422, "body.text: "),
    ({"text": "12x"}, 422, "'x', character 3 of the text to draw, is not a class"),
    ({"text": "\ud800"}, 422, "found '\\ud800'"),
    ({"labels": [1] * 10_001}, 422, "body.labels: "),
    ({"labels": [3, 10]}, 422, "label 10 at index 1"),
    ({"labels": [1.0]}, 422, "found 1.0"),
    ({"text": "1", "seed": "7"}, 422, "found '7'"),
    ({"text": "12", "count": 5001}, 422, "10,002 drawings"),
    ({"text": "1", "scale": 65}, 422, "body.scale: "),
    ({"text": "1" * 100, "scale": 64}, 422, "321,126,400 values"),
    ({"text": "1", "count": 10_000}, 422, "at scale 4"),
    ({"text": "1", **{f"{'x' * 100}{i}": 3 for i in range(500)}}, 422, "body.xxx"),
]
JSON_TYPE = {"Content-Type": "application/json"}
BAD_ADDRESSES: list[tuple[str, str, dict[str, str], int, str]] = [
    ("GET", "/draw", {}, 422, "query.text: "),
    ("GET", "/draw?text=1&labels=1", {}, 422, "query.labels: "),
    ("GET", "/draw?text=1&seed=x", {}, 422, "query.seed: "),
    ("GET", "/draw/", {}, 404, ""),
    ("GET", "/static-offline-docs/..%2f..%2fcore.py", {}, 404, ""),
    ("PUT", "/draw", {}, 405, ""),
    ("POST", "/draw?text=1", {"Content-Type": "text/plain"}, 422, EXAMPLE),
    ("POST", "/draw", {**JSON_TYPE, "Accept": "text/csv"}, 422, "holds data"),
]


def test_f74_a_request_without_sense_is_refused_with_the_reason(client: httpx.Client) -> None:
    for question, status, words in BAD:
        body = question if isinstance(question, bytes) else json.dumps(question).encode()
        answer = client.post("/draw", content=body, headers=JSON_TYPE)
        assert (answer.status_code, words in detail(answer)) == (status, True), answer.text
    for method, path, headers, status, words in BAD_ADDRESSES:
        scaled = b'{"text": "1", "scale": 2}' if method == "POST" else None
        answer = client.request(method, path, headers=headers, content=scaled)
        assert (answer.status_code, words in detail(answer)) == (status, True), answer.text


def test_f74_a_body_that_is_long_or_without_end_is_refused_before_it_is_read(
    client: httpx.Client,
) -> None:
    for body in (b" " * 70_000, iter([b" " * 70_000])):  # its length is said, and is not
        answer = client.post("/draw", content=body, headers=JSON_TYPE)
        assert answer.status_code == 413 and "65,536 bytes" in detail(answer)


def test_a_name_that_was_turned_to_this_machine_is_refused(model: Path) -> None:
    keeper, paths = Keeper(str(model)), ("/", "/draw?text=1", "/model", "/metrics")
    with running(keeper, ("localhost", "127.0.0.1", "::1", "box")) as client:
        for host in ("localhost", "127.0.0.1:1", "[::1]:8000", "Box:8000"):
            for path in paths:
                assert client.get(path, headers={"Host": host}).status_code == 200
        for host in ("evil.example", "localhost.evil.example", "192.168.0.7"):
            for path in paths:
                answer = client.get(path, headers={"Host": host})
                assert answer.status_code == 421 and "localhost, 127.0.0.1" in detail(answer)
    with running(keeper, None) as client:
        assert client.get("/healthz", headers={"Host": "evil.example"}).status_code == 200


# ------------------------------------------------------------------------------- what it says


def test_model_says_what_is_known_and_what_is_not_known_is_null(
    client: httpx.Client, model: Path
) -> None:
    facts = Generator.load(model).facts
    for path in ("/", "/model", "/draw?text=1"):
        assert client.get(path).headers["cgan-model-digest"] == facts["digest"]
    assert client.get("/healthz").json() == {"alive": True}
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()["registry"]) == (200, None)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", ready.json()["model"]["since"])
    found = client.get("/model").json()
    assert found["facts"] == facts
    assert (found["classes"], found["shape"], found["source"]) == (10, [28, 28], str(model))
    assert found["metrics"] is found["passport"] is found["version"] is None
    found = of_file("digits").about()
    for quality in (found["metrics"], found["real_images"]):
        assert quality["conditional_accuracy"] > 0.98
    assert found["passport"]["generator_digest"] == found["digest"]


def counts(client: httpx.Client) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
    }


def test_metrics_count_requests_and_drawings(client: httpx.Client, model: Path) -> None:
    before = counts(client)
    for _ in range(3):
        client.post("/draw", json={"text": "2024"})
    client.post("/draw", json={"text": "x"})
    client.get("/nowhere")
    client.request("BREW", "/draw")
    after = counts(client)
    for key, more in {
        ("cgan_requests_total", "/draw", "200", "POST"): 3,
        ("cgan_requests_total", "/draw", "422", "POST"): 1,
        ("cgan_requests_total", "404", "GET", "other"): 1,
        ("cgan_requests_total", "/draw", "405", "other"): 1,
        ("cgan_request_seconds_count", "/draw"): 5,
        ("cgan_drawings_total",): 12,
    }.items():
        assert after[key] - before.get(key, 0) == more, key
    assert after["cgan_in_flight",] == 1, "the question itself"
    assert after["cgan_model_info", "", "", Generator.load(model).facts["digest"]] == 1


def test_the_schema_has_examples_that_work(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    assert set(document["paths"]) == {"/", "/draw", "/model", "/healthz", "/readyz", "/metrics"}
    for example in document["components"]["schemas"]["DrawRequest"]["examples"]:
        assert client.post("/draw", json=example).status_code == 200
    assert set(document["paths"]["/draw"]["post"]["responses"]["200"]["content"]) == FORMS
    assert "HTTPValidationError" not in json.dumps(document)


def test_the_page_says_what_is_served_and_how_to_call_it_from_code(tmp_path: Path) -> None:
    names = ["<b>", "a cat", *"cdefghij"]
    model = a_model(tmp_path / "generator.safetensors", names=names)
    with running(Keeper(str(model))) as client:
        page = client.get("/")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert f"Served: {model} (" in page.text
        [url] = re.findall(r"curl -o drawn.png '(\S+)'", page.text)
        assert client.get(url.replace("&amp;", "&")).headers["content-type"] == "image/png"
        assert f'urlopen("{url}")' in page.text


@pytest.mark.slow
def test_the_page_draws_and_may_ask_for_nothing_and_docs_needs_no_network(
    client: httpx.Client, tmp_path: Path
) -> None:
    with browsing(tmp_path / "profile") as page:
        page.open(f"{client.base_url}/docs")
        page.until("document.body.innerText.includes('/draw')")
        assert page.errors == [] and page.elsewhere() == []
        page.open(f"{client.base_url}/#text=2024&seed=7")
        drawn = "document.getElementById('play-picture')"
        page.until(f"{drawn}?.getAttribute('aria-busy') === 'false'")
        label = page.run(f"{drawn}.getAttribute('aria-label')")
        assert label == "2024, drawn with seed 7"
        assert page.errors == []
        asked = {url.partition("#")[0] for url in page.requests if urlsplit(url).scheme == "http"}
        assert f"{client.base_url}/draw" not in asked and page.elsewhere() == []
        # What else a script might try is refused by the policy.
        page.run("fetch('/model').catch((error) => { window.refused = String(error); })")
        page.until("window.refused")
        assert any("Content Security Policy" in error for error in page.errors)
