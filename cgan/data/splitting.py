"""Divides images into those to train on, those held out and those to test on.

A *unit* stays on one side: an image with its copies, the images of its group, and copies and groups of these.
"""

import re
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cgan.base.errors import DataError
from cgan.base.settings import setting
from cgan.base.text import listed
from cgan.data.arrays import IntArray, first_occurrences, image_digests
from cgan.data.images import SPLITS, Images

# One more than `NEIGHBOURS` in cgan.quality, the number of other images that metrics need for each.
FEWEST_FOR_METRICS = 6
THUMBNAIL = 32  # pixels a side, at most
# Two images of a class are near copies where their thumbnails correlate more. Three quarters of photographs
# of tiles, taken several times each, have one on the other side, 2.6 % of digits, no hand signs, no letters.
MIN_CORRELATION = 0.975
# Of the held-out images: where more have a near copy, a note says so. Chosen by hand, above that of digits.
MAX_NEAR_COPIES = 0.05
MAX_HELD_OUT_COMPARED = 5_000  # held-out images for which near copies are sought


def split_images(
    images: Images, fraction: float, seed: int, group_by: str | None = None
) -> tuple[Images, Images, Images]:
    """Images to train on, those held out, and those to test on: the source's own split, or the `fraction`
    that `stratified_split` holds out by `seed`; with `group_by`, by the groups of `with_groups`. `notes` of
    those held out say what came of it. Raises DataError where a class cannot be held out."""
    if group_by:
        images = with_groups(images, group_by)
    if not 0 < fraction < 1:
        raise DataError(f"expected a fraction above 0 and below 1 to hold out, found {fraction}.")
    notes = list[str]()
    splits = np.zeros(len(images)) if images.splits is None else images.splits
    train, held_out, test = (np.flatnonzero(splits == number) for number in range(len(SPLITS)))
    if not len(held_out):
        part = images if len(train) == len(images) else images.at(train)
        kept, held = stratified_split(part, fraction, seed)
        train, held_out = train[kept], train[held]
    if images.splits is not None:
        units = units_of(images)
        held_out, of_val = _without_leaks(images, units, train, held_out, "val")
        test, of_test = _without_leaks(images, units, train, test, "test")
        notes += of_val + of_test
    on_one_side = np.setxor1d(images.labels[train], images.labels[held_out])
    if len(on_one_side):
        names = [images.class_names[label] for label in on_one_side]
        raise DataError(
            f"expected images of each class to train on, and others to hold out; all of {listed(names)} are "
            "on one side, for want of at least 2 distinct images or groups that are of no other class. Add "
            "images, make smaller groups, or remove val: a part of train is held out then."
        )
    if len(held_out) < FEWEST_FOR_METRICS:
        raise DataError(
            f"{len(held_out)} images are held out, expected at least {FEWEST_FOR_METRICS}, for metrics. Add "
            f"images, or hold out a larger fraction ({setting('preprocess.holdout_fraction')})."
        )
    if group_by != "auto":  # `auto` keeps near copies on one side already
        notes += _near_copies_notes(images, train, held_out)
    # So that a part can be divided again, and is of one form wherever it comes from.
    plain = replace(images, splits=None, sizes=None)
    parts = plain.at(train), plain.at(held_out), plain.at(test)
    return parts[0], replace(parts[1], notes=tuple(notes)), replace(parts[2], notes=())


def _without_leaks(
    images: Images, units: IntArray, train: IntArray, rows: IntArray, name: str
) -> tuple[IntArray, list[str]]:
    """`rows` without those of a unit that is in `train`, too; and a note if there were any."""
    is_leaked = np.isin(units[rows], units[train])
    places = [images.place(row) for row in rows[is_leaked]]
    note = (
        f"Left out of {name}: {len(places):,} ({listed(places)}). Train has a copy of each, or another "
        "image of its group."
    )
    return rows[~is_leaked], [note] if places else []


def stratified_split(images: Images, fraction: float, seed: int) -> tuple[IntArray, IntArray]:
    """The rows of the training part and of the hold-out, each ascending; together all images.

    Each class gives `fraction` of its images, or as near to it as its units allow; at least one. Units stay
    whole, and are held out in random order unless a class would exceed its quota. A class left with none then
    gives its smallest unit.
    """
    labels, units = images.labels, units_of(images)
    random_keys = np.random.default_rng(seed).random(len(images))
    quotas = np.clip(np.round(images.counts * fraction), 1, images.counts - 1)
    room = quotas.astype(int).tolist()
    by_unit = np.argsort(units, kind="stable")
    labels_by_unit = labels[by_unit].tolist()
    unit_ids, starts, sizes = np.unique(units[by_unit], return_index=True, return_counts=True)
    held = list[int]()
    for n in np.argsort(random_keys[unit_ids]):
        counts = Counter(labels_by_unit[starts[n] : starts[n] + sizes[n]])
        if all(count <= room[label] for label, count in counts.items()):
            held.append(unit_ids[n])
            for label, count in counts.items():
                room[label] -= count
    for label in np.setdiff1d(labels, labels[np.isin(units, held)]):
        candidates = np.searchsorted(unit_ids, np.unique(units[labels == label]))
        held.append(unit_ids[candidates[sizes[candidates].argmin()]])
    is_held = np.isin(units, held)
    return np.flatnonzero(~is_held), np.flatnonzero(is_held)


def units_of(images: Images) -> IntArray:
    """The unit of each image, int64 [N]: the index of the first image in it."""
    first_copy = first_occurrences(image_digests(images.pixels))
    if images.groups is None:
        return first_copy
    rows = np.arange(len(images))
    pairs = [np.stack([rows, first], 1) for first in (first_copy, first_occurrences(images.groups))]
    return _components(len(images), np.concatenate(pairs))


def _components(count: int, pairs: IntArray) -> IntArray:
    """The connected component of each of `count` nodes, named by its first node; int64 [count]. `pairs` int64
    [M, 2] are the edges."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return first_occurrences(connected_components(edges, directed=False)[1])


def with_groups(images: Images, group_by: str) -> Images:
    """The images, each with a group.

    `group_by` is `auto`, for near copies and the near copies of these, or a regular expression: files in
    which it (or its first brackets) matches the same text are a group, and one in which it matches none is a
    group of its own. Raises DataError where it fits no file.
    """
    if group_by == "auto":
        every = np.arange(len(images))
        return replace(images, groups=_components(len(images), near_copies(images, every, every)))
    found = [re.search(group_by, file) for file in images.files]
    if not any(found):
        raise DataError(
            f"{setting('preprocess.group')}: expected names of files with {group_by!r}, found "
            f"{images.files[0] if images.files else 'rows of a CSV, which may have a column `group`'}."
        )
    texts: Any = [match and ((*match.groups(), None)[0] or match[0]) for match in found]
    return replace(images, groups=texts)


def _near_copies_notes(images: Images, train: IntArray, held_out: IntArray) -> list[str]:
    """A note where many held-out images have a near copy in the training part."""
    queries = np.sort(np.random.default_rng(0).permutation(held_out)[:MAX_HELD_OUT_COMPARED])
    pairs = near_copies(images, queries, train)
    rows, first_pairs = np.unique(pairs[:, 0], return_index=True)
    if len(rows) <= max(2, MAX_NEAR_COPIES * len(queries)):
        return []
    shown = [f"{images.place(a)} like {images.place(b)}" for a, b in pairs[first_pairs]]
    return [
        f"Near copies: {len(rows):,} of {len(queries):,} held-out images look much like one to train on: "
        f"{listed(shown, 3)}. If one thing was photographed several times, numbers about held-out images are "
        f"too good. {setting('preprocess.group', 'auto')} keeps on one side what looks so alike."
    ]


def near_copies(images: Images, rows: IntArray, among: IntArray) -> IntArray:
    """The near copies at `among` of each image at `rows`, of its class: pairs of rows, int64 [M, 2]."""
    labels, pairs = images.labels, [np.empty((0, 2), np.int64)]
    for label in np.unique(labels[rows]):
        queries = rows[labels[rows] == label]
        others = among[labels[among] == label]
        for pool in np.array_split(others, len(others) // 10_000 + 1):
            pool_thumbnails = _thumbnails(images.pixels, pool).T
            for chunk in np.array_split(queries, len(queries) // 100 + 1):
                correlations = _thumbnails(images.pixels, chunk) @ pool_thumbnails
                is_other = chunk[:, None] != pool
                query, near = np.nonzero((correlations > MIN_CORRELATION) & is_other)
                pairs.append(np.stack([chunk[query], pool[near]], 1))
    return np.concatenate(pairs)


def _thumbnails(pixels: NDArray[np.uint8], rows: IntArray) -> NDArray[np.float32]:
    """Small grey pictures, flat, each of mean 0 and length 1: a product of two is their correlation."""
    begins_y, begins_x = (
        np.arange(min(THUMBNAIL, side)) * side // min(THUMBNAIL, side) for side in pixels.shape[2:]
    )
    sums = list[NDArray[np.float32]]()  # of the pixels under each pixel of a thumbnail
    for chunk in np.array_split(rows, len(rows) // 1000 + 1):
        grey = pixels[chunk].mean(axis=1, dtype=np.float32)
        sums.append(np.add.reduceat(np.add.reduceat(grey, begins_y, 1), begins_x, 2))
    flat = np.concatenate(sums).reshape(len(rows), -1)
    flat -= flat.mean(axis=1, keepdims=True)
    thumbnails: NDArray[np.float32] = flat / (np.linalg.norm(flat, axis=1, keepdims=True) + 1e-6)
    return thumbnails
