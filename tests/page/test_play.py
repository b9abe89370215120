"""The first half of the page, in a real browser without a network: it draws what torch draws, and obeys."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import wait_until
from PIL import Image
from visitor import LATENT, Visitor, assert_alike, generator_of, side_by_side
from visitor import browser as browser
from visitor import page as page

from cgan.model.networks import GENERATORS
from cgan.model.sampling import draw_latents, render

SLOW = [
    pytest.param(kind, size, marks=pytest.mark.slow)
    for kind in GENERATORS
    for size in ((9, 65), (256, 256))
    if kind != "demo"
]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("kind", "size"),
    [*((kind, (28, 28) if kind == "demo" else (9, 30)) for kind in GENERATORS), *SLOW],
)
def test_the_page_draws_the_pixels_of_torch(
    page: Visitor, tmp_path: Path, kind: str, size: tuple[int, int], channels: int
) -> None:
    height, width = size
    generator = generator_of(kind, channels=channels, height=height, width=width, features=4)
    page.show(generator, tmp_path)
    latents, labels = torch.randn(10, LATENT), torch.arange(10)
    expected = render(generator.network, latents, generator.network.condition(labels))
    asked = f"{json.dumps(latents.tolist())}, {labels.tolist()}"
    found = page.run(f"cgan.draw({asked}).map((drawing) => Array.from(drawing))")
    assert_alike(np.array(found), expected.flatten(1).numpy())


def test_half_a_morph_is_the_mean_of_two_conditions(page: Visitor, tmp_path: Path) -> None:
    generator = generator_of("upsample")
    page.show(generator, tmp_path, "#seed=5&from=2&to=9&mix=0.5")
    condition = generator.network.condition(torch.tensor([2, 9])).mean(dim=0, keepdim=True)
    expected = render(generator.network, draw_latents(5, 1, LATENT), condition)
    assert_alike(page.pixels("morph"), side_by_side(expected[:, 0].numpy()))
    assert page.label("morph") == "50 % of the way from 2 to 9"


def test_a_morph_plays_until_it_is_stopped(page: Visitor, tmp_path: Path) -> None:
    page.show(generator_of(height=8, width=8), tmp_path)
    page.click("#play-run")
    page.until("Number(document.getElementById('play-mix').value) > 0.1")
    assert page.words("run") == "Pause"
    page.click("#play-run")
    stopped = page.value("mix")
    page.look(0.3)
    assert page.value("mix") == stopped and page.words("run") == "Play"


def test_what_is_typed_is_drawn_and_what_is_none_is_told(page: Visitor, tmp_path: Path) -> None:
    generator = generator_of(height=12, width=9)
    page.show(generator, tmp_path)
    assert page.value("text") == "2024" and page.words("fault") == ""
    page.change("text", "31415926")
    assert page.label() == "31415926, drawn with seed 0"
    assert_alike(page.pixels(), side_by_side(generator.draw("31415926")))
    page.change("text", "3 x 1")
    assert page.words("fault") == "“x” is not a class."
    assert page.label() == "31, drawn with seed 0"
    page.change("text", "")
    assert page.words("fault") == "Nothing to draw yet."
    assert page.words("hint") == "The classes are 0 to 9."
    assert page.label() == "31, drawn with seed 0", "the last picture stays"
    page.change("seed", "-3")
    assert "still shows seed 0" in page.words("seed-fault")
    page.change("text", "1" * 201)
    assert page.label().startswith(f"{'1' * 200},") and "first 200 of 201" in page.words("fault")


PLACES = [(0.0, 0.0), *((x, y) for x in (-1, -0.5, 0.5, 1) for y in (-1, -0.5, 0.5, 1))]


def latents_over_the_pad(page: Visitor, seed: int, count: int) -> Any:
    """[places, count, latent_dim], the middle first."""
    code = f"(([x, y]) => cgan.latents({seed}, {count}, x, y).map((latent) => [...latent]))"
    return np.array(page.run(f"{json.dumps(PLACES)}.map{code}"))


def test_every_place_of_the_pad_turns_torchs_latents(page: Visitor, tmp_path: Path) -> None:
    page.show(generator_of(latent_dim=7), tmp_path)
    for seed in (4, 2**53 - 1):
        middle, *others = latents_over_the_pad(page, seed, 50)
        np.testing.assert_allclose(middle, draw_latents(seed, 50, 7), atol=3e-6)
        for (x, y), moved in zip(PLACES[1:], others, strict=True):
            lengths = np.linalg.norm(middle, axis=1)
            np.testing.assert_allclose(np.linalg.norm(moved, axis=1), lengths, rtol=1e-5)
            turned = np.cos(np.hypot(x, y) * np.pi / 2)
            np.testing.assert_allclose((moved * middle).sum(axis=1) / lengths**2, turned, atol=1e-5)


def test_a_link_opens_the_same_picture(page: Visitor, tmp_path: Path) -> None:
    generator = generator_of()
    page.show(generator, tmp_path)
    page.change("text", "90210")
    page.click("#play-another")
    page.drag("#play-pad", (0.2, 0.7))
    page.change("from", "4")
    page.change("to", "6")
    page.change("mix", "0.01")
    link = page.until("location.hash.includes('mix=0.01') && location.hash")
    assert link == "#text=90210&seed=1&x=-0.6&y=-0.4&from=4&to=6&mix=0.01"
    picture, morph = page.pixels(), page.pixels("morph")
    page.show(generator, tmp_path)
    assert page.pixels().shape != picture.shape
    page.run(f"location.hash = '{link}'")  # in the open page
    page.until("document.getElementById('play-text').value === '90210'")
    page.idle()
    assert (page.pixels() == picture).all()
    page.show(generator, tmp_path, link)  # in a new one
    assert (page.pixels() == picture).all() and (page.pixels("morph") == morph).all()
    page.click("#play-copy")
    page.until("document.getElementById('play-said').textContent")
    assert page.words("said").endswith("cgan draw '90210' --seed 1")


def test_what_makes_no_sense_in_a_link_is_left_out(page: Visitor, tmp_path: Path) -> None:
    generator = generator_of()
    page.show(generator, tmp_path, "#text=0&seed=0&x=0&y=0&from=0&to=0&mix=0")
    assert page.label("morph") == "0 % of the way from 0 to 0"
    for link in (
        "#seed=-1&x=2&y=no&from=__proto__&to=1.5&mix=NaN",
        "#from=10&to=10",
        "#%E0%A4%A&=&&text",
        "#text=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E" + "A" * 10_000,
    ):
        page.show(generator, tmp_path, link)
        values = [page.value(name) for name in ("seed", "x", "from", "to", "mix")]
        assert values == ["0", "0", "0", "8", "0"], link
        page.change("text", "55")
        assert page.label() == "55, drawn with seed 0"


def test_a_downloaded_picture_has_the_pixels_asked_for(page: Visitor, tmp_path: Path) -> None:
    generator = generator_of()
    page.show(generator, tmp_path, "#text=012345678901234567890&seed=3")
    page.change("scale", "2")
    page.click("#play-smooth")
    page.click("#play-png")
    path = tmp_path / "012345678901234567890-seed-3.png"
    wait_until(lambda: path.exists() and path.stat().st_size and not [*tmp_path.glob("*.crdown*")])
    with Image.open(path) as picture:
        array = np.asarray(picture.convert("RGB"))
    images = generator.draw("012345678901234567890", seed=3)
    # In two lines of eleven, as `cgan draw`.
    lines = [side_by_side(images[:11]), side_by_side([*images[11:], np.zeros((28, 28), int)])]
    assert_alike(array, np.concatenate(lines).repeat(2, axis=0).repeat(2, axis=1))


@pytest.mark.parametrize(("width", "height"), [(320, 640), (1280, 800)])
def test_nothing_is_wider_than_the_screen(
    page: Visitor, tmp_path: Path, width: int, height: int
) -> None:
    page.resize(width, height, touch=width < 500)
    names = ("a name of sixty characters, all in one, of nine hundred " + "w" * 40, "b")
    page.show(generator_of(names=names, classes=2, height=40, width=40), tmp_path)
    assert page.run("document.documentElement.scrollWidth") <= width
    page.show(generator_of(), tmp_path)
    box = page.of("picture", "getBoundingClientRect().toJSON()")
    assert box["right"] <= width and box["bottom"] < height, "on the first screen"
    assert box["width"] > min(width, 1200) * 0.6, "and large"
