"""Images for a page: drawings at random and the worst, the training images nearest to each, and those whose
label looks wrong."""

import base64
import io
import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from cgan.data.arrays import IntArray, first_occurrences
from cgan.data.images import SPLITS, Images, joined
from cgan.models.generative import GenerativeModel
from cgan.models.sampling import to_picture
from cgan.quality.judge import Judge, predict
from cgan.quality.likeness import nearest_neighbours

TILE_SIZE = (96, 96)  # pixels, at most
PREVIEW_SIZE = (720, 10_000)
MAX_PAGE_DRAWINGS, MAX_DRAWN_PIXELS = 1000, 20_000_000
MAX_PAGE_S = 30.0  # seconds of a core, for all of them
SHOWN_DRAWINGS = 16  # of the random ones, and of the worst
NEIGHBOURS_SHOWN = 3  # training images beside each of them
MAX_CARDS = 30  # a card shows a class
DRAWINGS_PER_CARD = 4
MAX_GALLERY_DRAWINGS = 300  # of a generator that no browser runs
MAX_SUSPECTS = 48
MAX_JUDGED_PIXELS = 60_000_000  # in which labels that look wrong are looked for


def tile(image: Tensor) -> str:
    """An image uint8 [C, H, W] as a data URI."""
    return _uri(Image.fromarray(to_picture(image)), TILE_SIZE)


def preview_tile(png: bytes) -> str:
    """A preview of a training, which is a PNG, as a data URI."""
    with Image.open(io.BytesIO(png)) as picture:
        return _uri(picture, PREVIEW_SIZE)


def _uri(picture: Image.Image, size: tuple[int, int]) -> str:
    """A WebP, at most of this size; one in colours loses a little."""
    picture.thumbnail(size, Image.Resampling.BOX)
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", lossless=picture.mode == "L", quality=85, method=3)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def both_parts(train: Images, held_out: Images) -> Images:
    """The images of both, with `splits` that say which are which, and the notes on those held out."""
    numbers = SPLITS.index("train"), SPLITS.index("val")
    splits = np.repeat(numbers, (len(train), len(held_out))).astype(np.uint8)
    return replace(joined(train, held_out), splits=splits, notes=held_out.notes)


def rows_of(data: Images, split: str) -> IntArray:
    """The rows that are trained on (`train`) or held out (`val`), ascending."""
    assert data.splits is not None
    return np.flatnonzero(data.splits == SPLITS.index(split))


def drawn_facts(
    model: GenerativeModel,
    seed: int,
    cards: list[int],
    data: Images | None = None,
    judge: Judge | None = None,
) -> dict[str, Any]:
    """Drawings of a generator, as a page shows them; with data and judge also beside training images.
    `cards`: labels whose first drawings are shown."""
    classes, count = model.classes, page_drawing_count(model)
    labels = torch.arange(count) % classes
    if classes > count:  # more classes than drawings: some of the classes, at random
        labels = torch.randperm(classes, generator=torch.Generator().manual_seed(seed))[:count]
    drawn = model.draw(labels, seed)
    gallery = [] if model.runs_in_browser else labels.unique().tolist()
    facts: dict[str, Any] = {
        "drawings": count,
        "seed": seed,
        "gallery": [
            (label, [tile(image) for image in drawn[labels == label]]) for label in gallery
        ],
        "tall": model.shape[1] / model.shape[2],
        "by_class": {
            label: [tile(image) for image in drawn[labels == label][:DRAWINGS_PER_CARD]]
            for label in cards
        },
        "beside_training": {},
    }
    if data and judge:
        probabilities = predict(judge, drawn).logits.double().softmax(dim=1)
        certainty = probabilities[torch.arange(count), labels]  # that a drawing shows its class
        picked = {
            "Chosen at random": torch.randperm(
                count, generator=torch.Generator().manual_seed(seed + 1)
            ),
            "The worst, according to the judge": certainty.argsort(stable=True),
        }
        for title, order in picked.items():
            rows = order[:SHOWN_DRAWINGS]
            beside = beside_training(drawn[rows], labels[rows], probabilities[rows], data)
            facts["beside_training"][title] = beside
    return facts


def beside_training(
    drawn: Tensor, labels: Tensor, probabilities: Tensor, data: Images
) -> list[dict[str, Any]]:
    """Each drawing with the class that the judge, by its `probabilities` [drawings, classes], sees in it, and
    the nearest training images of the class that was asked for."""
    images, known, _ = data.tensors
    training = torch.from_numpy(rows_of(data, "train"))
    # Held-out images are not shown: here they are of no class.
    train_labels = torch.full_like(known, -1)
    train_labels[training] = known[training]
    distances, rows = nearest_neighbours(drawn, labels, images, train_labels, NEIGHBOURS_SHOWN)
    shown = []
    for n, label in enumerate(labels.tolist()):
        near = [
            {"src": tile(images[row]), "place": data.place(row), "distance": distance}
            for row, distance in zip(rows[n].tolist(), distances[n].tolist(), strict=True)
            if row >= 0
        ]
        drawing = {
            "src": tile(drawn[n]),
            "asked": label,
            "seen": int(probabilities[n].argmax()),
            "probability": float(probabilities[n, label]),
        }
        shown.append(drawing | {"near": near})
    return shown


def page_drawing_count(model: GenerativeModel) -> int:
    """The number of drawings that a page is made of."""
    count = min(MAX_PAGE_DRAWINGS, MAX_DRAWN_PIXELS // math.prod(model.shape))
    if seconds := model.seconds_per_drawing:
        count = min(count, MAX_GALLERY_DRAWINGS, int(MAX_PAGE_S / seconds))
    return max(SHOWN_DRAWINGS, count)


def suspects_facts(data: Images, judge: Judge) -> dict[str, Any]:
    """Labels that the judge doubts, and the first rows. Some of the training part's it knows by heart."""
    most = max(1, MAX_JUDGED_PIXELS // data.pixels[0].size)
    # A CSV can be sorted by class: the judge looks at rows from everywhere, held-out ones first.
    random = np.random.default_rng(0)
    heldout = rows_of(data, "val")
    order = [random.permutation(rows) for rows in (heldout, rows_of(data, "train"))]
    judged = np.sort(np.concatenate(order)[:most])
    logits = predict(judge, data.tensors.pixels[judged]).logits.double()
    groups = None if data.groups is None else data.groups[judged]
    probabilities = logits.softmax(dim=1).numpy()
    suspects = doubtful_labels(probabilities, data.labels[judged], groups)
    shown = suspects[:MAX_SUSPECTS]
    rows = [
        {
            "place": data.place(row),
            "label": data.labels[row],
            "src": tile(data.tensors.pixels[row]),
            "suggested": of_class.argmax(),
            "confidence": float(of_class.max() - of_class[data.labels[row]]),
            "heldout": row in heldout,
        }
        for row, of_class in zip(judged[shown], probabilities[shown], strict=True)
    ]
    return {"count": len(suspects), "looked_at": len(judged), "rows": rows}


def doubtful_labels(
    probabilities: NDArray[np.float64], labels: IntArray, groups: IntArray | None = None
) -> IntArray:
    """The rows in which the likeliest class is not the label, the most doubtful first: by how much likelier
    it is. Probabilities [N, classes], labels [N]; rows of one of the `groups` [N] stand together."""
    margin = probabilities.max(axis=1) - probabilities[np.arange(len(labels)), labels]
    rows = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    rows = rows[np.argsort(-margin[rows], kind="stable")]
    if groups is not None:
        rows = rows[np.argsort(first_occurrences(groups[rows]), kind="stable")]
    return rows
