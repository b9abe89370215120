"""Stage render: pictures of the trained networks and of their training."""

from collections.abc import Iterator
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT
from matplotlib import font_manager
from PIL import Image

from cgan.contact_sheet import add_row_names, contact_sheet, font_with
from cgan.images import Images
from cgan.model.model_file import load_generator, save_discriminator, save_generator
from cgan.model.networks import Architecture, build_discriminator, build_generator
from cgan.model.sampling import draw, encode_png
from cgan.pipeline.params_file import load_params
from cgan.project import BESIDE_REAL, DISCRIMINATOR, FILM, GENERATOR, LOSSES, PREVIEWS, REAL_SAMPLES
from cgan.stages import render

STAGE = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["render"]
OUTPUTS = STAGE["outs"] + STAGE["plots"]


@pytest.fixture(autouse=True)
def deterministic_only_here() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def trained(project: Path) -> Path:
    """A project after the stage train, with untrained networks, three previews and losses."""
    columns = ("step", *(f"loss/{who}" for who in ("discriminator", "generator")))
    columns += ("logits/real_mean", "logits/fake_mean")
    LOSSES.parent.mkdir()
    LOSSES.write_text(f"{','.join(columns)}\n50,1.5,2.5,3,-1\n100,1.25,2,2,-0.5\n")
    torch.manual_seed(5)
    save_generator(GENERATOR, build_generator(Architecture("deconv", 4, 1, 8, 8, 4, 6)), {})
    save_discriminator(
        DISCRIMINATOR, build_discriminator(Architecture("projection", 4, 1, 8, 8, 4)), {}
    )
    PREVIEWS.mkdir(parents=True)
    for step, grey in ((1, 40), (200, 120), (500_000, 220)):
        preview = encode_png(np.full((20, 30), grey, np.uint8))
        (PREVIEWS / f"step-{step:06d}.png").write_bytes(preview)
    images, labels = np.full((4, 1, 8, 8), 200, np.uint8), np.arange(4)
    contact_sheet(Images(images, labels, ["cat", "dog", "eel", "fox"]), 0).save(REAL_SAMPLES)
    return project


def test_render_writes_what_dvc_yaml_lists_the_same_bytes_each_time(trained: Path) -> None:
    before = {path for path in trained.rglob("*") if path.is_file()}
    render.main()
    written = {path for path in trained.rglob("*") if path.is_file()} - before
    assert sorted(str(path.relative_to(trained)) for path in written) == sorted(OUTPUTS)
    for path in OUTPUTS:
        with Image.open(path) as picture:
            picture.load()
            assert picture.width <= 900 or Path(path) == BESIDE_REAL
    first = {path: Path(path).read_bytes() for path in OUTPUTS}
    torch.randn(10)
    render.main()
    assert {path: Path(path).read_bytes() for path in OUTPUTS} == first


def test_the_film_shows_the_previews_in_the_order_of_their_steps(trained: Path) -> None:
    late = encode_png(np.full((20, 30), 250, np.uint8))
    (PREVIEWS / "step-1000000.png").write_bytes(late)
    frames = [np.asarray(frame) for frame in render.film(PREVIEWS)]
    assert [int(frame[100, 100, 0]) for frame in frames] == [40, 120, 220, 250]
    captions = [frame[-render.CAPTION_HEIGHT :] for frame in frames]
    blue = [int((c[..., 2].astype(int) - c[..., 0] > 80).sum()) for c in captions]
    assert blue == sorted(blue) and len(set(blue)) > 2, "the bar grows with the steps"
    assert all((caption > 200).any() for caption in captions), "the step is written there"
    render.save_gif(FILM, frames)
    with Image.open(FILM) as film:
        assert film.info["loop"] == 0
        found = []
        for index in range(film.n_frames):
            film.seek(index)
            found.append((film.convert("L").getpixel((100, 100)), film.info["duration"]))
    assert found == [(40, 500), (120, 500), (220, 500), (250, 3000)]


def test_drawings_stand_beside_the_real_images_of_their_class(trained: Path) -> None:
    render.main()
    with Image.open(BESIDE_REAL) as sheet, Image.open(REAL_SAMPLES) as real:
        rows = np.asarray(sheet)[render.CAPTION_HEIGHT :]
        left, right = np.split(rows, [real.width], axis=1)
        assert np.array_equal(left, np.asarray(real))
        assert (right[:, : render.SEPARATOR_WIDTH] == 255).all()
    network, _ = load_generator(GENERATOR)
    drawn = right[
        2 * 50 + 2 :, render.SEPARATOR_WIDTH + 2 :
    ]  # enlarged six times, two pixels apart
    labels = torch.arange(4).repeat_interleave(10)
    images = draw(network, labels, load_params().render.seed)
    assert np.array_equal(drawn[:48:6, :48:6], images[20, 0].numpy())
    assert np.array_equal(drawn[:48:6, 9 * 50 : 9 * 50 + 48 : 6], images[29, 0].numpy())


def test_without_previews_the_film_is_the_trained_generators_grid(trained: Path) -> None:
    for path in PREVIEWS.iterdir():
        path.unlink()
    render.main()
    with Image.open("samples/grid.png") as grid, Image.open(FILM) as film:
        assert np.array_equal(np.asarray(film.convert("RGB"))[..., 0], np.asarray(grid))


def test_names_are_written_in_a_font_that_has_their_letters_or_rows_have_numbers(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fonts = f"{matplotlib.get_data_path()}/fonts/ttf"
    monkeypatch.setattr(
        font_manager, "findSystemFonts", lambda: [__file__, f"{fonts}/STIXGeneral.ttf"]
    )
    assert font_with("f\xfcr") == f"{fonts}/DejaVuSans.ttf"
    assert font_with("k\u1d81") == f"{fonts}/STIXGeneral.ttf", "of this machine's"
    picture, names = np.zeros((60, 30), np.uint8), ["\u732b", "k", "\u72ac"]
    assert font_with("".join(sorted({*"".join(names)}))) == "" and "Noto Sans CJK" in caplog.text
    assert (add_row_names(picture, names) == add_row_names(picture, ["0", "1", "2"])).all()
    font_with.cache_clear()
