"""What a classifier is trained on: folds of the data, repeated images, drawings that fill up the classes."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from cgan.errors import CganError, DataError
from cgan.images import IntArray, image_digests
from cgan.model.generative import GenerativeModel
from cgan.quality.judge import Judge, predict
from cgan.settings import setting

ROUNDS = 20  # of drawing anew what the judge did not believe
ABOUT_EQUAL = 1.25  # the largest class by the smallest: there is nothing to fill up


def default_per_class(counts: Tensor) -> int:
    """As many as the largest class has, or twice that where all have about as many."""
    most = int(counts.max())
    return most if most > ABOUT_EQUAL * int(counts.min()) else 2 * most


def missing_labels(counts: Tensor, per_class: int | None = None) -> Tensor:
    """The labels int64 [M] of what the classes lack, but for those without an image, of which nobody learnt
    anything. Raises CganError where none lacks any."""
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
    believed: float = 0.0,
    names: Sequence[str] = (),
) -> tuple[Tensor, Tensor]:
    """A drawing of each of `labels`, uint8 [M, C, H, W], and how sure the judge is of the label, [M].

    One of which it is less sure than `believed` is drawn again. Raises CganError where that does not help;
    `names` are those of the classes.
    """
    images, sure = model.draw(labels, seed), torch.zeros(len(labels))
    pending = torch.arange(len(labels))
    for again in range(1, ROUNDS + 1):
        probabilities = predict(judge, images[pending]).logits.softmax(dim=1)
        sure[pending] = probabilities.gather(1, labels[pending, None])[:, 0]
        pending = (sure < believed).nonzero()[:, 0]
        if not len(pending):
            return images, sure
        images[pending] = model.draw(labels[pending], seed + again)
    counts = torch.bincount(labels[pending])
    worst = int(counts.argmax())
    raise CganError(
        f"--believed {believed}: of class {names[worst] if names else worst}, {int(counts[worst]):,} "
        f"drawings did not reach that certainty in {ROUNDS} tries. Lower --believed, or train a better "
        "generator."
    )


def require_unseen(drawn: Tensor, test: Tensor) -> None:
    """Raises DataError where an image that is tested on is among somebody else's drawings."""
    drawings, tested = (image_digests(images.numpy()) for images in (drawn, test))
    if np.isin(drawings, tested).any():
        raise DataError("--drawn: some of the drawings are images that are tested on. Remove them.")


def repeated(labels: Tensor, wanted: Tensor, seed: int) -> Tensor:
    """For each label `wanted` the index of an image of that class; each image in turn, in random order."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    rows_of = {int(label): order[labels[order] == label] for label in wanted.unique()}
    turns = torch.zeros_like(wanted)
    for label, rows in rows_of.items():
        where = wanted == label
        turns[where] = rows[torch.arange(int(where.sum())) % len(rows)]
    return turns


def folds(labels: IntArray, units: IntArray, count: int, seed: int, names: list[str]) -> IntArray:
    """The fold of each image, int64 [N], 0 to `count` - 1.

    Images of one unit (`cgan.splitting.unit_indices`) share a fold, and each class is spread as evenly as its
    units allow, the rarest class first. Raises DataError where some fold would leave a class without an image
    to train on.
    """
    classes = len(names)
    rarest = np.argsort(np.bincount(labels, minlength=classes), kind="stable")
    rank = np.argsort(rarest)[labels]
    firsts, of_unit, sizes = np.unique(units, return_inverse=True, return_counts=True)
    best = np.full(len(firsts), classes)
    np.minimum.at(best, of_unit, rank)
    random = np.random.default_rng(seed).random(len(firsts))
    members = np.zeros((len(firsts), classes), np.int64)
    np.add.at(members, (of_unit, labels), 1)
    held = np.zeros((count, classes), np.int64)
    fold_of = np.empty(len(firsts), np.int64)
    for unit in np.lexsort((random, -sizes, best)):  # large units first: the small ones level out
        filled = held[:, rarest[best[unit]]]
        fold_of[unit] = np.lexsort((held.sum(axis=1), filled))[0]
        held[fold_of[unit]] += members[unit]
    for label in np.flatnonzero(held.sum(axis=0)):
        if held[:, label].max() == held[:, label].sum():
            raise DataError(
                f"class {names[label]}: all its distinct images are in one of {count} folds, so no "
                "classifier could learn the class from the others. Add images of this class, or remove it."
            )
    return fold_of[of_unit]
