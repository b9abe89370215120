"""The images that a classifier is trained on: folds of the data, repeated images, drawings that fill up
classes."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from cgan.errors import CganError, DataError
from cgan.images import IntArray, image_digests
from cgan.model.generative import GenerativeModel
from cgan.quality.judge import Judge, predict
from cgan.settings import setting

MAX_REDRAWS = 20  # of drawings of which the judge was not confident enough
MAX_EQUAL_RATIO = 1.25  # of the largest class to the smallest: up to it classes are about equal


def default_per_class(counts: Tensor) -> int:
    """How many images each class is to have: as many as the largest one, or twice that where all have about
    as many."""
    most = int(counts.max())
    return most if most > MAX_EQUAL_RATIO * int(counts.min()) else 2 * most


def missing_labels(counts: Tensor, per_class: int | None = None) -> Tensor:
    """The label of each image that the classes lack, int64 [M]: `per_class`, less what each of them has.
    Classes without an image are left out, as no generator learnt them. Raises CganError where none lacks
    any."""
    per_class = per_class or default_per_class(counts)
    lacking = torch.where(counts > 0, (per_class - counts).clamp(min=0), 0)
    labels = torch.repeat_interleave(lacking)
    if not len(labels):
        raise CganError(
            f"{setting('--per-class', per_class)}: every class already has as many images (the smallest has "
            f"{int(counts.min()):,}). Ask for more."
        )
    return labels


def fill_classes(
    model: GenerativeModel,
    judge: Judge,
    labels: Tensor,
    seed: int,
    min_confidence: float = 0.0,
    names: Sequence[str] = (),
) -> tuple[Tensor, Tensor]:
    """A drawing of each of `labels`, uint8 [M, C, H, W], and the judge's probability of the label, float32
    [M].

    One with a probability below `min_confidence` is drawn again. Raises CganError where that does not help;
    `names` are those of the classes.
    """
    images, confidence = model.draw(labels, seed), torch.zeros(len(labels))
    pending = torch.arange(len(labels))
    for attempt in range(1, MAX_REDRAWS + 1):
        probabilities = predict(judge, images[pending]).logits.softmax(dim=1)
        confidence[pending] = probabilities.gather(1, labels[pending, None])[:, 0]
        pending = (confidence < min_confidence).nonzero()[:, 0]
        if not len(pending):
            return images, confidence
        images[pending] = model.draw(labels[pending], seed + attempt)
    counts = torch.bincount(labels[pending])
    worst = int(counts.argmax())
    raise CganError(
        f"--believed {min_confidence}: of class {names[worst] if names else worst}, {int(counts[worst]):,} "
        f"drawings did not reach that certainty in {MAX_REDRAWS} tries. Lower --believed, or train a better "
        "generator."
    )


def require_unseen(drawn: Tensor, test: Tensor) -> None:
    """Raises DataError where an image that is tested on is among somebody else's drawings."""
    drawings, tested = (image_digests(images.numpy()) for images in (drawn, test))
    if np.isin(drawings, tested).any():
        raise DataError("--drawn: some of the drawings are images that are tested on. Remove them.")


def repeated_rows(labels: Tensor, wanted: Tensor, seed: int) -> Tensor:
    """For each label `wanted` the row of an image of that class; its images take turns, in random order."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    found = torch.zeros_like(wanted)
    for label in wanted.unique():
        rows, places = order[labels[order] == label], wanted == label
        found[places] = rows[torch.arange(int(places.sum())) % len(rows)]
    return found


def folds(labels: IntArray, units: IntArray, count: int, seed: int, names: list[str]) -> IntArray:
    """The fold of each image, int64 [N], 0 to `count` - 1.

    Images of one unit (`cgan.splitting.unit_indices`) share a fold, and each class is spread as evenly as its
    units allow, the rarest class first. Raises DataError where some fold would leave a class without an image
    to train on.
    """
    classes = len(names)
    by_rarity = np.argsort(np.bincount(labels, minlength=classes), kind="stable")
    rarity = np.argsort(by_rarity)  # of each class: 0 is the rarest
    values, unit_of, sizes = np.unique(units, return_inverse=True, return_counts=True)
    unit_count = len(values)
    unit_counts = np.zeros((unit_count, classes), np.int64)  # images of each class in each unit
    np.add.at(unit_counts, (unit_of, labels), 1)
    unit_rarity = np.full(unit_count, classes)  # of the rarest class in each unit
    np.minimum.at(unit_rarity, unit_of, rarity[labels])
    random = np.random.default_rng(seed).random(unit_count)
    held = np.zeros((count, classes), np.int64)  # images of each class in each fold
    fold_of = np.empty(unit_count, np.int64)
    # Of units with equal rarity the large ones come first: the small ones level out.
    for unit in np.lexsort((random, -sizes, unit_rarity)):
        of_rarest = held[:, by_rarity[unit_rarity[unit]]]
        # The fold with the fewest images of the unit's rarest class; of these, with the fewest of all.
        fold_of[unit] = np.lexsort((held.sum(axis=1), of_rarest))[0]
        held[fold_of[unit]] += unit_counts[unit]
    for label in np.flatnonzero(held.sum(axis=0)):
        if held[:, label].max() == held[:, label].sum():
            raise DataError(
                f"class {names[label]}: all its distinct images are in one of {count} folds, so no "
                "classifier could learn the class from the others. Add images of this class, or remove it."
            )
    return fold_of[unit_of]
