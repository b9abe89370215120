"""The curves of a training, the confusion matrix, and networks as figures, a line for each layer."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from torch import Tensor, nn

from cgan.base.text import drawable, percent
from cgan.models.generative import GenerativeModel
from cgan.models.networks import DiscriminatorNetwork
from cgan.models.sampling import ImageArray

MAX_NUMBERED_CLASSES, MAX_AXIS_NAMES = 24, 30  # for which there is room
MIN_SHOWN_SHARE = 0.0005  # of a row: what is less is 0.0 per cent
CURVE_COLUMNS = {
    "Losses": {"loss/discriminator": "discriminator", "loss/generator": "generator"},
    "What the discriminator says (mean logits)": {
        "logits/real_mean": "real images",
        "logits/fake_mean": "fake images",
    },
    "Accuracy and spread": {
        "probe/conditional_accuracy": "show the class asked for",
        "probe/diversity_mean": "spread, 1 as real images",
        "probe/diversity_worst_class": "spread of the worst class",
    },
    "Fréchet distance": {"probe/fid_judge": "drawings"},
}
DETAIL_WIDTH = 90  # characters for what a layer is made of
WIDE_RANGE = 50  # the highest value over the lowest: above, an axis is logarithmic


def rendered(figure: Figure) -> ImageArray:
    """Pixels of a figure, uint8 [H, W, 3]."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]


def svg_of(figure: Figure) -> str:
    """A figure as an SVG element of a page, in its font and colour."""
    buffer = io.StringIO()
    title = figure.axes[0].get_title()  # keeps the ids of several figures in one page apart
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": title}):
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace("#000000", "currentColor")
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    return re.sub(r" font-family: [^;\"]*;?", "", text)


def sheet_with(*lines: str) -> ImageArray:
    """Lines of text where a picture would be, uint8 [H, W, 3]."""
    figure = Figure(figsize=(10.5, 0.4 + 0.17 * len(lines)))
    figure.text(0.03, 0.5, "\n".join(lines), va="center", size=9, family="monospace")
    return rendered(figure)


def training_curves(records: Sequence[Mapping[Any, float]]) -> list[Figure]:
    """The figures whose columns the records of a training have, losses or probes; none without records."""
    steps, figures = [record["step"] for record in records], list[Figure]()
    for title, columns in CURVE_COLUMNS.items():
        if records and columns.keys() <= records[0].keys():
            curves = {name: [row[key] for row in records] for key, name in columns.items()}
            figures.append(curves_figure(title, steps, curves))
    return figures


def curves_html(figures: Sequence[Figure]) -> str:
    """The figures of a training for its page; without any, a sentence that says so."""
    if not figures:
        return "<p>No losses were recorded.</p>\n"
    return "".join(f'<figure class="chart">{svg_of(figure)}</figure>\n' for figure in figures)


def curves_figure(title: str, steps: ArrayLike, curves: Mapping[str, ArrayLike]) -> Figure:
    """Curves over the steps. A value that is not finite is left out."""
    figure = Figure(figsize=(6, 3.8))
    figure.subplots_adjust(0.1, 0.14, 0.98, 0.91)  # a layout that finds them draws everything twice
    axes = figure.subplots()
    for name, values in curves.items():
        axes.plot(steps, values, label=name)
    known = np.concatenate([np.ravel(values) for values in curves.values()])
    known = known[np.isfinite(known)]
    if known.size and known.min() > 0 and known.max() > WIDE_RANGE * known.min():
        axes.set_yscale("log")  # what falls a hundredfold would otherwise be a flat line
    axes.set(title=title, xlabel="step")
    axes.grid(alpha=0.3)
    axes.legend(loc="best", frameon=False)
    return figure


def confusion_matrix_image(matrix: Any, class_names: Sequence[str]) -> ImageArray:
    """A picture of counts [classes, classes]: rows the asked class, columns the judged one. Shades and
    numbers are per cent of the row. Errors are shaded by their square root: a few per cent must be seen."""
    counts = np.asarray(matrix, dtype=np.float64)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    classes, right = len(class_names), np.eye(len(counts), dtype=bool)
    figure = Figure(figsize=(7, 7), layout="constrained")
    axes = figure.subplots()
    for mask, shades, colours in ((right, shares, "Blues"), (~right, shares**0.5, "Reds")):
        axes.imshow(np.where(mask, shades, np.nan), cmap=colours, vmin=0, vmax=1)
    labels = range(0, classes, math.ceil(classes / MAX_AXIS_NAMES))
    known = drawable(class_names)
    names = [f"{known[label]:.12}" for label in labels]
    direction = "horizontal" if max(map(len, names)) < 3 else "vertical"
    axes.set_xticks(labels, names, rotation=direction)
    axes.set_yticks(labels, names)
    axes.set(xlabel="class that the judge sees", ylabel="class asked for")
    hits = counts.trace() / max(counts.sum(), 1)
    axes.set_title(f"{percent(hits)} of {int(counts.sum()):,} drawings; per cent of each row")
    place: dict[str, Any] = {"ha": "center", "va": "center", "size": min(10, 130 / classes)}
    for row, column in np.argwhere((shares >= MIN_SHOWN_SHARE) & (classes <= MAX_NUMBERED_CLASSES)):
        share = shares[row, column]
        dark = 0.55 if row == column else 0.3  # from this share on, by the shades above
        colour = "white" if share > dark else "black"
        words = "100" if share > 1 - MIN_SHOWN_SHARE else f"{share * 100:.1f}"
        axes.text(column, row, words, color=colour, **place)
    return rendered(figure)


def diagram(title: str, model: GenerativeModel | DiscriminatorNetwork | None) -> ImageArray:
    """The layers of a network, or that there is none: uint8 [H, W, 3]."""
    if model is None:
        return sheet_with(f"{title}: none, since this generator is not trained.")
    return sheet_with(*layers_in_words(title, model))


@torch.inference_mode()
def layers_in_words(title: str, model: GenerativeModel | DiscriminatorNetwork) -> list[str]:
    """A header, and each module without children in the order in which they ran: what it is made of, how many
    parameters it has, what it puts out. The model is on the CPU."""
    sizes, label = model.architecture, torch.zeros(1, dtype=torch.int64)
    total = sum(parameter.numel() for parameter in model.parameters())
    lines = list[str]()

    def record(module: nn.Module, inputs: tuple[Tensor, ...], outputs: Tensor) -> None:
        # Our ConvTransposeToImages is a ConvTranspose2d to the reader.
        layer = nn.ConvTranspose2d if isinstance(module, nn.ConvTranspose2d) else type(module)
        detail = module.extra_repr()[: DETAIL_WIDTH - 1]
        count = sum(parameter.numel() for parameter in module.parameters())
        shape = " × ".join(map(str, outputs.shape[1:]))
        lines.append(f"{layer.__name__:<18}{detail:<{DETAIL_WIDTH}}{count:>12,}  {shape}")

    leaves = [module for module in model.modules() if next(module.children(), None) is None]
    hooks = [module.register_forward_hook(record) for module in leaves]
    model.eval()
    if isinstance(model, GenerativeModel):
        model.draw(label, 0)
    else:
        model(torch.zeros(1, sizes.channels, sizes.height, sizes.width), label)
    for hook in hooks:
        hook.remove()
    if lines:
        lines.insert(0, f"{'layer':<18}{'':<{DETAIL_WIDTH}}{'parameters':>12}  puts out")
    return [f"{title}; {total:,} parameters", *lines]
