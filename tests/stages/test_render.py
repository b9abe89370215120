"""Stage render: pictures of the trained networks and of their training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT
from PIL import Image

from cgan.errors import DataError
from cgan.model.model_file import save_network
from cgan.model.networks import Architecture, build_discriminator, build_generator
from cgan.model.sampling import encode_png
from cgan.params.sections import RenderParams
from cgan.project import DISCRIMINATOR, GENERATOR
from cgan.stages import render

STAGE = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["render"]
OUTPUTS = STAGE["outs"] + STAGE["plots"]
PARAMS = RenderParams(columns=3, steps=4, seed=7)


@pytest.fixture(autouse=True)
def deterministic_only_here() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def trained(project: Path) -> Path:
    """A project after the stage train, with untrained networks, three previews and losses."""
    columns = ("step", *(f"loss/{who}" for who in ("discriminator", "generator")))
    columns += ("logits/real_mean", "logits/fake_mean")
    render.LOSSES.parent.mkdir()
    render.LOSSES.write_text(f"{','.join(columns)}\n50,1.5,2.5,3,-1\n100,1.25,2,2,-0.5\n")
    torch.manual_seed(5)
    save_network(GENERATOR, build_generator(Architecture("deconv", 4, 1, 8, 8, 4, 6)), {})
    save_network(DISCRIMINATOR, build_discriminator(Architecture("projection", 4, 1, 8, 8, 4)), {})
    render.PREVIEWS.mkdir(parents=True)
    for step, grey in ((1, 40), (200, 120), (500_000, 220)):
        preview = encode_png(np.full((20, 30), grey, np.uint8))
        (render.PREVIEWS / f"step-{step:06d}.png").write_bytes(preview)
    return project


def test_render_writes_what_dvc_yaml_lists_the_same_bytes_each_time(trained: Path) -> None:
    before = {path for path in trained.rglob("*") if path.is_file()}
    render.main()
    written = {path for path in trained.rglob("*") if path.is_file()} - before
    assert sorted(str(path.relative_to(trained)) for path in written) == sorted(OUTPUTS)
    for path in OUTPUTS:
        with Image.open(path) as picture:
            picture.load()
            assert picture.width <= 900
    first = {path: Path(path).read_bytes() for path in OUTPUTS}
    torch.randn(10)
    render.main()
    assert {path: Path(path).read_bytes() for path in OUTPUTS} == first


def test_the_film_shows_the_previews_in_the_order_of_their_steps(trained: Path) -> None:
    late = encode_png(np.full((20, 30), 250, np.uint8))
    (render.PREVIEWS / "step-1000000.png").write_bytes(late)
    frames = [np.asarray(frame) for frame in render.film(render.PREVIEWS)]
    assert [int(frame[100, 100, 0]) for frame in frames] == [40, 120, 220, 250]
    captions = [frame[-render.CAPTION_HEIGHT :] for frame in frames]
    blue = [int((c[..., 2].astype(int) - c[..., 0] > 80).sum()) for c in captions]
    assert blue == sorted(blue) and len(set(blue)) > 2, "the bar grows with the steps"
    assert all((caption > 200).any() for caption in captions), "the step is written there"


def test_without_previews_the_film_is_the_trained_generators_grid(trained: Path) -> None:
    for path in render.PREVIEWS.iterdir():
        path.unlink()
    render.main()
    with Image.open("samples/grid.png") as grid, Image.open(render.FILM) as film:
        assert np.array_equal(np.asarray(film.convert("RGB"))[..., 0], np.asarray(grid))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"no picture", "not a readable picture"),
        (encode_png(np.zeros((20, 30), np.uint8))[:-30], "not a readable picture"),
        (encode_png(np.zeros((9, 9), np.uint8)), "9 × 9 pixels"),
    ],
    ids=["no picture", "cut off", "of another size"],
)
def test_a_preview_that_does_not_fit_is_refused_by_name(
    trained: Path, content: bytes, words: str
) -> None:
    (render.PREVIEWS / "step-000200.png").write_bytes(content)
    with pytest.raises(DataError, match=rf"step-000200\.png: {words}"):
        render.film(render.PREVIEWS)


@pytest.mark.parametrize(
    "architecture",
    [Architecture("embed", 300, 3, 64, 64, 2, 3), Architecture("deconv", 2, 1, 8, 8, 2, 3)],
    ids=["many classes and large colour images", "two classes"],
)
def test_every_picture_has_a_bounded_size(architecture: Architecture) -> None:
    network = build_generator(architecture).eval()
    for picture in (
        render.class_grid(network, PARAMS),
        render.nine(network, 7),
        render.latent_strips(network, PARAMS),
        render.class_strips(network, PARAMS),
    ):
        assert picture.ndim == (3 if architecture.channels == 3 else 2)
        assert picture.shape[1] <= 900
        assert picture.nbytes < 50_000_000
