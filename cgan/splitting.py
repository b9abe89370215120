"""Which images are trained on, held out, or tested on; which belong on one side, and which look as if."""

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cgan.errors import DataError
from cgan.images import SPLITS, Images, IntArray, first_copies, image_digests
from cgan.text import listed

LEAST_HELD_OUT = 6  # more than NEIGHBOURS of quality.metrics
THUMBNAIL = 16  # pixels a side
NEAR = 0.9  # correlation
USUAL = 10  # the how-maniest best of an image is no near copy
NEARER = 0.3  # 1 - the correlation, as a part of that of the usual
NEARER_OF_GROUPS = 0.4  # wider, for among the training part alone the usual is less alike
NEAR_COPIES = 0.05  # of the held-out images, from which they are worth a word
LOOKED_AT, AMONG = 5_000, 100_000  # images, held out and of the training part
ALL_COMPARED = 20_000  # images of a class


def divide(
    images: Images, fraction: float, seed: int, group: str | None = None
) -> tuple[Images, Images, Images]:
    """Images to train on, held out, and to test on: as the source says, or by `fraction` and `seed`, as
    `split` does; with the groups of `grouped`, if `group` is given. `notes` of those held out are what a
    reader should know.

    Raises DataError where a class cannot be held out, or `group` does not fit the images.
    """
    if group:
        images = grouped(images, group)
    if not 0 < fraction < 1:
        raise DataError(f"expected a fraction above 0 and below 1 to hold out, found {fraction}.")
    notes = [*images.notes]
    splits = np.zeros(len(images)) if images.splits is None else images.splits
    train, heldout, test = (np.flatnonzero(splits == n) for n in range(len(SPLITS)))
    if of_train := not len(heldout):
        some = images if len(train) == len(images) else images.at(train)
        halves = split(some.pixels, some.labels, fraction, seed, some.groups, images.class_names)
        train, heldout = (train[rows] for rows in halves)
    if images.splits is not None:
        together = units(images.pixels, images.groups)
        for name, rows in (("val", heldout), ("test", test)):
            leaked = rows[np.isin(together[rows], together[train])]
            if len(leaked):
                notes.append(
                    f"Left out of {name}: {len(leaked):,} ({listed([images.place(row) for row in leaked])}). "
                    "Train has a copy of each, or another image of its group."
                )
                heldout, test = np.setdiff1d(heldout, leaked), np.setdiff1d(test, leaked)
        if len(missing := np.setdiff1d(images.labels[train], images.labels[heldout])):
            names = [images.class_names[label] for label in missing]
            raise DataError(
                f"val has no image of class {listed(names)}, or none that is not in train too. Add some, or "
                "remove val: a part of train is held out then."
            )
    if len(heldout) < LEAST_HELD_OUT:
        more = (
            "hold out a larger fraction (`preprocess.holdout_fraction`)"
            if of_train
            else "add some to val"
        )
        raise DataError(
            f"{len(heldout)} images are held out, expected at least {LEAST_HELD_OUT}: from fewer no metric "
            f"can be had. Add images, or {more}."
        )
    if group != "auto":  # by which all is done that can be
        notes += _near_copies_in_words(images, train, heldout)
    plain = replace(images, notes=(), splits=None)  # so that a part can be divided again
    return plain.at(train), replace(plain.at(heldout), notes=tuple(notes)), plain.at(test)


def grouped(images: Images, by: str) -> Images:
    """With a group for each image: `auto` joins what looks alike, a regular expression what it finds in the
    files' names: its first group, or all. `notes` say what came of it.

    Raises DataError where `by` does not fit the images.
    """
    notes, every = [*images.notes], np.arange(len(images))
    if by == "auto":
        most = int(images.counts.max())
        if most > ALL_COMPARED:
            raise DataError(
                f"`preprocess.group: auto` compares all images of a class, which may be at most "
                f"{ALL_COMPARED:,}; one class has {most:,}. "
                "Set a regular expression, or null and add a column `group`."
            )
        alike = near_copies(images.pixels, images.labels, every, every, NEARER_OF_GROUPS)
        groups = joined(len(every), alike)
    else:
        matches = {file: re.search(by, file) for file in images.files}
        without = [file for file, match in matches.items() if not match]
        if len(without) == len(matches):  # of a CSV both are empty
            raise DataError(
                f"`preprocess.group`: {by!r} is found in no file, such as {without[0]}. Correct it."
                if without
                else f"`preprocess.group`: {by!r} looks for files, and rows of a CSV have none. Set auto, or "
                "null and add a column `group` after the label."
            )
        keys = [
            (match.re.groups and match[1]) or match[0] if match else f"/{file}"
            for file, match in matches.items()
        ]
        groups = np.unique(keys, return_inverse=True)[1]
        if without:
            notes.append(
                f"Without a group: {len(without):,} ({listed(without)}). `preprocess.group` is not found in "
                "them: each is a group of its own."
            )
    sizes = np.unique(groups, return_counts=True)[1]
    notes.append(
        f"Groups: {len(sizes):,} of {len(every):,} images, the largest of {sizes.max():,} "
        f"(`preprocess.group: {by}`)."
    )
    return replace(images, groups=groups, notes=tuple(notes))


def _near_copies_in_words(images: Images, train: IntArray, holdout: IntArray) -> list[str]:
    """A line where many held-out images have a near copy in the training part."""
    random = np.random.default_rng(0)
    looked = np.sort(random.permutation(holdout)[:LOOKED_AT])
    among = np.sort(random.permutation(train)[:AMONG])
    near = near_copies(images.pixels, images.labels, looked, among)
    rows, firsts = np.unique(near[:, 0], return_index=True)
    if len(rows) <= max(2, NEAR_COPIES * len(looked)):
        return []
    advice = (
        "Set `preprocess.group` to a regular expression for what the names of such files have in common,"
        if images.files
        else "Add a column `group` after the label,"
    )
    pairs = [f"{images.place(a)} like {images.place(b)}" for a, b in near[firsts]]
    return [
        f"Near copies: {len(rows):,} of {len(looked):,} held-out images look much like one to train on: "
        f"{listed(pairs, 3)}. If one thing was photographed several times, every number about held-out "
        f"images is too good. {advice} or `preprocess.group: auto`, which keeps on one side what looks so "
        "alike."
    ]


def split(
    images: NDArray[np.uint8],
    labels: IntArray,
    holdout_fraction: float,
    seed: int,
    groups: IntArray | None = None,
    names: Sequence[str] | None = None,
) -> tuple[IntArray, IntArray]:
    """Indices of the training part and of the hold-out, each ascending; together all images.

    Stratified: each class gives `holdout_fraction` of its images, or as near to it as its groups allow; at
    least one. Identical images and those of one group stay on one side, also when their labels differ: the
    rarest class chooses first, for it has fewest to choose from.
    """
    firsts = units(images, groups)
    order = np.random.default_rng(seed).random(len(labels))
    choose = _first_that_fit if groups is None else _nearest
    held = choose(firsts, labels, order, holdout_fraction)
    side = np.isin(firsts, held)
    for label in np.unique(labels):
        if len(np.unique(side[labels == label])) < 2:
            count = len(np.unique(firsts[labels == label]))
            grouped = "groups (by `preprocess.group`, or the column `group`; make smaller ones)"
            what = "distinct images" if groups is None else grouped
            raise DataError(
                f"class {names[label] if names else label}: {what}: {count}; a hold-out needs at least 2 "
                "that are of no other class. Add images of this class, or remove it."
            )
    return np.flatnonzero(~side), np.flatnonzero(side)


def _first_that_fit(
    firsts: IntArray, labels: IntArray, order: NDArray[np.float64], holdout_fraction: float
) -> IntArray:
    """The units to hold out where a unit is an image and its few copies."""
    sizes, held = np.bincount(firsts, minlength=len(labels)), list[int]()
    rarest = np.argsort(np.bincount(labels), kind="stable")
    rank = np.full(len(labels), len(rarest))  # of each unit, at its first image
    np.minimum.at(rank, firsts, np.argsort(rarest)[labels])
    for place in range(len(rarest)):
        mine = np.flatnonzero(rank == place)
        mine = mine[np.argsort(order[mine], kind="stable")]
        quota = max(1, round(int(sizes[mine].sum()) * holdout_fraction))
        fits = int(np.searchsorted(np.cumsum(sizes[mine]), quota, side="right"))
        held += mine[: max(0, min(max(1, fits), len(mine) - 1))].tolist()
    return np.array(held, np.int64)


def _nearest(
    firsts: IntArray, labels: IntArray, order: NDArray[np.float64], holdout_fraction: float
) -> IntArray:
    """The units to hold out where they can be large and of several classes: one after another, each for which
    all its classes have room; and a last one, where classes come nearer with it or one has none."""
    counts = np.bincount(labels)
    pairs, images = np.unique(firsts * len(counts) + labels, return_counts=True)
    unit_of, label_of = np.divmod(pairs, len(counts))
    quotas = np.clip(np.round(counts * holdout_fraction), 1, counts - 1).astype(np.int64)
    room, held = quotas.copy(), set[int]()

    def members(unit: int) -> tuple[IntArray, IntArray]:
        """Its classes, and how many images it has of each."""
        part = slice(*np.searchsorted(unit_of, (unit, unit + 1)))
        return label_of[part], images[part]

    def further(unit: int) -> int:
        """By how much its classes are further from their quotas with it than without."""
        classes, many = members(unit)
        return int((np.abs(room[classes] - many) - np.abs(room[classes])).sum())

    def hold(unit: int) -> None:
        classes, many = members(unit)
        held.add(unit)
        room[classes] -= many

    by_class = np.split(
        unit_of[np.lexsort((order[unit_of], label_of))], np.bincount(label_of).cumsum()[:-1]
    )
    for label in np.argsort(counts, kind="stable"):
        left = [unit for unit in by_class[label].tolist() if unit not in held]
        for unit in left:
            classes, many = members(unit)
            if room[label] <= 0:
                break
            if (many <= room[classes]).all():
                hold(unit)
        left = [unit for unit in left if unit not in held]
        if room[label] > 0 and len(left) > 1:
            best = min(left, key=further)
            if room[label] == quotas[label] or further(best) < 0:
                hold(best)
    return np.array([*held], np.int64)


def units(images: NDArray[np.uint8], groups: IntArray | None = None) -> IntArray:
    """For each image the index of the first one that belongs on its side of any split: of its copies, and of
    those in its group, and of theirs; int64 [N]."""
    firsts = first_copies(image_digests(images))
    if groups is None:
        return firsts
    every = np.arange(len(groups))
    pairs = [np.stack([every, first], 1) for first in (firsts, first_copies(groups))]
    return joined(len(groups), np.concatenate(pairs))


def joined(count: int, pairs: IntArray) -> IntArray:
    """For each of `count` things the first that it hangs together with, by `pairs` int64 [M, 2]."""
    first = np.arange(count)
    while True:
        least = first.copy()
        for a, b in (pairs.T, pairs.T[::-1]):
            np.minimum.at(least, a, first[b])
        least = least[least]
        if (least == first).all():
            return first
        first = least


def near_copies(
    images: NDArray[np.uint8],
    labels: IntArray,
    rows: IntArray,
    among: IntArray,
    nearer: float = NEARER,
) -> IntArray:
    """Each of the images at `rows` with every near copy of its class at `among`: pairs of rows, int64 [M, 2].

    A near copy correlates with it, as a small grey picture, and far better than others do: digits of one
    class are alike too, but many of them are (as Lowe compares keypoints, Int. J. Computer Vision 60, 2004).
    """
    pairs = [np.empty((0, 2), np.int64)]
    for label in np.unique(labels[rows]):
        queries, pool = (part[labels[part] == label] for part in (rows, among))
        if len(pool) < 2:
            continue
        small, usual = _thumbnails(images, pool).T, min(USUAL, max(2, len(pool) // 3)) - 1
        for chunk in np.array_split(queries, len(queries) // 100 + 1):
            alike = _thumbnails(images, chunk) @ small
            alike[chunk[:, None] == pool] = -1  # itself
            rivals = -np.partition(-alike, usual, axis=1)[:, usual, None]
            query, near = np.nonzero((alike > NEAR) & (1 - alike < nearer * (1 - rivals)))
            pairs.append(np.stack([chunk[query], pool[near]], 1))
    return np.concatenate(pairs)


def _thumbnails(images: NDArray[np.uint8], rows: IntArray) -> NDArray[np.float32]:
    """[N, THUMBNAIL²], each of mean 0 and length 1, so that a product of two is their correlation."""
    height, width = images.shape[2:]
    down, across = ((np.arange(THUMBNAIL + 1) * side // THUMBNAIL)[:-1] for side in (height, width))
    small = [
        np.add.reduceat(
            np.add.reduceat(images[chunk].mean(axis=1, dtype=np.float32), down, 1), across, 2
        )
        for chunk in np.array_split(rows, len(rows) // 1000 + 1)
    ]
    flat = np.concatenate(small).reshape(len(rows), -1)
    flat -= flat.mean(axis=1, keepdims=True)
    thumbnails: NDArray[np.float32] = flat / (np.linalg.norm(flat, axis=1, keepdims=True) + 1e-6)
    return thumbnails
