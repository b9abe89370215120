"""Stage render: grids, interpolations, curves and the film of the training, a diagram of each network."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from cgan import project
from cgan.contact_sheet import COLUMNS, MAX_CLASSES, MAX_NAME_WIDTH, add_row_names, arrange_by_class
from cgan.drawing.class_names import names_in
from cgan.errors import DataError
from cgan.files import replacing
from cgan.model.generative import GenerativeModel
from cgan.model.hardware import compute_deterministically
from cgan.model.model_file import load_discriminator, load_generator
from cgan.model.networks import GeneratorNetwork
from cgan.model.sampling import (
    Picture,
    class_interpolation,
    draw_latents,
    image_grid,
    interpolate_latents,
    render,
    save_png,
)
from cgan.params.sections import RenderParams
from cgan.pictures.network_diagram import diagram
from cgan.pictures.plots import sheet_with, training_curves
from cgan.pipeline.params_file import load_params
from cgan.stages.runner import log, run_stage
from cgan.training.records import read_records

# Pixels: what a README shows; of the film; of a caption; between real images and drawings, and both together.
WIDTH, FILM_WIDTH = 880, 680
CAPTION_HEIGHT = 30
SEPARATOR_WIDTH, MAX_PAIR_WIDTH = 8, 1300
MAX_STRIPS = 10
BACKGROUND = 72  # grey level


def main() -> None:
    params = load_params().render
    compute_deterministically()
    model, facts = load_generator(project.GENERATOR)
    classes = model.classes
    names = names_in(facts, classes) or [str(label) for label in range(classes)]
    discriminator, _ = load_discriminator(project.DISCRIMINATOR)
    first_labels = torch.arange(min(classes, MAX_STRIPS))
    rng = torch.Generator().manual_seed(params.seed)
    random_labels = torch.randint(classes, (9,), generator=rng)  # as the demo's
    pictures = {
        project.GRID: class_grid(model, params, names),
        project.BESIDE_REAL: beside_real(model, params.seed, project.REAL_SAMPLES),
        project.STRIP: _grid(model.draw(first_labels, params.seed), 1, 600),
        project.NINE_DRAWINGS: _grid(model.draw(random_labels, params.seed), 3, 600),
        **interpolations(model, params),
        **dict(zip(project.CURVES, training_curves(read_records(project.LOSSES)), strict=True)),
        project.DIAGRAMS[0]: diagram(model),
        project.DIAGRAMS[1]: diagram(discriminator),
    }
    for path, picture in pictures.items():
        save_png(path, picture)
        log.info("%s: %d × %d pixels", path, picture.shape[1], picture.shape[0])
    # Without previews the film is the trained generator's picture alone.
    frames = film(project.PREVIEWS) or [pictures[project.GRID]]
    save_gif(project.FILM, frames)
    log.info("%s: %d pictures", project.FILM, len(frames))


def class_grid(model: GenerativeModel, params: RenderParams, names: list[str]) -> Picture:
    """A row a class (the first 50), its name and `columns` drawings."""
    rows = min(len(names), MAX_CLASSES)
    images = model.draw(torch.arange(rows).repeat_interleave(params.columns), params.seed)
    return add_row_names(_grid(images, rows, WIDTH - MAX_NAME_WIDTH), names[:rows])


def beside_real(model: GenerativeModel, seed: int, sheet: Path) -> Picture:
    """The contact sheet of real images, and to its right as many drawings of each class."""
    real = _read(sheet)
    rows = min(model.classes, MAX_CLASSES)
    labels = torch.arange(rows).repeat_interleave(COLUMNS)
    drawings = model.draw(labels, seed).numpy()
    drawn = arrange_by_class(drawings, labels.numpy(), np.arange(len(labels)), rows)
    separator = np.full((len(real), SEPARATOR_WIDTH, *real.shape[2:]), 255, np.uint8)
    both = Image.fromarray(np.concatenate([real, separator, drawn], axis=1))
    middle = (real.shape[1] + SEPARATOR_WIDTH) / both.width  # where drawings begin
    if both.width > MAX_PAIR_WIDTH:
        both = both.resize(
            (MAX_PAIR_WIDTH, both.height * MAX_PAIR_WIDTH // both.width), Image.Resampling.LANCZOS
        )
    title = Image.new(both.mode, (both.width, CAPTION_HEIGHT))
    pen = ImageDraw.Draw(title)
    _write_caption(pen, 0, "real images")
    _write_caption(pen, middle * both.width, "drawings")
    return np.concatenate([np.asarray(title), np.asarray(both)])


def interpolations(model: GenerativeModel, params: RenderParams) -> dict[Path, Picture]:
    """Strips from one latent to another, and from a class to the next; without latents, a sheet that says
    so."""
    if isinstance(model, GeneratorNetwork):
        latents, classes = latent_strips(model, params), class_strips(model, params)
    else:
        latents = classes = sheet_with(
            "This generator has no latents, so there is no way from one to another."
        )
    return {project.LATENT_INTERPOLATION: latents, project.CLASS_INTERPOLATION: classes}


def latent_strips(network: GeneratorNetwork, params: RenderParams) -> Picture:
    """A row a class (the first 10), all on the same way from one latent to another."""
    architecture = network.architecture
    rows = min(architecture.classes, MAX_STRIPS)
    start, end = draw_latents(params.seed, 2, architecture.latent_dim)
    path = interpolate_latents(start, end, params.steps)
    labels = torch.arange(rows).repeat_interleave(params.steps)
    return _grid(render(network, path.repeat(rows, 1), network.condition(labels)), rows)


def class_strips(network: GeneratorNetwork, params: RenderParams) -> Picture:
    """In each row one latent goes from a class to the next; the last goes on to class 0."""
    classes, latent_dim = network.architecture.classes, network.architecture.latent_dim
    latents = draw_latents(params.seed, min(classes, MAX_STRIPS), latent_dim)
    strips = [
        class_interpolation(network, latent, label, (label + 1) % classes, params.steps)
        for label, latent in enumerate(latents)
    ]
    return _grid(torch.cat(strips), len(strips))


def _grid(images: torch.Tensor, rows: int, width: int = WIDTH) -> Picture:
    """Images uint8 [N, C, H, W] in `rows` rows, enlarged up to `width` pixels."""
    grid = images.unflatten(0, (rows, -1))
    scale = max(1, width // (grid.shape[1] * images.shape[-1]))
    return image_grid(grid, padding=2, background=BACKGROUND, scale=scale)


def film(folder: Path) -> list[Picture]:
    """The previews step-000001.png, … in the order of their steps, each over its step in words.

    uint8 [H, W, 3] each.
    """
    previews = project.preview_paths(folder)
    frames: list[Picture] = []
    for step, path in previews.items():
        picture = _read(path, "RGB")
        scale = max(1, FILM_WIDTH // picture.shape[1])
        large = picture.repeat(scale, axis=0).repeat(scale, axis=1)
        caption = Image.new("RGB", (large.shape[1], CAPTION_HEIGHT))
        pen, left, last = ImageDraw.Draw(caption), large.shape[1] - 210, max(previews)
        _write_caption(pen, 0, f"step {step:,} of {last:,}")
        for length, colour in ((200, "#3a3f45"), (200 * step // last, "#4c9be8")):
            pen.rectangle((left, 12, left + length, 18), fill=colour)
        frames.append(np.concatenate([large, np.asarray(caption)]))
    return frames


def _read(path: Path, mode: str | None = None) -> Picture:
    try:
        with Image.open(path) as file:
            return np.asarray(file.convert(mode))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: damaged ({error}). Restore it: `dvc checkout --force`.") from None


def _write_caption(pen: ImageDraw.ImageDraw, left: float, words: str) -> None:
    place = (left + 10, CAPTION_HEIGHT / 2)
    pen.text(place, words, "white", ImageFont.load_default(14), anchor="lm")


def save_gif(path: Path, frames: Sequence[Picture]) -> None:
    """An endless film; its last frame stands longer."""
    first, *others = map(Image.fromarray, frames)
    durations_ms = [500] * len(others) + [3000]
    with replacing(path) as temporary:
        first.save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=others,
            duration=durations_ms,
            loop=0,
        )


if __name__ == "__main__":
    run_stage(main)
