"""What a user sees: a run's page on a phone, the service's answers, and a notebook's calls."""

import base64
import io
import json
import random
import re
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from conftest import (
    NAMES,
    ROOT,
    Project,
    Visitor,
    answers,
    ended,
    free_port,
    on_a_phone,
    started,
    uneven,
    wait_until,
    write_folder,
)
from PIL import Image

import cgan
from cgan.params.sections import JudgeParams
from cgan.utility.evidence import ANSWERS


def pixels(png: str) -> np.ndarray:
    """Of a PNG in base64."""
    with Image.open(io.BytesIO(base64.b64decode(png))) as picture:
        return np.asarray(picture)


# -- 20. A run's page -------------------------------------------------------------------------------


@on_a_phone
def test_the_page_alone_draws_on_a_phone_and_judges_each_class(
    finished: Project, tmp_path: Path, page: Visitor
) -> None:
    page.open(Path(shutil.copy(finished.folder / "reports/run.html", tmp_path)).as_uri())
    page.type("text", "pear fig, apple")
    generator = cgan.Generator.load(finished.folder / "models/generator.safetensors")
    drawn = generator.draw("pear fig, apple")
    expected = np.concatenate(list(drawn), axis=1).astype(int)
    found = page.pixels()
    assert found.shape == (*expected.shape, 3) and np.abs(found[..., 0] - expected).max() <= 2
    page.part("copy").tap()
    page.page.wait_for_selector("#play-said:text('cgan draw')")
    assert page.run("document.documentElement.scrollWidth") <= 320, "nothing moves sideways"
    box = page.part("picture").bounding_box()
    assert box and box["x"] + box["width"] <= 320 and box["width"] > 0.6 * 320
    assert "Legible: " in page.page.locator(".verdict").inner_text()
    cards = page.page.locator(".class-cards li").all_inner_texts()
    assert sorted(card.split()[0] for card in cards) == sorted(NAMES)
    judged = re.compile(r"(good|doubtful|poor).*% right.*real: ", re.DOTALL)
    assert all(map(judged.search, cards))
    assert "What to change" in page.page.locator("#cards").inner_text()


# -- 21. The service --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """`cgan serve`, of the package's own digits."""
    address = f"http://127.0.0.1:{free_port()}"
    command = ["cgan", "serve", "--model", "digits", "--port", address.rpartition(":")[2]]
    with started(*command, cwd=tmp_path_factory.mktemp("serve")):
        wait_until(lambda: answers(f"{address}/healthz"))
        with httpx.Client(base_url=address, timeout=60) as client:
            yield client


def test_draw_gives_the_drawings_that_the_generator_gives(service: httpx.Client) -> None:
    found = service.get("/draw?text=2024&seed=7&count=2&format=json").json()["drawings"]
    images = [pixels(one["png_base64"]) for one in found]
    assert np.array_equal(images, cgan.Generator.load("digits").draw("20242024", seed=7))
    picture = service.get("/draw?text=2024&seed=7&scale=1")
    assert picture.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(picture.content)).size == (4 * 28, 28)


BAD = [
    ("/draw", 422, "text"),
    ("/draw?text=", 422, "at least 1 character"),
    ("/draw?text=1&sede=2", 422, "sede"),
    (f"/draw?text={'1' * 10_001}", 422, "at most 10000 characters"),
    ("/draw?text=12x", 422, "'12x' is not a class"),
    ("/draw?text=%ff%00", 422, "is not a class"),
    ("/draw?text=1&seed=-1", 422, "seed"),
    ("/draw?text=1&seed=9223372036854775808", 422, "seed"),
    ("/draw?text=12&count=5001", 422, "10,002 drawings"),
    ("/draw?text=1&scale=65", 422, "scale"),
    (f"/draw?text={'1' * 100}&scale=64", 422, "321,126,400 values"),
    ("/draw?text=1&count=10000", 422, "at scale 4"),
    ("/draw?text=1&format=csv", 422, "'png' or 'json'"),
    ("/draw/", 404, ""),
]


def test_every_request_is_answered_below_500(service: httpx.Client) -> None:
    for path, status, words in BAD:
        answer = service.get(path)
        assert answer.headers["content-type"] == "application/json"
        assert (answer.status_code, words in answer.text) == (status, True), answer.text
    values = {
        "text": ["", "7", "0123456789", "x", "\x00", "😀", "1,2", " ", "-1", "1e3"],
        "seed": ["", "0", "-0", "1.5", "1e3", "nan", str(2**63 - 1), str(2**64), "0x1"],
        "count": ["", "1", "3", "0", "-1", "10001", "2.0", "∞"],
        "scale": ["", "1", "4", "0", "64", "null"],
        "format": ["png", "json", "PNG", "", "\n"],
    }
    chance = random.Random(1)
    seen = set[int]()
    for _ in range(150):
        query = {key: chance.choice(each) for key, each in values.items() if chance.random() < 0.7}
        seen.add(service.get("/draw", params=query).status_code)
    assert seen == {200, 422}


def test_a_request_of_thousands_does_not_hold_up_one_of_four(service: httpx.Client) -> None:
    with ThreadPoolExecutor(1) as pool:
        large = pool.submit(service.get, "/draw?text=1&count=10000&scale=1")
        assert service.get("/draw?text=2024").status_code == 200
        assert not large.done() and large.result().status_code == 200


# -- 23. A notebook ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_code_of_the_page_on_python_runs_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With shorter trainings, on images that are not square, in unequal classes with names and groups."""
    monkeypatch.chdir(tmp_path)
    data = uneven(times=4)
    write_folder(Path("my-pictures"), data)
    page = (ROOT / "docs/python.md").read_text()
    code = "\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    for module in ("utility.evidence", "quality.evaluate", "privacy.sharing"):
        monkeypatch.setattr(f"cgan.{module}.JudgeParams", lambda: JudgeParams(total_kimg=0.5))
    monkeypatch.setattr("cgan.privacy.membership.PERMUTATIONS", 200)
    monkeypatch.setattr("cgan.utility.pretrained.is_installed", lambda: False)
    for line, more in {
        "cgan.fit(train, seed=1": ", total_kimg=0.5, batch_size=16",
        "cgan.evaluate(run.generator, train, held_out": ", samples=300, gan_train_kimg=0.0",
        "cgan.evidence(train, held_out, run.generator": ", seeds=2",
    }.items():
        assert code.count(f"{line})") == 1, line
        code = code.replace(line, line + more)
    found: dict[str, Any] = {"pixels": data.pixels[:, 0], "labels": data.labels}
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    exec(code, found)
    bars = capsys.readouterr().err
    assert "it/s" in bars or "images" in bars, bars[-1000:]
    assert found["drawings"].shape == (3, 8, 12) and len(found["run"].history)
    assert found["answer"].verdict in ANSWERS
    assert found["shared"].verdict in ("gives away", "nothing shown")
    assert 0 <= found["evaluation"].score("recall").real <= 1
    for name in ("images", "run", "evaluation", "answer", "shared"):
        shown = found[name]._repr_html_()
        assert "<table" in shown
        assert ("data:image/png" in shown) == (name in ("images", "run", "shared"))
    assert "<canvas" in Path("run.html").read_text()
    assert cgan.Generator.load("generator.safetensors").class_names == ["shoe", "bag", "hat"]


@pytest.mark.slow
def test_the_notebook_runs_and_shows_what_is_stored_in_it(tmp_path: Path) -> None:
    """Numbers of a training differ from one kind of CPU to another; what shows itself how does not."""
    program = [sys.executable, "-W", "error", ROOT / "tools/notebook.py", "--check"]
    today = json.loads(ended(*program, cwd=tmp_path).stdout)
    path = ROOT / "docs/notebook.ipynb"
    notebook = json.loads(path.read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert path.stat().st_size < 200_000
    stored = [cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(today) == len(stored) > 5
    now, then = ([each["data"] for cell in cells for each in cell] for cells in (today, stored))
    assert [each.keys() for each in now] == [each.keys() for each in then]
    pairs = [
        [pixels(each["image/png"]).astype(int) for each in pair]
        for pair in zip(now, then, strict=True)
        if "image/png" in pair[0]
    ]
    assert all(ours.shape == theirs.shape for ours, theirs in pairs)
    ours, theirs = pairs[-1]
    assert np.abs(ours - theirs).mean() < 1, "of the package's own generator, which nobody trains"
    assert {path.name for path in tmp_path.iterdir()} == {"digits.safetensors", "digits.html"}
