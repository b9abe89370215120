"""Drawings for a page: some at random, the worst, and the training images nearest to each."""

import math
from typing import Any

import torch
from torch import Tensor

from cgan.images import Images
from cgan.model.generative import GenerativeModel
from cgan.page.data_facts import place, rows_of
from cgan.page.tiles import tile
from cgan.quality.judge import Judge, predict
from cgan.quality.likeness import nearest_neighbours

# Of the drawings of a page: how many, and limits of their pixels and of the seconds of a core that they take.
MAX_DRAWINGS, MAX_DRAWN_PIXELS, MAX_DRAWING_S = 1000, 20_000_000, 30.0
SHOWN_DRAWINGS = 16  # of the random ones, and of the worst
NEIGHBOURS_SHOWN = 3  # training images beside each of them
MAX_CARDS, DRAWINGS_PER_CARD = 30, 4  # a card shows a class
MAX_GALLERY_DRAWINGS = 300  # of a generator that no browser runs


def drawn_facts(
    model: GenerativeModel,
    seed: int,
    cards: list[int],
    data: Images | None = None,
    judge: Judge | None = None,
) -> dict[str, Any]:
    """Drawings of a generator, as a page shows them. `cards`: labels whose first drawings are shown. Without
    data or judge none are set beside training images."""
    classes, count = model.classes, drawings_shown(model)
    labels = torch.arange(count) % classes
    if classes > count:  # more classes than drawings: some of the classes, at random
        labels = torch.randperm(classes, generator=_random(seed))[:count]
    drawn = model.draw(labels, seed)
    gallery = (
        labels[:MAX_GALLERY_DRAWINGS].argsort(stable=True) if model.seconds_per_drawing else ()
    )
    facts: dict[str, Any] = {
        "drawings": count,
        "seed": seed,
        "gallery": [(tile(drawn[row]), int(labels[row])) for row in gallery],
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
            "Chosen at random": torch.randperm(count, generator=_random(seed + 1)),
            "The worst, according to the judge": certainty.argsort(stable=True),
        }
        facts["beside_training"] = {
            title: beside_training(drawn[rows], labels[rows], probabilities[rows], data)
            for title, order in picked.items()
            for rows in [order[:SHOWN_DRAWINGS]]
        }
    return facts


def beside_training(
    drawn: Tensor, labels: Tensor, probabilities: Tensor, data: Images
) -> list[dict[str, Any]]:
    """Each drawing with the class that the judge sees in it, and the nearest training images of the class
    that was asked for. `probabilities` [drawings, classes]: the judge's."""
    images, known, _ = data.tensors
    training = torch.from_numpy(rows_of(data, "train"))
    train_labels = torch.full_like(
        known, -1
    )  # held-out images are not shown: here they are of no class
    train_labels[training] = known[training]
    distances, rows = nearest_neighbours(drawn, labels, images, train_labels, NEIGHBOURS_SHOWN)
    shown = []
    for n, label in enumerate(labels.tolist()):
        near = [
            {"src": tile(images[row]), "place": place(data, row), "distance": distance}
            for row, distance in zip(rows[n].tolist(), distances[n].tolist(), strict=True)
            if row >= 0
        ]
        shown.append(
            {
                "src": tile(drawn[n]),
                "asked": label,
                "seen": int(probabilities[n].argmax()),
                "probability": float(probabilities[n, label]),
                "near": near,
            }
        )
    return shown


def drawings_shown(model: GenerativeModel) -> int:
    """How many are drawn for a page."""
    count = min(MAX_DRAWINGS, MAX_DRAWN_PIXELS // math.prod(model.shape))
    if seconds := model.seconds_per_drawing:
        count = min(count, MAX_GALLERY_DRAWINGS, int(MAX_DRAWING_S / seconds))
    return max(SHOWN_DRAWINGS, count)


def _random(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
