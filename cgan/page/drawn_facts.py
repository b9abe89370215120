"""Facts of the drawings for a page: some at random, the worst, and the training images nearest to each."""

import math
from typing import Any

import torch
from torch import Tensor

from cgan.images import Images
from cgan.model.generative import GenerativeModel
from cgan.page.data_facts import place_facts, rows_of
from cgan.page.tiles import photograph, tile
from cgan.quality.judge import Judge, predict
from cgan.quality.likeness import nearest_neighbours

# Of the drawings of a page: how many, and limits of their pixels and of the seconds of a core that they take.
MAX_DRAWINGS, MAX_DRAWN_PIXELS, MAX_DRAWING_S = 1000, 20_000_000, 30.0
SHOWN_DRAWINGS = 16  # of the random ones, and of the worst
NEIGHBOURS_SHOWN = 3  # training images beside each of them
MAX_IMAGE_SIDE = 96  # pixels, of an image in the page
MAX_CARDS, DRAWINGS_PER_CARD = 30, 4  # a card shows a class
MAX_CARD_SIDE = 56  # pixels
# Of a generator that no browser runs, drawings are shown: how many, and pixels of a side.
MAX_GALLERY_DRAWINGS, MAX_GALLERY_SIDE = 300, 64


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
    drawn_labels = torch.arange(count) % classes
    if classes > count:  # more classes than drawings: some of the classes, at random
        drawn_labels = torch.randperm(classes, generator=_random(seed))[:count]
    drawn = model.draw(drawn_labels, seed)
    facts = {
        "drawings": count,
        "seed": seed,
        "gallery": gallery(drawn, drawn_labels) if model.seconds_per_drawing else [],
        "random": [],
        "worst": [],
        "by_class": {
            label: [
                tile(image, MAX_CARD_SIDE)
                for image in drawn[drawn_labels == label][:DRAWINGS_PER_CARD]
            ]
            for label in cards
        },
    }
    if not data or not judge:
        return facts
    (images, labels, _), training = data.tensors, torch.from_numpy(rows_of(data, "train"))
    probabilities = predict(judge, drawn).logits.double().softmax(dim=1)
    certainty = probabilities[torch.arange(count), drawn_labels]  # that a drawing shows its class
    predicted = probabilities.argmax(dim=1)
    # Only training images are shown beside drawings: here a held-out one is of no class.
    train_labels = torch.full_like(labels, -1)
    train_labels[training] = labels[training]

    def neighbour_facts(row: int, distance: float) -> dict[str, Any]:
        return {
            "src": tile(images[row], MAX_IMAGE_SIDE),
            "label": int(labels[row]),
            **place_facts(data, row),
            "distance": distance,
        }

    def beside_training(picked: Tensor) -> list[dict[str, Any]]:
        distances, rows = nearest_neighbours(
            drawn[picked], drawn_labels[picked], images, train_labels, NEIGHBOURS_SHOWN
        )
        return [
            {
                "src": tile(drawn[n], MAX_IMAGE_SIDE),
                "asked": int(drawn_labels[n]),
                "seen": int(predicted[n]),
                "probability": float(certainty[n]),
                "near": [
                    neighbour_facts(row, distance)
                    for row, distance in zip(rows_of_n, distances_of_n, strict=True)
                    if row >= 0
                ],
            }
            for n, rows_of_n, distances_of_n in zip(
                picked.tolist(), rows.tolist(), distances.tolist(), strict=True
            )
        ]

    order = torch.randperm(count, generator=_random(seed + 1))
    facts["random"] = beside_training(order[:SHOWN_DRAWINGS])
    facts["worst"] = beside_training(certainty.argsort(stable=True)[:SHOWN_DRAWINGS])
    return facts


def drawings_shown(model: GenerativeModel) -> int:
    """How many are drawn for a page."""
    count = min(MAX_DRAWINGS, MAX_DRAWN_PIXELS // math.prod(model.shape))
    if seconds := model.seconds_per_drawing:
        count = min(count, MAX_GALLERY_DRAWINGS, int(MAX_DRAWING_S / seconds))
    return max(SHOWN_DRAWINGS, count)


def gallery(drawn: Tensor, labels: Tensor) -> list[dict[str, Any]]:
    """The first drawings of all classes, class by class."""
    order = labels[:MAX_GALLERY_DRAWINGS].argsort(stable=True)
    return [
        {"src": photograph(drawn[row], MAX_GALLERY_SIDE), "label": int(labels[row])}
        for row in order.tolist()
    ]


def _random(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
