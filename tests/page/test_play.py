"""A page with a generator in it, in a real browser: it draws what torch draws, and obeys."""

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Visitor
from PIL import Image

from cgan.base.errors import CganError
from cgan.drawing.class_names import Classes
from cgan.drawing.generator import Generator
from cgan.models.networks import Architecture, GeneratorNetwork, build_generator
from cgan.models.sampling import draw_latents
from cgan.page.assemble import play_page

LATENT = 12
SIZES = [("demo", (28, 28)), ("deconv", (9, 30)), ("upsample", (9, 30))]
SLOW = [
    pytest.param(kind, size, marks=pytest.mark.slow)
    for kind in ("deconv", "upsample")
    for size in ((9, 65), (256, 256))
]


@functools.cache
@torch.no_grad()
def generator_of(
    kind: str = "deconv", names: tuple[str, ...] | None = None, **changes: Any
) -> Generator:
    """Weights and statistics as after a training: no layer leaves its input as it is; there is contrast."""
    facts: dict[str, Any] = {"classes": 10, "channels": 1, "height": 28, "width": 28, "features": 8}
    torch.manual_seed(5)
    network = build_generator(Architecture(kind, **{**facts, "latent_dim": LATENT, **changes}))
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 2)
            module.bias.data.normal_(0, 0.3)
            module.momentum = None  # the statistics are means over all batches
    before_tanh: list[torch.Tensor] = []
    last = network.layers[-2]
    hook = last.register_forward_hook(lambda _, __, out: before_tanh.append(out))
    for training in [True] * 5 + [False]:
        labels = torch.randint(network.architecture.classes, (64,))
        network.train(training)(torch.randn(64, network.architecture.latent_dim), labels)
    hook.remove()
    last.get_parameter("weight").data /= before_tanh[-1].std()  # from black to white
    facts = {"digest": "0" * 64, "class_names": list(names) if names else None}
    return Generator(network.eval().requires_grad_(False), facts)


def show(page: Visitor, generator: Generator, folder: Path, link: str = "") -> None:
    path = folder / f"{id(generator)}.html"
    if not path.exists():
        path.write_text(play_page(generator, "", "a test"), encoding="utf-8")
    page.open(f"{path.as_uri()}{link}")
    page.idle()


def side_by_side(images: Any) -> Any:
    """[N, H, W] → int [H, N·W, 3]."""
    return np.concatenate(list(np.asarray(images).astype(int)), axis=1)[..., None].repeat(3, axis=2)


def assert_alike(found: Any, expected: Any) -> None:
    """99.9 % of the pixels within one grey level, none more than two."""
    assert found.shape == expected.shape
    apart = np.abs(found.astype(int) - expected.astype(int))
    assert expected.std() > 30 and (apart <= 1).mean() >= 0.999 and apart.max() <= 2


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("kind", "size"), [*SIZES, *SLOW])
def test_the_page_draws_the_pixels_of_torch(
    page: Visitor, tmp_path: Path, kind: str, size: tuple[int, int], channels: int
) -> None:
    height, width = size
    generator = generator_of(kind, channels=channels, height=height, width=width, features=4)
    show(page, generator, tmp_path)
    latents, labels = torch.randn(10, LATENT), torch.arange(10)
    network = generator.model
    assert isinstance(network, GeneratorNetwork)
    expected = network.render(latents, network.condition(labels))
    asked = f"{json.dumps(latents.tolist())}, {labels.tolist()}"
    found = page.run(f"cgan.draw({asked}).map((drawing) => Array.from(drawing))")
    assert_alike(np.array(found), expected.flatten(1).numpy())


def test_half_a_morph_is_the_mean_of_two_conditions(page: Visitor, tmp_path: Path) -> None:
    generator = generator_of("upsample")
    show(page, generator, tmp_path, "#seed=5&from=2&to=9&mix=0.5")
    network = generator.model
    assert isinstance(network, GeneratorNetwork)
    condition = network.condition(torch.tensor([2, 9])).mean(dim=0, keepdim=True)
    expected = network.render(draw_latents(5, 1, LATENT), condition)
    assert_alike(page.pixels("morph"), side_by_side(expected[:, 0]))
    assert page.label("morph") == "50 % of the way from 2 to 9"


def test_what_is_typed_is_drawn_and_what_is_none_is_told(page: Visitor, tmp_path: Path) -> None:
    generator = generator_of(height=12, width=9)
    show(page, generator, tmp_path)
    assert page.part("text").input_value() == "2024" and page.words("fault") == ""
    page.type("text", "31415926")
    assert page.label() == "31415926, drawn with seed 0"
    assert_alike(page.pixels(), side_by_side(generator.draw("31415926")))
    page.type("text", "3 x 1")
    assert page.words("fault") == "“x” is not a class."
    assert page.label() == "31, drawn with seed 0"
    page.type("text", "")
    assert page.words("fault") == "Nothing to draw yet."
    assert page.words("hint") == "The classes are 0 to 9."
    assert page.label() == "31, drawn with seed 0", "the last picture stays"
    page.type("seed", "-3")
    assert "still shows seed 0" in page.words("seed-fault")
    page.type("text", "1" * 201)
    assert page.label().startswith(f"{'1' * 200},") and "first 200 of 201" in page.words("fault")


PLACES = [(0.0, 0.0), *((x, y) for x in (-1, -0.5, 0.5, 1) for y in (-1, -0.5, 0.5, 1))]


def test_every_place_of_the_pad_turns_torchs_latents(page: Visitor, tmp_path: Path) -> None:
    show(page, generator_of(latent_dim=7), tmp_path)
    for seed in (4, 2**53 - 1):
        code = f"(([x, y]) => cgan.latents({seed}, 50, x, y).map((latent) => [...latent]))"
        middle, *others = np.array(page.run(f"{json.dumps(PLACES)}.map{code}"))
        np.testing.assert_allclose(middle, draw_latents(seed, 50, 7), atol=3e-6)
        lengths = np.linalg.norm(middle, axis=1)
        for (x, y), moved in zip(PLACES[1:], others, strict=True):
            np.testing.assert_allclose(np.linalg.norm(moved, axis=1), lengths, rtol=1e-5)
            turned = np.cos(np.hypot(x, y) * np.pi / 2)
            np.testing.assert_allclose((moved * middle).sum(axis=1) / lengths**2, turned, atol=1e-5)


def test_a_link_opens_the_same_picture(page: Visitor, tmp_path: Path) -> None:
    generator = generator_of()
    show(page, generator, tmp_path)
    page.type("text", "90210")
    page.part("another").click()
    page.part("pad").scroll_into_view_if_needed()
    pad = page.part("pad").bounding_box()
    assert pad
    page.page.mouse.click(pad["x"] + 0.2 * pad["width"], pad["y"] + 0.7 * pad["height"])
    page.part("from").select_option("4")
    page.part("to").select_option("6")
    page.type("mix", "0.01")
    page.until("location.hash.includes('mix=0.01')")
    link = page.run("location.hash")
    assert link == "#text=90210&seed=1&x=-0.6&y=-0.4&from=4&to=6&mix=0.01"
    picture, morph = page.pixels(), page.pixels("morph")
    show(page, generator, tmp_path)
    assert page.pixels().shape != picture.shape
    page.run(f"location.hash = '{link}'")  # in the open page
    page.until("document.getElementById('play-text').value === '90210'")
    page.idle()
    assert (page.pixels() == picture).all()
    show(page, generator, tmp_path, link)  # in a new one
    assert (page.pixels() == picture).all() and (page.pixels("morph") == morph).all()
    page.part("copy").click()
    page.until("document.getElementById('play-said').textContent")
    assert page.words("said").endswith("cgan draw '90210' --seed 1")


def test_a_downloaded_picture_is_as_by_cgan_draw(page: Visitor, tmp_path: Path) -> None:
    generator = generator_of()
    show(page, generator, tmp_path, "#text=012345678901234567890&seed=3")
    with page.page.expect_download() as download:
        page.part("png").click()
    assert download.value.suggested_filename == "012345678901234567890-seed-3.png"
    with Image.open(download.value.path()) as picture:
        array = np.asarray(picture.convert("RGB"))
    images = generator.draw("012345678901234567890", seed=3)
    # In two lines of eleven, on which up to 900 pixels have room.
    lines = [side_by_side(images[:11]), side_by_side([*images[11:], np.zeros((28, 28))])]
    assert_alike(array, np.concatenate(lines).repeat(2, axis=0).repeat(2, axis=1))


# Names, or how many classes there are without; and of each text its labels, or None where it is refused.
TEXTS: list[tuple[tuple[str, ...] | int, dict[str, list[int] | None]]] = [
    (10, {"2024": [2, 0, 2, 4], " 20,\t24, ": [2, 0, 2, 4], "20x4": None, "": None, " , ,": None}),
    (12, {"11,3 0": [11, 3, 0], "12": None, "1 x": None}),
    (
        ("x", "y", "x y z", "z", "ankle boot", "Boot"),
        {
            **{"x y": [0, 1], "x y z": [2], "x  Y\tz": [2], "z, x y z": [3, 2]},
            **{"x y z x": [0, 1, 3, 0], "xyz": [0, 1, 3], "ankle boot, boot": [4, 5]},
            **{"ankle boot boot": None, "boot 2, ankle  boot": [5, 2, 4]},
            **{"25": [2, 5], "6": None, "2x": [2, 0]},
        },
    ),
    (("New", "York", "New York", "x"), {"new york": [2], "new york x": [0, 1, 3]}),
    (
        ("Straße", "ΣΟΦΟΣ", "İzmir"),
        {"straße, ΣΟΦΟΣ σοφος": [0, 1, 1], "i̇zmir": [2], "STRASSE": None},
    ),
    (("ab", "AB", "c"), {"AB ab c": [1, 0, 2], "aB": [0]}),
    (tuple("ABCDEFGHIJKLMNOP"), {"Head m": [7, 4, 0, 3, 12], "A1": None}),
    (("3", "5", "9"), {"9 3": [2, 0], "0": None}),
    (("0", "1", "2"), {"2 0,1": [2, 0, 1]}),
    (tuple(map(str, range(1, 13))), {"12 1": [11, 0], "13": None}),
    (tuple("0123456789AB"), {"A11 2024": [10, 1, 1, 2, 0, 2, 4], "11": [1, 1]}),
]


def test_the_page_and_python_read_a_text_alike(page: Visitor, tmp_path: Path) -> None:
    """What is typed is drawn: its label says what was read, and the fault that something was not."""
    for kind, texts in TEXTS:
        names, classes = (None, kind) if isinstance(kind, int) else (kind, len(kind))
        small = {"classes": classes, "height": 8, "width": 8, "features": 4}
        show(page, generator_of(names=names, **small), tmp_path)
        called = names or [str(label) for label in range(classes)]
        for text, labels in texts.items():
            try:
                found = Classes(classes, names).labels(text)
            except CganError:
                found = None
            assert found == labels, text
            page.type("text", text)
            assert (page.words("fault") == "") == (labels is not None), text
            if labels is not None:
                drawn = "".join(called[each] for each in labels)
                assert page.label().replace(", ", "") == f"{drawn}drawn with seed 0", text
