"""The service over real HTTP: what it draws, the forms of answers, and how it refuses."""

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

import httpx
import numpy as np
import pytest
from PIL import Image
from served import a_model, detail, eventually, running, running_file
from served import client as client
from served import model as model
from typer.testing import CliRunner

from cgan.cli import app
from cgan.service.app import Service
from cgan.service.served import Keeper
from cgan.serving.generator import Generator

JSON = {"Accept": "application/json"}


# ------------------------------------------------------------------------------------- drawings


@pytest.mark.parametrize(
    ("question", "options"),
    [
        ({"text": "2024", "seed": 7}, ["2024", "--seed", "7"]),
        ({"labels": [3, 1, 4], "seed": 1, "scale": 3}, ["314", "--seed", "1", "--scale", "3"]),
        (
            {"text": "0123456789", "seed": 5, "count": 4},
            ["0123456789", "--grid", "--rows", "4", "--seed", "5"],
        ),
        (
            {"text": "0123456789" * 7, "seed": 2**63 - 1},
            ["0123456789" * 7, "--seed", f"{2**63 - 1}"],
        ),
    ],
)
def test_a_picture_has_the_bytes_that_cgan_draw_writes(
    question: dict[str, Any], options: list[str], client: httpx.Client, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "drawn.png"
    result = CliRunner().invoke(app, ["draw", *options, "--model", str(model), "--out", str(out)])
    assert result.exit_code == 0, result.output
    answer = client.post("/draw", json=question)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert answer.content == out.read_bytes()


def test_an_address_draws_as_well_for_an_img(client: httpx.Client) -> None:
    posted = client.post("/draw", json={"text": "20", "seed": 7, "count": 2, "scale": 2})
    browser = {"Accept": "image/avif,image/webp,image/*,*/*;q=0.8"}
    got = client.get("/draw?text=20&seed=7&count=2&scale=2", headers=browser)
    assert got.content == posted.content
    assert got.headers["content-type"] == "image/png"
    assert client.head("/draw?text=20&seed=7").headers["content-length"] != "0"


@pytest.mark.parametrize("shape", [(1, 28), (3, 16)])
def test_json_csv_and_npz_hold_the_drawings_of_the_generator(
    shape: tuple[int, int], tmp_path: Path
) -> None:
    path = a_model(tmp_path / "generator.safetensors", channels=shape[0], side=shape[1])
    generator = Generator.load(path)
    labels = [2, 0, 2, 9]
    expected = generator.draw(labels * 2, seed=7)
    question = {"labels": labels, "seed": 7, "count": 2}
    with running_file(path) as client:
        document = client.post("/draw", json=question, headers=JSON).json()
        table = client.post("/draw", json=question, headers={"Accept": "text/csv"}).text
        packed = client.post(
            "/draw", json=question, headers={"Accept": "application/x-npz"}
        ).content
        large = client.post("/draw", json={**question, "scale": 2}, headers=JSON).json()
    pictures = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(each["png_base64"]))))
        for each in document["drawings"]
    ]
    assert np.array_equal(np.stack(pictures), expected)
    assert [each["label"] for each in document["drawings"]] == labels * 2 == document["labels"]
    assert (document["seed"], tuple(document["shape"])) == (7, generator.shape)
    assert document["model"]["digest"] == generator.facts["digest"]
    first = Image.open(io.BytesIO(base64.b64decode(large["drawings"][0]["png_base64"])))
    assert np.array_equal(np.asarray(first)[::2, ::2], expected[0])

    head, *rows = csv.reader(io.StringIO(table))
    assert head[:2] == ["label", "pixel0"]
    assert [int(row[0]) for row in rows] == labels * 2
    pixels = np.array([row[1:] for row in rows], np.uint8)
    planes = expected if expected.ndim == 3 else expected.transpose(0, 3, 1, 2)
    assert np.array_equal(pixels, planes.reshape(len(rows), -1))

    archive = np.load(io.BytesIO(packed))
    assert np.array_equal(archive["images"], expected)
    assert archive["labels"].tolist() == labels * 2


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (None, "image/png"),
        ("text/*;q=0.5, application/*;q=0.1", "text/csv"),
        ("application/json, text/plain, */*", "application/json"),
        ("*/*;q=0.1, TEXT/CSV;q=0.2", "text/csv"),
        ("image/png;q=0, */*", "application/json"),
        ("application/x-npz", "application/x-npz"),
        ("text/html", None),
        ("", "image/png"),
    ],
)
def test_accept_chooses_the_form(
    accept: str | None, kind: str | None, client: httpx.Client
) -> None:
    request = client.build_request("POST", "/draw", json={"text": "1"})
    del request.headers["accept"]
    if accept is not None:
        request.headers["accept"] = accept
    answer = client.send(request)
    if kind:
        assert (answer.status_code, answer.headers["content-type"].split(";")[0]) == (200, kind)
    else:
        assert answer.status_code == 406
        assert "image/png, application/json, text/csv, application/x-npz" in detail(answer)


def test_answers_to_many_at_once_are_those_that_each_gets_alone(
    client: httpx.Client, model: Path
) -> None:
    generator = Generator.load(model)
    questions = [
        {"labels": [(seed + i) % 10 for i in range(1 + seed % 13)], "seed": seed}
        for seed in range(60)
    ]

    def ask(question: dict[str, Any]) -> np.ndarray:
        headers = {"Accept": "application/x-npz"}
        answer = client.post("/draw", json=question, headers=headers)
        images: np.ndarray = np.load(io.BytesIO(answer.content))["images"]
        return images

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(ask, questions))
    for question, images in zip(questions, answers, strict=True):
        assert np.array_equal(images, generator.draw(question["labels"], question["seed"]))


def test_a_request_of_thousands_does_not_hold_up_one_of_four(model: Path) -> None:
    with running_file(model) as client, ThreadPoolExecutor(1) as pool:
        large = pool.submit(client.post, "/draw", json={"labels": [1] * 10_000})
        eventually(lambda: drawn(client) > 0)
        assert client.post("/draw", json={"text": "2024"}).status_code == 200
        assert drawn(client) < 10_004
        assert large.result().status_code == 200
        assert drawn(client) == 10_004


def drawn(client: httpx.Client) -> float:
    [line] = re.findall(r"^cgan_drawings_total (\S+)", client.get("/metrics").text, re.MULTILINE)
    return float(line)


# ------------------------------------------------------------------------------------- refusals


BAD: list[tuple[Any, int, str]] = [
    (b"", 422, "required, found nothing. Send an object such as"),
    (b"{", 400, "expected JSON"),
    (b"null", 422, "required, found nothing"),
    (b'"2024"', 422, "found '2024'. Send an object such as"),
    (b'{"text": "\xff"}', 400, "expected JSON in UTF-8"),
    (b"\xff\xfe{\x00}\x00", 422, "found neither"),
    (b'{"labels": [NaN]}', 422, "found nan"),
    (b'{"labels": ' + b"[" * 30_000 + b"]" * 30_000 + b"}", 400, "expected JSON"),
    (b'{"text": "1", "seed": ' + b"9" * 60_000 + b"}", 400, "expected JSON"),
    (b'{"text": "1", "seed": 1e400}', 422, "`seed`: expected a valid integer, found inf"),
    ({}, 422, "expected `text` or `labels`, found neither"),
    ({"text": "1", "labels": [1]}, 422, "found both"),
    ({"text": ""}, 422, "`text`: String should have at least 1 character, found ''"),
    ({"text": "1" * 10_001}, 422, "`text`: String should have at most 10000 characters, found '1111"),
    ({"text": "12x"}, 422, "'x', character 3 of the text to draw, is not a class"),
    ({"text": "\ud800"}, 422, "found '\\ud800'"),
    ({"labels": "12"}, 422, "`labels`: expected a valid list, found '12'"),
    ({"labels": [1] * 10_001}, 422, "`labels`: List should have at most 10000 items"),
    ({"labels": [3, 10]}, 422, "label 10 at index 1 is not a class"),
    ({"labels": [1.0]}, 422, "`labels`: at index 0: expected a valid integer, found 1.0"),
    ({"labels": [10**30]}, 422, "is not a class"),
    ({"text": "1", "seed": -1}, 422, "`seed`: expected a value greater than or equal to 0, found -1"),
    ({"text": "1", "seed": "7"}, 422, "found '7'"),
    ({"text": "1", "count": 0}, 422, "`count`: expected a value greater than or equal to 1, found 0"),
    ({"text": "12", "count": 5001}, 422, "2 labels × 5,001 variants are 10,002 drawings"),
    ({"text": "1", "scale": 65}, 422, "`scale`: expected a value less than or equal to 64, found 65"),
    ({"text": "1" * 100, "scale": 64}, 422, "321,126,400 values, at most 33,554,432 are sent"),
    ({"text": "1", "sed": 3}, 422, "`sed`: there is no such field. There are text, labels"),
    ({"text": "1", **{f"{'x' * 100}{i}": 3 for i in range(500)}}, 422, "And 495 more."),
]  # fmt: skip


@pytest.mark.parametrize(("question", "status", "words"), BAD)
def test_f74_a_request_without_sense_is_refused_with_the_reason(
    question: Any, status: int, words: str, client: httpx.Client
) -> None:
    body = question if isinstance(question, bytes) else json.dumps(question).encode()
    answer = client.post("/draw", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, words in detail(answer)) == (status, True), answer.text


def test_all_that_is_wrong_is_told_at_once(client: httpx.Client) -> None:
    words = detail(client.post("/draw", json={"seed": -1, "scale": 0, "foo": 1}))
    for name in ("foo", "seed", "scale"):
        assert f"`{name}`" in words


@pytest.mark.parametrize(
    ("headers", "status", "words"),
    [
        ({"Content-Type": "text/plain"}, 415, "expected application/json"),
        ({}, 415, "expected application/json"),
        ({"Content-Type": "application/json", "Accept": "text/csv"}, 422, "text/csv holds data"),
    ],
    ids=["a body of another kind", "a body of no kind", "data are not scaled"],
)
def test_headers_without_sense_are_refused(
    headers: dict[str, str], status: int, words: str, client: httpx.Client
) -> None:
    answer = client.post("/draw", content=b'{"text": "1", "scale": 2}', headers=headers)
    assert (answer.status_code, words in detail(answer)) == (status, True), answer.text


def test_f74_a_body_without_end_is_refused_before_it_is_read(client: httpx.Client) -> None:
    headers = {"Content-Type": "application/json"}
    said = client.post("/draw", content=b"x" * 70_000, headers=headers)
    assert said.status_code == 413
    assert "at most 65,536 bytes" in detail(said)

    def endless() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 5000

    try:
        unsaid = client.post("/draw", content=endless(), headers=headers)
    except httpx.TransportError:  # the rest found the connection closed
        return
    assert unsaid.status_code == 413


@pytest.mark.slow
def test_too_much_at_once_is_answered_with_429_and_later_served(model: Path) -> None:
    service = Service(Keeper(str(model)))
    with running(service) as client:
        question = {"labels": [1] * 5000, "seed": 1, "scale": 2}  # 78 MB while it is made

        def ask(_: int) -> httpx.Response:
            return client.post("/draw", json=question)

        with ThreadPoolExecutor(24) as pool:
            answers = list(pool.map(ask, range(24)))
        statuses = {answer.status_code for answer in answers}
        assert statuses == {200, 429}
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert refused.headers["retry-after"] == "1"
        assert "Try again in a second" in detail(refused)
        assert client.post("/draw", json=question).status_code == 200
        assert (service._requests, service._bytes) == (0, 0)
