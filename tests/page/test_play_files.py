"""The first half of the page: samples, what is downloaded, and how it looks on every screen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from visitor import Visitor, assert_alike, generator_of, side_by_side
from visitor import browser as browser
from visitor import page as page

from cgan.drawing.drawings import write_set

# -- Samples and files -------------------------------------------------------------------------------


def test_a_thousand_samples_are_those_of_cgan_as_csv_and_png(page: Visitor, tmp_path: Path) -> None:
    generator = generator_of(channels=3, height=12, width=9)
    page.show(generator, tmp_path, "#seed=7")
    page.click("#play-draw")
    page.until("!document.getElementById('play-csv').disabled")
    assert page.words("samples-said") == "1,000 samples, seed 7."
    assert page.label("samples") == "1000 samples of all classes in turn, seed 7"
    page.click("#play-csv")
    found = page.downloaded(tmp_path / "samples-seed-7.csv").read_text()
    write_set(str(tmp_path / "expected.csv"), generator, per_class=100, seed=7)
    expected = (tmp_path / "expected.csv").read_text()
    assert found.splitlines()[0] == expected.splitlines()[0] and found.endswith("\n")
    tables = [
        np.loadtxt(csv.splitlines(), int, delimiter=",", skiprows=1) for csv in (found, expected)
    ]
    assert (tables[0][:, 0] == tables[1][:, 0]).all()
    assert_alike(tables[0][:, 1:], tables[1][:, 1:])
    page.click("#play-samples-png")
    with Image.open(page.downloaded(tmp_path / "samples-seed-7.png")) as grid:
        array = np.asarray(grid.convert("RGB"))
    columns = array.shape[1] // 9
    first = tables[0][:columns, 1:].reshape(columns, 3, 12, 9).transpose(0, 2, 3, 1)
    assert_alike(array[:12], side_by_side(first))


def test_samples_of_a_class_are_labelled_and_can_be_stopped(page: Visitor, tmp_path: Path) -> None:
    names = ("up & down", "left", "right")
    page.show(generator_of(names=names, classes=3, height=64, width=64), tmp_path, "#of=0")
    page.click("#play-draw")
    page.click("#play-draw")
    assert page.words("samples-said").startswith("Stopped after ")
    assert page.label("samples").endswith(" samples of up & down, seed 0")
    page.click("#play-csv")
    lines = page.downloaded(tmp_path / "samples-up-down-seed-0.csv").read_text().splitlines()
    assert 1 < len(lines) < 1001 and {line.split(",")[0] for line in lines[1:]} == {"0"}


def test_the_page_answers_while_it_draws_a_thousand(page: Visitor, tmp_path: Path) -> None:
    page.show(generator_of(features=16), tmp_path)
    page.click("#play-draw")
    page.set_text("8")
    assert page.label() == "8, drawn with seed 0"
    assert page.of("progress", "hidden") is False


def test_a_downloaded_picture_has_the_pixels_asked_for(page: Visitor, tmp_path: Path) -> None:
    generator = generator_of()
    page.show(generator, tmp_path, "#text=012345678901234567890&seed=3")
    page.change("scale", "2")
    page.click("#play-smooth")
    page.click("#play-png")
    with Image.open(page.downloaded(tmp_path / "012345678901234567890-seed-3.png")) as picture:
        array = np.asarray(picture.convert("RGB"))
    images = generator.draw("012345678901234567890", seed=3)
    # In two lines of eleven, as `cgan draw`.
    lines = [side_by_side(images[:11]), side_by_side([*images[11:], np.zeros((28, 28), int)])]
    assert_alike(array, np.concatenate(lines).repeat(2, axis=0).repeat(2, axis=1))


# -- Looks -------------------------------------------------------------------------------------------

PICTURE = "document.getElementById('play-picture').getBoundingClientRect().toJSON()"


@pytest.mark.parametrize(("width", "height"), [(320, 640), (1280, 800)])
def test_nothing_is_wider_than_the_screen(
    page: Visitor, tmp_path: Path, width: int, height: int
) -> None:
    page.resize(width, height, touch=width < 500)
    names = ("a name of sixty characters, all in one, of nine hundred " + "w" * 40, "b")
    page.show(generator_of(names=names, classes=2, height=40, width=40), tmp_path)
    assert page.run("document.documentElement.scrollWidth") <= width
    page.show(generator_of(), tmp_path, "#text=" + "1234567890" * 5)
    assert page.run("document.documentElement.scrollWidth") <= width
    box = page.run(PICTURE)
    assert box["right"] <= width and box["top"] < height
    lines = round(page.of("picture", "height") / 28)
    assert box["height"] / lines >= 40 or width < 1000  # still to be seen
    page.show(generator_of(), tmp_path)
    box = page.run(PICTURE)  # large, on the first screen
    assert box["bottom"] < height and box["width"] > min(width, 1200) * 0.6


def test_the_page_is_dark_where_the_visitors_system_is(page: Visitor, tmp_path: Path) -> None:
    page.show(generator_of(), tmp_path)
    colour = "getComputedStyle(document.body).backgroundColor"
    light = page.run(colour)
    page.prefer(color_scheme="dark")
    assert (light, page.run(colour)) == ("rgb(255, 255, 255)", "rgb(20, 23, 26)")


@pytest.mark.parametrize("motion", ["no-preference", "reduce"])
def test_a_morph_plays_and_in_still_pictures_where_little_motion_is_wanted(
    page: Visitor, tmp_path: Path, motion: str
) -> None:
    page.prefer(reduced_motion=motion)
    page.show(generator_of(height=8, width=8), tmp_path)
    page.run(
        "globalThis.seen = new Set(); new MutationObserver(() => seen.add("
        "document.getElementById('play-mix').value)).observe("
        "document.getElementById('play-morph'), {attributes: true})"
    )
    page.click("#play-run")
    page.until("seen.size >= 5")
    assert page.words("run") == "Pause"
    page.click("#play-run")
    stopped = page.value("mix")
    page.look(0.3)
    assert page.value("mix") == stopped
    seen = {float(mix) for mix in page.run("Array.from(seen)")}
    tenths = {step / 10 for step in range(11)}
    assert seen <= tenths if motion == "reduce" else seen - tenths
