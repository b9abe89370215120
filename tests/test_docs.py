"""The docs show all pictures, the text agrees with them, and the notebook shows what it shows today."""

import base64
import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, run
from PIL import Image
from uneven import uneven, write_uneven_folder

import cgan
from cgan.files import read_json
from cgan.params.sections import EvaluateParams, JudgeParams

NOTEBOOK = ROOT / "docs" / "notebook.ipynb"
IMAGES = ROOT / "docs/images"
# By `cgan draw` (CONTRIBUTING.md), by hand, of other data, and what docs/screenshots.py writes.
BY_OTHERS = {"grid.png", "pipeline.svg", "facts.json", "hands-alphabets.jpg"}
BY_OTHERS |= {"local-score-32.jpg", "photographs-cifar.jpg", "photographs-clothes.jpg"}
SHOWN = re.compile(r"!\[([^\]]*)\]\((?:docs/)?images/([\w.-]+)\)")
PAGES = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]


def test_the_docs_show_all_pictures_and_one_command_takes_them() -> None:
    shown = {name for page in PAGES for _, name in SHOWN.findall(page.read_text())}
    there = {path.name for path in IMAGES.iterdir()}
    assert shown == there - {"facts.json"}
    source = (ROOT / "docs/screenshots.py").read_text()
    listed = re.search(r"^PICTURES = \((.*?)^\)", source, re.MULTILINE | re.DOTALL)
    assert listed
    taken = re.findall(r'"([\w-]+)"', listed[1])
    assert sorted(f"{name}.png" for name in taken) == sorted(there - BY_OTHERS)
    assert all(path.stat().st_size <= 300_000 for path in IMAGES.iterdir())


def test_each_promise_names_tests_that_exist() -> None:
    rows = re.findall(r"^\| (\d+) \|(.*)$", (ROOT / "docs/promises.md").read_text(), re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 25))
    for _, row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", row)
        assert named, row
        for file, test in named:
            assert f"def {test}" in (ROOT / file).read_text(), (file, test)


def test_every_link_within_the_docs_leads_somewhere() -> None:
    for page in [*PAGES, *(ROOT / "docs/adr").glob("*.md"), ROOT / "CONTRIBUTING.md"]:
        for target, anchor in re.findall(
            r"\]\((?!https?:)([^)#\s]*)(?:#([^)]*))?\)", page.read_text()
        ):
            there = page.parent / target if target else page
            assert there.exists(), (page.name, target)
            heads = re.findall(r"^#+ (.*)$", there.read_text(), re.MULTILINE) if anchor else []
            names = [re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads]
            assert not anchor or anchor in names, (page.name, target, anchor)


def test_the_text_agrees_with_what_the_pictures_show() -> None:
    facts = read_json(IMAGES / "facts.json")
    readme = (ROOT / "README.md").read_text()
    accuracy, spread = map(float, re.findall(r"\*\*([\d.]+) ± ([\d.]+) %", readme)[0])
    assert abs(100 * facts["sample"]["accuracy"] - accuracy) <= 3 * spread
    assert f"trained in {facts['sample']['training_s']:.0f} s" in readme
    for page in (ROOT / "README.md", ROOT / "docs/production.md"):
        captions = {name: words for words, name in SHOWN.findall(page.read_text())}
        assert facts["production"].lower() in captions["production-run.png"], page


def pixels(png: str) -> np.ndarray:
    with Image.open(io.BytesIO(base64.b64decode(png))) as picture:
        return np.asarray(picture).astype(int)


@pytest.mark.slow
def test_the_notebook_runs_and_its_stored_outputs_are_like_those_of_today(tmp_path: Path) -> None:
    """Numbers of a training differ from one kind of CPU to another; what shows itself how does not."""
    program = [sys.executable, "-W", "error", ROOT / "tools/notebook.py", "--check"]
    today = json.loads(run(*program, cwd=tmp_path))
    notebook = json.loads(NOTEBOOK.read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert NOTEBOOK.stat().st_size < 200_000
    stored = [cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(today) == len(stored) > 5
    for now, then in zip(today, stored, strict=True):
        assert [output["data"].keys() for output in now] == [
            output["data"].keys() for output in then
        ]
    pictures = [output["data"].get("image/png") for cells in today for output in cells]
    then = [output["data"].get("image/png") for cells in stored for output in cells]
    for ours, theirs in zip(filter(None, pictures), filter(None, then), strict=True):
        assert pixels(ours).shape == pixels(theirs).shape
    assert pictures[-1] and then[-1], "of the package's own generator, which is no training's"
    assert np.abs(pixels(pictures[-1]) - pixels(then[-1])).mean() < 1
    assert {path.name for path in tmp_path.iterdir()} == {"digits.safetensors", "digits.html"}


def python_of(page: Path) -> str:
    return "\n".join(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))


def test_the_page_on_python_is_true_line_by_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With shorter trainings, on images that are not square, in unequal classes with names and groups."""
    monkeypatch.chdir(tmp_path)
    data = uneven(times=4)
    write_uneven_folder(Path("my-pictures"), data)
    names = {"pixels": data.pixels[:, 0], "labels": data.labels}
    text = python_of(ROOT / "docs/python.md")
    short = JudgeParams(total_kimg=0.5)
    monkeypatch.setattr("cgan.usefulness.JudgeParams", lambda: short)
    monkeypatch.setattr("cgan.quality.evaluate.JudgeParams", lambda: short)
    monkeypatch.setattr("cgan.disclosure.JudgeParams", lambda: short)
    monkeypatch.setattr("cgan.attacks.membership.PERMUTATIONS", 200)
    changes = {
        "cgan.fit(train, seed=1)": "cgan.fit(train, seed=1, total_kimg=0.5, batch_size=16)",
        "cgan.evaluate(run.generator, train, held_out)": "cgan.evaluate("
        "run.generator, train, held_out, params=EvaluateParams(samples=300, gan_train_kimg=0.0))",
        "cgan.evidence(train, held_out, run.generator)": "cgan.evidence("
        "train, held_out, run.generator, seeds=2)",
    }
    for line, shorter in changes.items():
        assert text.count(line) == 1, line
        text = text.replace(line, shorter)
    names["EvaluateParams"] = EvaluateParams
    exec(text, names)
    found: Any = names
    assert found["images"].class_names == ["shoe", "bag", "hat"]
    assert found["run"].generator.class_names == ["shoe", "bag", "hat"]
    assert found["drawings"].shape == (3, 8, 12) and found["answer"].verdict in (
        "help",
        "harm",
        "no difference",
    )
    assert found["shared"].verdict in ("gives away", "nothing shown")
    assert len(found["run"].history) and 0 <= found["evaluation"].score("recall").real <= 1
    assert "<canvas" in Path("run.html").read_text() and cgan.Generator.load(
        "generator.safetensors"
    )
