"""What a page shows of the drawings: some at random, the worst, and the training images nearest to each."""

import math
from typing import Any

import torch
from torch import Tensor

from cgan.images import Images
from cgan.model.generative import GenerativeModel
from cgan.page.data_facts import place, rows_of
from cgan.page.tiles import photograph, tile
from cgan.quality.judge import Judge, predict
from cgan.quality.likeness import nearest

DRAWINGS = 1000
SHOWN = 16
CARDS, ON_A_CARD, CARD_SIDE = 30, 4, 56  # classes, drawings; pixels at most
LOOKED_AT = 2000  # training images, for the first picture
SEEDS = 20  # that are tried for the page's first picture
NEIGHBOURS = 3
SIDE = 96  # pixels, at most, of an image in the page
VALUES = 20_000_000  # that are drawn: fewer drawings of large images
DRAWN_S = 30.0  # of a core, at most, that the drawings take
GALLERY, GALLERY_SIDE = 300, 64  # drawings, of a generator that no browser runs; pixels at most


def drawn_facts(
    model: GenerativeModel,
    seed: int,
    first: list[int],
    cards: list[int],
    data: Images | None = None,
    judge: Judge | None = None,
) -> dict[str, Any]:
    """`first`: labels of the page's first picture, for which a good seed is looked for. `cards`: labels whose
    first drawings are shown. Without data or judge none are set beside training images."""
    classes, count, seconds = model.classes, drawings_shown(model), model.seconds_per_drawing
    asked = torch.arange(count) % classes
    if classes > count:  # more classes than drawings: some of the classes, at random
        asked = torch.randperm(classes, generator=_random(seed))[:count]
    drawn = model.draw(asked, seed)
    facts = {
        "drawings": count,
        "seed": seed,
        "first_seed": 0,
        "gallery": gallery(drawn, asked) if seconds else [],
        "random": [],
        "worst": [],
        "by_class": {
            label: [tile(image, CARD_SIDE) for image in drawn[asked == label][:ON_A_CARD]]
            for label in cards
        },
    }
    if not data or not judge:
        return facts
    (images, labels, _), training = data.tensors, torch.from_numpy(rows_of(data, "train"))
    probabilities = predict(judge, drawn).logits.double().softmax(dim=1)
    of_asked = probabilities[torch.arange(count), asked]
    predicted = probabilities.argmax(dim=1)
    # Only training images are shown beside drawings: here a held-out one is of no class.
    train_labels = torch.full_like(labels, -1)
    train_labels[training] = labels[training]

    def beside(picked: Tensor) -> list[dict[str, Any]]:
        neighbours = nearest(drawn[picked], asked[picked], images, train_labels, NEIGHBOURS)
        return [
            {
                "src": tile(drawn[n], SIDE),
                "asked": int(asked[n]),
                "seen": int(predicted[n]),
                "probability": float(of_asked[n]),
                "near": [
                    {
                        "src": tile(images[i], SIDE),
                        "label": int(labels[i]),
                        **place(data, i),
                        "distance": distance,
                    }
                    for distance, i in zip(far.tolist(), places.tolist(), strict=True)
                    if i >= 0
                ],
            }
            for n, far, places in zip(picked.tolist(), *neighbours, strict=True)
        ]

    some = training[torch.randperm(len(training), generator=_random(seed))[:LOOKED_AT]]
    if not seconds:
        facts["first_seed"] = good_seed(model, judge, first, images[some], labels[some])
    facts["random"] = beside(torch.randperm(count, generator=_random(seed + 1))[:SHOWN])
    facts["worst"] = beside(of_asked.argsort(stable=True)[:SHOWN])
    return facts


def drawings_shown(model: GenerativeModel) -> int:
    """How many are drawn for a page."""
    count = min(DRAWINGS, VALUES // math.prod(model.shape))
    if model.seconds_per_drawing:
        count = min(count, GALLERY, int(DRAWN_S / model.seconds_per_drawing))
    return max(SHOWN, count)


def gallery(drawn: Tensor, asked: Tensor) -> list[dict[str, Any]]:
    """The first drawings of all classes, class by class."""
    some = asked[:GALLERY].argsort(stable=True)
    return [
        {"src": photograph(drawn[n], GALLERY_SIDE), "label": int(asked[n])} for n in some.tolist()
    ]


def good_seed(
    model: GenerativeModel, judge: Judge, wanted: list[int], images: Tensor, labels: Tensor
) -> int:
    """The one of the first seeds whose drawings of these labels look most like images of their classes."""
    asked = torch.tensor(wanted).repeat(SEEDS)
    tried = torch.cat([model.draw(torch.tensor(wanted), seed) for seed in range(SEEDS)])
    far = torch.cdist(
        predict(judge, tried).features.float(), predict(judge, images).features.float()
    )
    far[asked[:, None] != labels] = torch.inf
    nearest_few = far.topk(min(5, len(images)), largest=False).values.mean(dim=1)
    return int(nearest_few.view(SEEDS, -1).max(dim=1).values.argmin())


def _random(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
