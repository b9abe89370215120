"""What classifiers are trained and tested on: folds of the data, repeated images, and what classes lack."""

import numpy as np
import torch
from torch import Tensor

from cgan.base.errors import CganError, DataError
from cgan.data.arrays import IntArray
from cgan.data.images import Images
from cgan.quality.evaluate import HasModel, require_matching

MAX_EQUAL_RATIO = 1.25  # of the largest class to the smallest: up to it classes are about equal
MIN_SEEDS = 2  # their spread is part of the interval


def require_comparable(train: Images, held_out: Images, generator: HasModel | Images) -> None:
    """What `require_matching` asks, also where somebody else's drawings are given as the `generator`."""
    if isinstance(generator, Images):
        require_matching(generator, train, held_out, generator=generator)
    else:
        require_matching(generator.model, train, held_out)


def require_seeds(count: int) -> None:
    """Raises CganError for fewer than MIN_SEEDS."""
    if count < MIN_SEEDS:
        raise CganError(
            f"seeds is {count}, expected at least {MIN_SEEDS}: their spread is part of the interval."
        )


def missing_labels(counts: Tensor, per_class: int | None = None) -> Tensor:
    """The label of each image that the classes lack, int64 [M]: `per_class`, less what each of them has; by
    default as many as the largest has, or twice that where all have about as many. Classes without an image
    are left out, as no generator learnt them. Raises CganError where none lacks any."""
    if per_class is None:
        most = int(counts.max())
        per_class = most if most > MAX_EQUAL_RATIO * int(counts.min()) else 2 * most
    lacking = torch.where(counts > 0, (per_class - counts).clamp(min=0), 0)
    labels = torch.repeat_interleave(lacking)
    if not len(labels):
        raise CganError(
            f"`per_class={per_class}`: every class already has as many images (the smallest has "
            f"{int(counts.min()):,}). Ask for more."
        )
    return labels


def repeated_rows(labels: Tensor, wanted: Tensor, seed: int) -> Tensor:
    """The row of an image of each label `wanted`; those of a class take turns, in random order."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    found = torch.zeros_like(wanted)
    for label in wanted.unique():
        rows = order[labels[order] == label]
        places = wanted == label
        found[places] = rows[torch.arange(int(places.sum())) % len(rows)]
    return found


def assign_folds(
    labels: IntArray, units: IntArray, count: int, seed: int, names: list[str]
) -> IntArray:
    """The fold of each image, int64 [N], 0 to `count` - 1.

    Images of one unit (`splitting.units_of`) share a fold, and each class is spread as evenly as its
    units allow, the rarest class first. Raises DataError where some fold would leave a class without an image
    to train on.
    """
    by_rarity = np.argsort(np.bincount(labels, minlength=len(names)), kind="stable")
    _, unit_of, sizes = np.unique(units, return_inverse=True, return_counts=True)
    unit_counts = np.zeros((len(sizes), len(names)), np.int64)  # images of each class in each unit
    np.add.at(unit_counts, (unit_of, labels), 1)
    # Of a unit's rarest class: 0 is the rarest.
    rarity = (unit_counts[:, by_rarity] > 0).argmax(axis=1)
    random = np.random.default_rng(seed).random(len(sizes))
    held = np.zeros((count, len(names)), np.int64)  # images of each class in each fold
    fold_of = np.empty(len(sizes), np.int64)
    # Of units with equal rarity the large ones come first: the small ones level out.
    for unit in np.lexsort((random, -sizes, rarity)):
        # The fold with the fewest images of the unit's rarest class; of these, with the fewest of all.
        fold_of[unit] = np.lexsort((held.sum(axis=1), held[:, by_rarity[rarity[unit]]]))[0]
        held[fold_of[unit]] += unit_counts[unit]
    for label in np.flatnonzero(held.sum(axis=0)):
        if held[:, label].max() == held[:, label].sum():
            raise DataError(
                f"class {names[label]}: all its distinct images are in one of {count} folds, so no "
                "classifier could learn the class from the others. Add images of this class, or remove it."
            )
    return fold_of[unit_of]
