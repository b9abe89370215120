"""How images are divided: shares, seeds, copies and groups."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from cgan.base.errors import DataError
from cgan.data.images import Images
from cgan.data.splitting import near_copies, split_images, stratified_split, with_groups


def distinct(count: int, seed: int = 0) -> NDArray[np.uint8]:
    """Images that are not square."""
    return np.random.default_rng(seed).integers(0, 256, (count, 1, 8, 9), dtype=np.uint8)


PIXELS, LABELS = distinct(60), np.random.default_rng(1).permutation(np.arange(60) % 3)
IMAGES = Images(PIXELS, LABELS)


def test_of_each_class_the_lowest_keys_are_held_out() -> None:
    labels = np.random.default_rng(3).choice(3, 90, p=[0.6, 0.3, 0.1])
    keys = np.random.default_rng(5).random(90)
    rows = [np.flatnonzero(labels == label) for label in range(3)]
    expected = [members[keys[members].argsort()][: round(len(members) / 10)] for members in rows]
    train, holdout = stratified_split(Images(distinct(90), labels), 0.1, 5)
    assert holdout.tolist() == sorted(np.concatenate(expected))
    assert train.tolist() == sorted({*range(90)} - {*holdout.tolist()})
    counts = [len(stratified_split(IMAGES, f, 0)[1]) for f in (0.01, 0.1, 0.125, 0.98)]
    assert counts == [3, 6, 6, 57], "at least one, rounded to even, never all twenty"


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("fraction", [0.02, 0.3, 0.98])
def test_copies_of_any_label_stay_on_one_side(shift: int, fraction: float) -> None:
    """Both sides have all classes, also where the share of one rounds to none or all of it."""
    kind, copy = np.arange(60) % 12, np.arange(60) // 12
    labels = (kind + shift * copy) % 3
    for seed in range(9):
        train, holdout = stratified_split(Images(distinct(12)[kind], labels), fraction, seed)
        assert not {*kind[train]} & {*kind[holdout]} and len(train) + len(holdout) == 60
        assert shift or {*labels[train]} == {*labels[holdout]} == {0, 1, 2}


def test_a_class_of_one_distinct_image_cannot_be_held_out() -> None:
    pixels = PIXELS.copy()
    pixels[LABELS == 1] = 5
    with pytest.raises(DataError, match=r"all of 1 are on one side, .*at least 2 distinct"):
        split_images(Images(pixels, LABELS), 0.1, seed=1)


@pytest.mark.parametrize(("largest", "least", "most"), [(3, 0.15, 0.22), (30, 0.001, 0.4)])
def test_the_holdout_of_groups_is_near_the_share_of_each_class(
    largest: int, least: float, most: float
) -> None:
    """Groups of several classes, which are rare or frequent."""
    for seed in range(30):
        random = np.random.default_rng(seed)
        groups = random.permutation(
            np.repeat(np.arange(400 // largest), random.integers(1, largest, 400 // largest))
        )
        mixes = random.dirichlet([1.0, 0.5, 0.3], 400 // largest)
        labels = np.array([random.choice(3, p=mixes[group]) for group in groups])
        images = Images(distinct(len(labels)), labels, groups=groups)
        train, holdout = stratified_split(images, 0.2, seed)
        assert not {*groups[train]} & {*groups[holdout]}
        shares = np.bincount(labels[holdout]) / np.bincount(labels)
        assert least < shares.min() and shares.max() <= most


def test_of_a_class_in_large_groups_the_smallest_is_held_out() -> None:
    groups, labels = np.repeat([0, 1, 2, 3], [30, 20, 9, 10]), np.repeat([0, 1], [59, 10])
    groups[-5:] = 4
    images = Images(distinct(69), labels, groups=groups)
    for seed in range(9):
        holdout = stratified_split(images, 0.1, seed)[1]
        assert (groups[holdout] == 2).sum() == 9 and len(holdout) == 14


def test_groups_with_an_equal_image_are_on_one_side() -> None:
    pixels = PIXELS.copy()
    pixels[41] = pixels[10]  # of groups 5 and 20, and by the next of 7 too
    pixels[15] = pixels[40]
    images = Images(pixels, LABELS, groups=np.arange(60) // 2)
    for seed in range(30):
        holdout = stratified_split(images, 0.3, seed)[1]
        assert len({row in holdout for row in (10, 11, 14, 15, 40, 41)}) == 1


def test_near_copies_are_of_one_class_and_correlate() -> None:
    random = np.random.default_rng(0)
    first = random.integers(0, 256, (6, 1, 40, 9))
    seconds = first + random.integers(-20, 20, first.shape)
    pixels = np.concatenate([first, seconds]).clip(0, 255).astype(np.uint8)
    pixels[11] = random.permutation(pixels[11].ravel()).reshape(pixels[11].shape)
    labels = np.array([0, 0, 1, 1, 2, 2, 0, 0, 1, 0, 2, 2])
    images = Images(pixels, labels)
    pairs = near_copies(images, np.arange(6), np.arange(12))
    assert sorted(pairs.tolist()) == [[0, 6], [1, 7], [2, 8], [4, 10]]
    groups = with_groups(images, "auto").groups
    assert groups is not None and groups.tolist() == [0, 1, 2, 3, 4, 5, 0, 1, 2, 9, 4, 11]


def test_too_small_a_holdout_is_refused() -> None:
    six, five = (np.arange(60) < count for count in (6, 5))
    kept = Images(PIXELS, np.arange(60) % 3, splits=six.astype(np.uint8))
    assert len(split_images(kept, 0.1, 1)[1]) == 6
    with pytest.raises(DataError, match=r"^5 images are held out, expected at least 6"):
        split_images(replace(kept, splits=five.astype(np.uint8)), 0.1, 1)
