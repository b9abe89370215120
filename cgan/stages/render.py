"""Stage render: grids, an interpolation, curves, the confusion matrix, a figure of each network."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from cgan.base.files import write_text
from cgan.data import contact_sheet
from cgan.drawing import plots
from cgan.drawing.class_names import names_in
from cgan.models.generative import GenerativeModel
from cgan.models.hardware import deterministic
from cgan.models.model_file import load_discriminator, load_generator
from cgan.models.sampling import ImageArray, save_png
from cgan.pipeline import project
from cgan.quality.evaluation import Evaluation
from cgan.stages.runner import log, run_stage
from cgan.training.records import read_records

SEED = 7
MIN_STEPS = 3  # pictures of an interpolation, however large
MAX_ROWS = 10  # classes of a strip or an interpolation
# Pixels: what a README shows; of a caption; between real images and drawings.
WIDTH, STRIP_WIDTH = 880, 600
CAPTION_HEIGHT, SEPARATOR_WIDTH = 30, 8


@deterministic()
def main() -> None:
    model, facts = load_generator(project.GENERATOR)
    names = names_in(facts, model.classes) or [str(label) for label in range(model.classes)]
    discriminator, _ = load_discriminator(project.DISCRIMINATOR)
    _, columns = contact_sheet.layout(*model.shape[1:])
    few = torch.arange(min(model.classes, MAX_ROWS, columns))
    shown = names[: contact_sheet.MAX_SHEET_CLASSES]
    labels = torch.arange(len(shown)).repeat_interleave(columns)
    drawings = model.draw(labels, SEED)
    by_class = _grid(drawings, len(shown), WIDTH - contact_sheet.MAX_NAME_WIDTH)
    nothing = [plots.sheet_with("No losses: this generator is not trained.")] * 2
    losses, probes = map(read_records, (project.LOSSES, project.PROBES))
    figures = plots.training_curves(losses)
    curves = [plots.rendered(figure) for figure in figures]
    pictures = {
        project.GRID: contact_sheet.add_row_names(by_class, shown),
        project.BESIDE_REAL: beside_real(drawings, labels, project.REAL_SAMPLES),
        project.STRIP: _grid(model.draw(few, SEED), 1, STRIP_WIDTH),
        project.LATENT_INTERPOLATION: latent_interpolation(model, max(columns, MIN_STEPS)),
        project.CONFUSION_MATRIX: plots.confusion_matrix_image(
            Evaluation.read(project.EVALUATION).confusion, names
        ),
        **dict(zip(project.CURVES, curves or nothing, strict=True)),
        project.DIAGRAMS[0]: plots.diagram(f"Generator: {model.description}", model),
        project.DIAGRAMS[1]: plots.diagram("Discriminator", discriminator),
    }
    for path, picture in pictures.items():
        save_png(path, picture)
        log.info("%s: %d × %d pixels", path, picture.shape[1], picture.shape[0])
    write_text(project.CURVES_HTML, plots.curves_html(figures + plots.training_curves(probes)))


def beside_real(drawings: Tensor, labels: Tensor, sheet: Path) -> ImageArray:
    """The contact sheet of real images, and to its right the drawings of each class."""
    with Image.open(sheet) as file:
        real = np.asarray(file)
    order, rows = np.arange(len(labels)), int(labels.max()) + 1
    drawn = contact_sheet.arrange_by_class(drawings.numpy(), labels.numpy(), order, rows)
    separator = np.full((len(real), SEPARATOR_WIDTH, *real.shape[2:]), 255, np.uint8)
    both = np.concatenate([real, separator, drawn], axis=1)
    caption = Image.new("L" if real.ndim == 2 else "RGB", (both.shape[1], CAPTION_HEIGHT))
    pen, font = ImageDraw.Draw(caption), ImageFont.load_default(14)
    for left, words in ((0, "real images"), (real.shape[1] + SEPARATOR_WIDTH, "drawings")):
        pen.text((left + 10, CAPTION_HEIGHT / 2), words, "white", font, anchor="lm")
    return np.concatenate([np.asarray(caption), both])


def latent_interpolation(model: GenerativeModel, steps: int) -> ImageArray:
    """A row per class (the first 10), along one path between latents; without any, a sheet that says so."""
    rows = min(model.classes, MAX_ROWS)
    images = model.interpolation(torch.arange(rows), steps, SEED)
    if images is None:
        return plots.sheet_with("This generator has no latents: no path leads from one to another.")
    return _grid(images, rows)


def _grid(images: Tensor, rows: int, width: int = WIDTH) -> ImageArray:
    """Images uint8 [N, C, H, W] in `rows` rows, enlarged up to `width` pixels."""
    grid = images.unflatten(0, (rows, -1))
    scale = max(1, width // (grid.shape[1] * images.shape[-1]))
    return contact_sheet.image_grid(
        grid.numpy(), contact_sheet.GAP, contact_sheet.BACKGROUND, scale
    )


if __name__ == "__main__":
    run_stage(main)
