"""How images are divided: shares, seeds, copies and groups."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import uneven
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cgan.errors import DataError
from cgan.images import Images
from cgan.splitting import near_copies, split_images, stratified_split, with_groups


def distinct(count: int, seed: int = 0) -> NDArray[np.uint8]:
    """Images that are not square."""
    return np.random.default_rng(seed).integers(0, 256, (count, 1, 4, 6), dtype=np.uint8)


IMAGES, LABELS = distinct(60), np.random.default_rng(1).permutation(np.arange(60) % 3)


def test_of_each_class_the_lowest_keys_are_held_out() -> None:
    labels = np.random.default_rng(3).choice(3, 90, p=[0.6, 0.3, 0.1])
    keys = np.random.default_rng(5).random(90)
    rows = [np.flatnonzero(labels == label) for label in range(3)]
    expected = [members[keys[members].argsort()][: round(len(members) / 10)] for members in rows]
    train, holdout = stratified_split(distinct(90), labels, 0.1, 5)
    assert holdout.tolist() == sorted(np.concatenate(expected))
    assert train.tolist() == sorted({*range(90)} - {*holdout.tolist()})
    counts = [len(stratified_split(IMAGES, LABELS, f, 0)[1]) for f in (0.01, 0.1, 0.125, 0.98)]
    assert counts == [3, 6, 6, 57], "at least one, rounded to even, never all twenty"


@given(
    kinds=st.lists(st.integers(0, 9), min_size=12, max_size=60),
    fraction=st.floats(0.02, 0.98),
    seed=st.integers(0, 99),
)
@example(kinds=list(range(10)), fraction=0.98, seed=0)  # the share rounds up to the whole class
@settings(max_examples=100, deadline=None)
def test_equal_images_stay_on_one_side(kinds: list[int], fraction: float, seed: int) -> None:
    kinds = [*kinds, 0, 1, 2, 3]
    images = np.array(kinds, np.uint8).reshape(-1, 1, 1, 1).repeat(8, 2).repeat(8, 3)
    labels = np.array(kinds, np.int64) % 2
    train, holdout = stratified_split(images, labels, fraction, seed)
    assert not {kinds[i] for i in train} & {kinds[i] for i in holdout}
    assert set(labels[train]) == set(labels[holdout]) == {0, 1}
    assert len(train) + len(holdout) == len(kinds)


def test_copies_with_another_label_stay_on_one_side() -> None:
    images = np.concatenate([IMAGES, IMAGES[:30]])
    labels = np.concatenate([LABELS, (LABELS[:30] + 1) % 3])
    _, holdout = stratified_split(images, labels, 0.3, seed=5)
    held = {image.tobytes() for image in images[holdout]}
    assert all((image.tobytes() in held) == (i in holdout) for i, image in enumerate(images))


def test_a_class_of_one_distinct_image_cannot_be_held_out() -> None:
    images = IMAGES.copy()
    images[LABELS == 1] = 5
    with pytest.raises(DataError, match=r"class 1: 1 distinct .*at least 2"):
        stratified_split(images, LABELS, 0.1, seed=1)


@pytest.mark.parametrize("largest", [3, 30])
def test_the_holdout_of_groups_is_near_the_share_of_each_class(largest: int) -> None:
    """Groups of several classes, which are rare or frequent."""
    for seed in range(30):
        random = np.random.default_rng(seed)
        sizes = random.integers(1, largest, 400 // largest)
        groups = np.repeat(np.arange(len(sizes)), sizes)
        mixes = random.dirichlet([1.0, 0.5, 0.3], len(sizes))
        labels = np.concatenate(
            [random.choice(3, n, p=p) for n, p in zip(sizes, mixes, strict=True)]
        )
        order = random.permutation(len(labels))
        labels, groups = labels[order], groups[order]
        train, holdout = stratified_split(distinct(len(labels)), labels, 0.2, seed, groups)
        assert not {*groups[train]} & {*groups[holdout]}
        shares = np.bincount(labels[holdout]) / np.bincount(labels)
        assert shares.min() > (0.15 if largest == 3 else 0) and shares.max() < 0.4
        if largest == 3:
            assert shares.max() <= 0.22


def test_of_a_class_in_large_groups_the_smallest_is_held_out() -> None:
    groups, labels = np.repeat([0, 1, 2, 3], [30, 20, 9, 10]), np.repeat([0, 1], [59, 10])
    groups[-5:] = 4
    for seed in range(9):
        holdout = stratified_split(distinct(69), labels, 0.1, seed, groups)[1]
        assert (groups[holdout] == 2).sum() == 9 and len(holdout) == 14


def test_groups_with_an_equal_image_are_on_one_side() -> None:
    images, labels, groups = IMAGES.copy(), LABELS, np.arange(60) // 2
    images[41] = images[10]  # of groups 5 and 20, and by the next of 7 too
    images[15] = images[40]
    for seed in range(30):
        holdout = stratified_split(images, labels, 0.3, seed, groups)[1]
        assert len({row in holdout for row in (10, 11, 14, 15, 40, 41)}) == 1


def test_near_copies_are_of_one_class_and_correlate() -> None:
    random = np.random.default_rng(0)
    first = random.integers(0, 256, (6, 1, 40, 9))
    seconds = first + random.integers(-20, 20, first.shape)
    pixels = np.concatenate([first, seconds]).clip(0, 255).astype(np.uint8)
    pixels[11] = random.permutation(pixels[11].ravel()).reshape(pixels[11].shape)
    labels = np.array([0, 0, 1, 1, 2, 2, 0, 0, 1, 0, 2, 2])
    pairs = near_copies(pixels, labels, np.arange(6), np.arange(12))
    assert sorted(pairs.tolist()) == [[0, 6], [1, 7], [2, 8], [4, 10]]
    groups = with_groups(Images(pixels, labels), "auto").groups
    assert groups is not None and groups.tolist() == [0, 1, 2, 3, 4, 5, 0, 1, 2, 9, 4, 11]


@pytest.mark.parametrize(("count", "refused"), [(5, True), (6, False)])
def test_too_small_a_holdout_is_refused(count: int, refused: bool) -> None:
    data = uneven()
    first_of_each = [int(np.flatnonzero(data.labels == label)[0]) for label in range(3)]
    held = [*first_of_each, *np.flatnonzero(data.labels == 0)[5 : 2 + count].tolist()]
    splits = np.isin(np.arange(len(data.labels)), held).astype(np.uint8)
    parted = replace(data, splits=splits, groups=None)
    if refused:
        with pytest.raises(DataError, match=r"^5 images are held out, expected at least 6"):
            split_images(parted, 0.1, 1)
    else:
        assert len(split_images(parted, 0.1, 1)[1]) == count
