"""Stage render: grids, interpolations, curves and the film of the training, a diagram of each network."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from cgan.data.contact_sheet import CLASSES, COLUMNS, MAX_NAME_WIDTH, in_rows, with_names
from cgan.drawing.class_names import names_in
from cgan.errors import DataError
from cgan.files import replacing
from cgan.model.hardware import compute_deterministically
from cgan.model.model_file import load_discriminator, load_generator
from cgan.model.networks import GeneratorNetwork
from cgan.model.sampling import (
    Picture,
    class_interpolation,
    draw,
    draw_latents,
    image_grid,
    interpolate_latents,
    render,
    save_png,
)
from cgan.params.reading import load_params
from cgan.params.sections import RenderParams
from cgan.pictures.network_diagram import network_diagram
from cgan.pictures.plots import training_curves
from cgan.project import (
    BESIDE_REAL,
    CLASS_INTERPOLATION,
    CURVES,
    DIAGRAMS,
    DISCRIMINATOR,
    FILM,
    GENERATOR,
    GRID,
    LATENT_INTERPOLATION,
    LOSSES,
    NINE,
    PREVIEWS,
    REAL_SAMPLES,
    STRIP,
)
from cgan.stages.runner import run_stage

WIDTH = 880  # pixels that a README shows
FILM_WIDTH = 680
STRIPS = 10
CAPTION_HEIGHT = 30
BETWEEN = 8  # pixels between real images and drawings
WIDEST = 1300  # of the two together
BACKGROUND = 72

log = logging.getLogger(__name__)


def main() -> None:
    params = load_params().render
    compute_deterministically()
    network, facts = load_generator(GENERATOR)
    classes = network.architecture.classes
    names = names_in(facts, classes) or [str(label) for label in range(classes)]
    discriminator, _ = load_discriminator(DISCRIMINATOR)
    losses, logits = training_curves(LOSSES)
    pictures = {
        GRID: class_grid(network, params, names),
        BESIDE_REAL: beside_real(network, params.seed, REAL_SAMPLES),
        STRIP: strip(network, params),
        NINE: nine(network, params.seed),
        LATENT_INTERPOLATION: latent_strips(network, params),
        CLASS_INTERPOLATION: class_strips(network, params),
        CURVES[0]: losses,
        CURVES[1]: logits,
        DIAGRAMS[0]: network_diagram(network),
        DIAGRAMS[1]: network_diagram(discriminator),
    }
    for path, picture in pictures.items():
        save_png(path, picture)
        log.info("%s: %d × %d pixels", path, picture.shape[1], picture.shape[0])
    # Without previews the film is the trained generator's picture alone.
    frames = film(PREVIEWS) or [pictures[GRID]]
    save_gif(FILM, frames)
    log.info("%s: %d pictures", FILM, len(frames))


def class_grid(network: GeneratorNetwork, params: RenderParams, names: list[str]) -> Picture:
    """A row a class (the first 50), its name and `columns` drawings."""
    rows = min(len(names), CLASSES)
    images = draw(network, torch.arange(rows).repeat_interleave(params.columns), params.seed)
    return with_names(_framed(images, rows, WIDTH - MAX_NAME_WIDTH), names[:rows])


def beside_real(network: GeneratorNetwork, seed: int, sheet: Path) -> Picture:
    """The contact sheet of real images, and to its right as many drawings of each class."""
    with _opened(sheet) as file:
        real = np.asarray(file)
    rows = min(network.architecture.classes, CLASSES)
    labels = torch.arange(rows).repeat_interleave(COLUMNS)
    drawings = draw(network, labels, seed).numpy()
    drawn = in_rows(drawings, labels.numpy(), np.arange(len(labels)), rows)
    between = np.full((len(real), BETWEEN, *real.shape[2:]), 255, np.uint8)
    both = Image.fromarray(np.concatenate([real, between, drawn], axis=1))
    middle = (real.shape[1] + BETWEEN) / both.width
    if both.width > WIDEST:
        both = both.resize((WIDEST, both.height * WIDEST // both.width), Image.Resampling.LANCZOS)
    title = Image.new(both.mode, (both.width, CAPTION_HEIGHT))
    pen, font = ImageDraw.Draw(title), ImageFont.load_default(14)
    for words, left in (("real images", 0), ("drawings", middle * both.width)):
        pen.text((left + 10, CAPTION_HEIGHT / 2), words, "white", font, anchor="lm")
    return np.concatenate([np.asarray(title), np.asarray(both)])


def strip(network: GeneratorNetwork, params: RenderParams) -> Picture:
    """One row: a drawing of each of the first 10 classes."""
    labels = torch.arange(min(network.architecture.classes, STRIPS))
    return _framed(draw(network, labels, params.seed), 1, width=600)


def nine(network: GeneratorNetwork, seed: int) -> Picture:
    """3 × 3 of random classes, as the demo showed its samples."""
    source = torch.Generator().manual_seed(seed)
    labels = torch.randint(network.architecture.classes, (9,), generator=source)
    return _framed(draw(network, labels, seed), 3, width=600)


def latent_strips(network: GeneratorNetwork, params: RenderParams) -> Picture:
    """A row a class (the first 10), all on the same way from one latent to another."""
    a = network.architecture
    rows = min(a.classes, STRIPS)
    start, end = draw_latents(params.seed, 2, a.latent_dim)
    path = interpolate_latents(start, end, params.steps)
    labels = torch.arange(rows).repeat_interleave(params.steps)
    return _framed(render(network, path.repeat(rows, 1), network.condition(labels)), rows)


def class_strips(network: GeneratorNetwork, params: RenderParams) -> Picture:
    """In each row one latent goes from a class to the next; the last goes on to class 0."""
    a = network.architecture
    rows = min(a.classes, STRIPS)
    latents = draw_latents(params.seed, rows, a.latent_dim)
    strips = [
        class_interpolation(network, latent, label, (label + 1) % a.classes, params.steps)
        for label, latent in enumerate(latents)
    ]
    return _framed(torch.cat(strips), rows)


def _framed(images: torch.Tensor, rows: int, width: int = WIDTH) -> Picture:
    """uint8 [N, C, H, W] → `rows` rows, enlarged up to `width` pixels."""
    columns = len(images) // rows
    grid = images.view(rows, columns, *images.shape[1:])
    scale = max(1, width // (columns * images.shape[-1]))
    return image_grid(grid, padding=2, background=BACKGROUND, scale=scale)


def film(folder: Path) -> list[Picture]:
    """The previews step-000001.png, … in the order of their steps, each over its step in words.

    uint8 [H, W, 3] each.
    """
    steps = {int(path.stem.removeprefix("step-")): path for path in folder.glob("step-*.png")}
    frames: list[Picture] = []
    for step, path in sorted(steps.items()):
        with _opened(path) as file:
            picture = np.asarray(file.convert("RGB"))
        scale = max(1, FILM_WIDTH // picture.shape[1])
        large = picture.repeat(scale, axis=0).repeat(scale, axis=1)
        frames.append(_captioned(large, step, max(steps)))
    return frames


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as file:
            yield file
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: damaged ({error}). Restore it: `dvc checkout --force`.") from None


def _captioned(picture: Picture, step: int, last: int) -> Picture:
    width = picture.shape[1]
    caption = Image.new("RGB", (width, CAPTION_HEIGHT))
    pen = ImageDraw.Draw(caption)
    words = f"step {step:,} of {last:,}"
    pen.text((10, CAPTION_HEIGHT / 2), words, font=ImageFont.load_default(14), anchor="lm")
    pen.rectangle((width - 210, 12, width - 10, 18), fill="#3a3f45")
    pen.rectangle((width - 210, 12, width - 210 + 200 * step // last, 18), fill="#4c9be8")
    return np.concatenate([picture, np.asarray(caption)])


def save_gif(
    path: Path | str, frames: Sequence[Picture], frame_ms: int = 500, last_ms: int = 3000
) -> None:
    """An endless film; its last frame stands longer."""
    first, *others = [Image.fromarray(frame) for frame in frames]
    durations = [frame_ms] * len(others) + [last_ms]
    with replacing(path) as temporary:
        first.save(
            temporary, format="GIF", save_all=True, append_images=others, duration=durations, loop=0
        )


if __name__ == "__main__":
    run_stage(main)
