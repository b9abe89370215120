"""The service over real HTTP: what it draws and says, and how it refuses."""

import base64
import contextlib
import io
import re
import signal
import socket
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
from served import a_model, command, detail, eventually, running
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


@pytest.mark.parametrize("shape", [(1, 28), (3, 16)])
def test_json_holds_the_drawings_of_the_generator(shape: tuple[int, int], tmp_path: Path) -> None:
    path = a_model(tmp_path / "generator.safetensors", "deconv", 10, *shape, shape[1], 8, 8)
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
    ("GET", "/draw", 422, "text: "),
    ("GET", "/draw?text=", 422, "found nothing. "),
    ("GET", "/draw?text=1&sede=2", 422, "sede: /draw takes text, seed, count, scale, format alone"),
    ("GET", f"/draw?text={'1' * 10_001}", 422, "text: "),
    ("GET", "/draw?text=12x", 422, "'12x' is not a class"),
    ("GET", "/draw?text=%ff%00", 422, "is not a class"),
    ("GET", "/draw?text=1&seed=x", 422, "seed: Input should be a valid integer"),
    ("GET", "/draw?text=1&seed=-1", 422, "found -1"),
    ("GET", "/draw?text=1&seed=9223372036854775808", 422, "seed: "),
    ("GET", "/draw?text=12&count=5001", 422, "10,002 drawings"),
    ("GET", "/draw?text=1&scale=65", 422, "scale: "),
    ("GET", f"/draw?text={'1' * 100}&scale=64", 422, "321,126,400 values"),
    ("GET", "/draw?text=1&count=10000", 422, "at scale 4"),
    ("GET", "/draw?text=1&format=csv", 422, "'png' or 'json'"),
    ("GET", "/draw/", 404, ""),
    ("GET", "/static-offline-docs/..%2f..%2fcore.py", 404, ""),
    ("PUT", "/draw", 405, ""),
]


def test_f74_a_request_without_sense_is_refused_with_the_reason(client: httpx.Client) -> None:
    for method, path, status, words in BAD:
        answer = client.request(method, path)
        assert (answer.status_code, words in detail(answer)) == (status, True), answer.text
        assert "b'" not in answer.text and "{'" not in answer.text, "no Python"


def test_an_answer_is_framed_by_nobody_kept_by_nobody_and_names_no_software(
    client: httpx.Client,
) -> None:
    for path in ("/", "/draw?text=1", "/draw?text=x", "/healthz", "/nowhere"):
        headers = client.get(path).headers
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-content-type-options"] == "nosniff"
        assert "server" not in headers
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
        page = client.get("/").text
        assert re.search(r"<p>Legible: 99\.\d % ", page)
        assert "99" in client.get("/healthz").json()["model"]["quality"]


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
        page.run("fetch('/healthz').catch((error) => { window.refused = String(error); })")
        page.until("window.refused")


# ------------------------------------------------------------------------- as a process


@pytest.mark.slow
def test_a_signal_lets_requests_in_flight_finish(model: Path) -> None:
    with (
        command("--model", str(model), folder=model.parent) as (process, log, client),
        ThreadPoolExecutor(4) as pool,
    ):
        address = "/draw?text=1&count=5000&scale=1"
        asked = [pool.submit(client.get, address) for _ in range(4)]
        eventually(lambda: counts(client)["cgan_drawings_total",] == 4 * 5000)  # all are at work
        process.send_signal(signal.SIGTERM)
        assert [each.result().status_code for each in asked] == [200] * 4
        assert process.wait(60) == 0
    assert "Traceback" not in log.read_text()


def test_an_address_that_cannot_be_used_is_refused(model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for options, words in (
            (["--port", port], f"port {port} cannot be used .* --port"),
            (["--host", "nowhere.invalid"], "cannot be used at nowhere"),
        ):
            found = CliRunner().invoke(app, ["serve", "--model", str(model), *options])
            assert found.exit_code == 1 and re.search(words, str(found.exception)), found.output


def test_idle_connections_leave_neither_silence_nor_a_full_log(model: Path, tmp_path: Path) -> None:
    def answer_to(connection: socket.socket) -> bytes:
        connection.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            return connection.recv(1000)
        return b""

    with (
        command("--model", str(model), folder=tmp_path, files=200, most=200) as (_, log, client),
        contextlib.ExitStack() as idle,
    ):
        place = urlsplit(str(client.base_url))
        assert place.hostname and place.port
        connections = [
            idle.enter_context(socket.create_connection((place.hostname, place.port), 10))
            for _ in range(190)
        ]
        for _ in range(5):
            refused = httpx.get(f"{client.base_url}/healthz")
            assert (refused.status_code, refused.text) == (503, "Too many connections")
        waiting = [each for each in connections if not answer_to(each)]
        assert len(waiting) == 99, "of 200 descriptors"
        assert len(log.read_bytes()) < 2000
        idle.close()
        eventually(lambda: httpx.get(f"{client.base_url}/draw?text=1").status_code == 200)


def test_a_soft_limit_of_files_limits_no_connections(model: Path, tmp_path: Path) -> None:
    with (
        command("--model", str(model), folder=tmp_path, files=110) as (_, _, client),
        contextlib.ExitStack() as idle,
    ):
        place = str(client.base_url.host), client.base_url.port or 0
        for _ in range(120):
            idle.enter_context(socket.create_connection(place, 10))
        for _ in range(5):
            assert httpx.get(f"{client.base_url}/draw?text=1").status_code == 200


def test_a_connection_that_says_nothing_is_closed(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cgan.service.app.MAX_IDLE_S", 0.5)
    with running(GeneratorProvider(str(model))) as client:
        place = urlsplit(str(client.base_url))
        with socket.create_connection((str(place.hostname), place.port or 0), 60) as silent:
            assert silent.recv(1) == b""
