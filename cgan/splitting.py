"""How images are divided into those to train on, held out, and to test on: what belongs together, or looks so
alike that it may, stays on one side."""

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cgan.errors import DataError
from cgan.images import SPLITS, Images, IntArray, first_copies, image_digests
from cgan.settings import setting
from cgan.text import listed

LEAST_HELD_OUT = 6  # one more than NEIGHBOURS of quality.metrics, which need so many other images
# A near copy correlates by more than MIN_CORRELATION, and its distance from 1 is less than MAX_DISTANCE_RATIO
# times that of the image that is USUAL_RANK-th in likeness. By these, 92 % of photographs of the same things
# have a near copy, and 1 % of digits (docs/log/2026-11-29.md, "near copies of one thing").
THUMBNAIL = 16  # pixels a side
MIN_CORRELATION = 0.9
USUAL_RANK = 10
MAX_DISTANCE_RATIO = 0.3
# For groups, which are sought within one set, where the usual image is less alike. Of pairs of one thing it
# finds 84 % (.3: 81 %), and 4.8 % of the pairs in a group are wrong (.3: 4.5 %; same entry).
MAX_DISTANCE_RATIO_OF_GROUPS = 0.4
# The share of held-out images with a near copy above which a note says so. Chosen by hand, above the 1 % of
# digits and hand signs.
NEAR_COPIES = 0.05
# Chosen by hand, to bound the time: for the note on near copies at most MAX_QUERIES held-out images are
# looked for among MAX_SEARCHED to train on; for groups at most MAX_PAIRED images of a class are all compared
# with one another.
MAX_QUERIES, MAX_SEARCHED = 5_000, 100_000
MAX_PAIRED = 20_000


def split_images(
    images: Images, fraction: float, seed: int, group: str | None = None
) -> tuple[Images, Images, Images]:
    """Images to train on, held out, and to test on: as the source says, or by `fraction` and `seed`, as
    `stratified_split` does; with the groups of `with_groups`, if `group` is given. `notes` of those held out
    are what a reader should know.

    Raises DataError where a class cannot be held out, or `group` does not fit the images.
    """
    if group:
        images = with_groups(images, group)
    if not 0 < fraction < 1:
        raise DataError(f"expected a fraction above 0 and below 1 to hold out, found {fraction}.")
    notes = [*images.notes]
    splits = np.zeros(len(images)) if images.splits is None else images.splits
    train, heldout, test = (np.flatnonzero(splits == n) for n in range(len(SPLITS)))
    source_has_val = len(heldout) > 0
    if not source_has_val:
        to_divide = images if len(train) == len(images) else images.at(train)
        rest, held = stratified_split(
            *(to_divide.pixels, to_divide.labels, fraction, seed),
            groups=to_divide.groups,
            names=images.class_names,
        )
        train, heldout = train[rest], train[held]
    if images.splits is not None:
        unit_of = unit_indices(images.pixels, images.groups)
        for name, rows in (("val", heldout), ("test", test)):
            leaked = rows[np.isin(unit_of[rows], unit_of[train])]
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
        more = f"hold out a larger fraction ({setting('preprocess.holdout_fraction')})"
        if source_has_val:
            more = "add some to val"
        raise DataError(
            f"{len(heldout)} images are held out, expected at least {LEAST_HELD_OUT}: from fewer no metric "
            f"can be had. Add images, or {more}."
        )
    if group != "auto":  # `auto` keeps near copies on one side already
        notes += _near_copies_in_words(images, train, heldout)
    # So that a part can be divided again, and is of one form wherever it comes from.
    plain = replace(images, notes=(), splits=None, sizes=None)
    return plain.at(train), replace(plain.at(heldout), notes=tuple(notes)), plain.at(test)


def with_groups(images: Images, by: str) -> Images:
    """The images, each with a group. `by`: `auto` for a group of what looks alike, or a regular expression of
    which all files with the same match are a group: of its first group in brackets, or of all of it. `notes`
    say what came of it.

    Raises DataError where `by` does not fit the images.
    """
    notes = [*images.notes]
    if by == "auto":
        groups = _groups_by_likeness(images)
    else:
        groups, without = _groups_by_name(images.files, by)
        if without:
            notes.append(
                f"Without a group: {len(without):,} ({listed(without)}). {setting('preprocess.group')} is "
                "not found in them: each is a group of its own."
            )
    sizes = np.unique(groups, return_counts=True)[1]
    notes.append(
        f"Groups: {len(sizes):,} of {len(images):,} images, the largest of {sizes.max():,} "
        f"({setting('preprocess.group', by)})."
    )
    return replace(images, groups=groups, notes=tuple(notes))


def _groups_by_likeness(images: Images) -> IntArray:
    """A group for each image, int64 [N]: connected components of near copies."""
    most = int(images.counts.max())
    if most > MAX_PAIRED:
        raise DataError(
            f"{setting('preprocess.group', 'auto')} compares all images of a class, which may be at most "
            f"{MAX_PAIRED:,}; one class has {most:,}. Set a regular expression, or null and add a column "
            "`group`."
        )
    every = np.arange(len(images))
    ratio = MAX_DISTANCE_RATIO_OF_GROUPS
    return components(len(images), near_copies(images.pixels, images.labels, every, every, ratio))


def _groups_by_name(files: Sequence[str], pattern: str) -> tuple[IntArray, list[str]]:
    """Equal numbers for files in which `pattern` finds the same; and the files in which it finds nothing,
    each a group of its own."""
    matches = {file: re.search(pattern, file) for file in files}
    without = [file for file, match in matches.items() if not match]
    if not files:
        raise DataError(
            f"{setting('preprocess.group')}: {pattern!r} looks for files, and rows of a CSV have none. Set "
            "auto, or null and add a column `group` after the label."
        )
    if len(without) == len(matches):
        raise DataError(
            f"{setting('preprocess.group')}: {pattern!r} is found in no file, such as {without[0]}. Correct "
            "it."
        )
    keys = list[str]()
    for file, match in matches.items():
        if match is None:
            keys.append(f"/{file}")
        else:
            in_brackets = match[1] if match.re.groups else None
            keys.append(in_brackets or match[0])
    return np.unique(keys, return_inverse=True)[1], without


def _near_copies_in_words(images: Images, train: IntArray, held_out: IntArray) -> list[str]:
    """A note where many held-out images have a near copy in the training part."""
    random = np.random.default_rng(0)
    queries = np.sort(random.permutation(held_out)[:MAX_QUERIES])
    among = np.sort(random.permutation(train)[:MAX_SEARCHED])
    pairs = near_copies(images.pixels, images.labels, queries, among)
    rows, first_pair_of_row = np.unique(pairs[:, 0], return_index=True)
    if len(rows) <= max(2, NEAR_COPIES * len(queries)):
        return []
    advice = "Add a column `group` after the label,"
    if images.files:
        advice = (
            f"Set {setting('preprocess.group')} to a regular expression for what the names of such files "
            "have in common,"
        )
    shown = [f"{images.place(a)} like {images.place(b)}" for a, b in pairs[first_pair_of_row]]
    return [
        f"Near copies: {len(rows):,} of {len(queries):,} held-out images look much like one to train on: "
        f"{listed(shown, 3)}. If one thing was photographed several times, every number about held-out "
        f"images is too good. {advice} or {setting('preprocess.group', 'auto')}, which keeps on one side "
        "what looks so alike."
    ]


def stratified_split(
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
    unit_of = unit_indices(images, groups)
    order = np.random.default_rng(seed).random(len(labels))
    choose = _choose_images if groups is None else _choose_groups
    is_held = np.isin(unit_of, choose(unit_of, labels, order, holdout_fraction))
    for label in np.unique(labels):
        if len(np.unique(is_held[labels == label])) < 2:
            count = len(np.unique(unit_of[labels == label]))
            what = "distinct images"
            if groups is not None:
                by = setting("preprocess.group")
                what = f"groups (by {by}, or the column `group`; make smaller ones)"
            raise DataError(
                f"class {names[label] if names else label}: {what}: {count}; a hold-out needs at least 2 "
                "that are of no other class. Add images of this class, or remove it."
            )
    return np.flatnonzero(~is_held), np.flatnonzero(is_held)


def _choose_images(
    unit_of: IntArray, labels: IntArray, order: NDArray[np.float64], fraction: float
) -> IntArray:
    """The units to hold out where a unit is an image and its few copies: of each class, the rarest first,
    those that come first by `order`."""
    sizes, held = np.bincount(unit_of, minlength=len(labels)), list[int]()
    rarest = np.argsort(np.bincount(labels), kind="stable")
    # Of each unit the rank of its rarest class; of an index that is no unit, one past the last.
    rank = np.full(len(labels), len(rarest))
    np.minimum.at(rank, unit_of, np.argsort(rarest)[labels])
    for class_rank in range(len(rarest)):
        candidates = np.flatnonzero(rank == class_rank)
        candidates = candidates[np.argsort(order[candidates], kind="stable")]
        quota = max(1, round(int(sizes[candidates].sum()) * fraction))
        within_quota = np.searchsorted(np.cumsum(sizes[candidates]), quota, side="right")
        count = min(max(1, int(within_quota)), len(candidates) - 1)  # one stays to train on
        held += candidates[: max(0, count)].tolist()
    return np.array(held, np.int64)


def _choose_groups(
    unit_of: IntArray, labels: IntArray, order: NDArray[np.float64], fraction: float
) -> IntArray:
    """The units to hold out where they can be large and of several classes. Class by class, the rarest first,
    units are taken in the order of `order` while none of their classes exceeds its quota. Where a class is
    still short of its quota, one more is taken that brings classes nearer to theirs; or, where it would have
    none, the one that takes them least far away."""
    counts = np.bincount(labels)
    keys, images = np.unique(unit_of * len(counts) + labels, return_counts=True)
    owner, label_of = np.divmod(keys, len(counts))
    begins = np.flatnonzero(np.diff(owner, prepend=-1))
    # Of each unit its classes, and how many images it has of each.
    members = dict(
        zip(
            owner[begins].tolist(),
            zip(np.split(label_of, begins[1:]), np.split(images, begins[1:]), strict=True),
            strict=True,
        )
    )
    quotas = np.clip(np.round(counts * fraction), 1, counts - 1).astype(np.int64)
    room, held = quotas.copy(), set[int]()

    def has_room(unit: int) -> bool:
        classes, numbers = members[unit]
        return bool((numbers <= room[classes]).all())

    def distance_change(unit: int) -> int:
        """By how much its classes are further from their quotas with it than without."""
        classes, numbers = members[unit]
        return int((np.abs(room[classes] - numbers) - np.abs(room[classes])).sum())

    def hold(unit: int) -> None:
        classes, numbers = members[unit]
        held.add(unit)
        room[classes] -= numbers

    sorted_by_class = owner[np.lexsort((order[owner], label_of))]
    units_of_class = np.split(sorted_by_class, np.bincount(label_of).cumsum()[:-1])
    for label in np.argsort(counts, kind="stable"):
        for unit in [unit for unit in units_of_class[label].tolist() if unit not in held]:
            if room[label] <= 0:
                break
            if has_room(unit):
                hold(unit)
        left = [unit for unit in units_of_class[label].tolist() if unit not in held]
        if room[label] > 0 and len(left) > 1:
            best = min(left, key=distance_change)
            if room[label] == quotas[label] or distance_change(best) < 0:
                hold(best)
    return np.array([*held], np.int64)


def unit_indices(images: NDArray[np.uint8], groups: IntArray | None = None) -> IntArray:
    """The unit of each image, int64 [N]: what stays on one side of any split, which is its copies, those of
    its group, and theirs. A unit is named by the index of its first image."""
    first_copy = first_copies(image_digests(images))
    if groups is None:
        return first_copy
    every = np.arange(len(groups))
    pairs = [np.stack([every, first], 1) for first in (first_copy, first_copies(groups))]
    return components(len(groups), np.concatenate(pairs))


def components(count: int, pairs: IntArray) -> IntArray:
    """For each of `count` things the first of its connected component; each of `pairs` int64 [M, 2] connects
    two."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return first_copies(connected_components(edges, directed=False)[1])


def near_copies(
    images: NDArray[np.uint8],
    labels: IntArray,
    rows: IntArray,
    among: IntArray,
    max_distance_ratio: float = MAX_DISTANCE_RATIO,
) -> IntArray:
    """Each of the images at `rows` with every near copy of its class at `among`: pairs of rows, int64 [M, 2].

    A near copy correlates with it, as a small grey picture, and far better than others do: digits of one
    class are alike too, but many of them are (as Lowe compares keypoints, Int. J. Computer Vision 60, 2004).
    """
    pairs = [np.empty((0, 2), np.int64)]
    for label in np.unique(labels[rows]):
        queries, pool = rows[labels[rows] == label], among[labels[among] == label]
        if len(pool) < 2:
            continue
        small, rank = _thumbnails(images, pool).T, min(USUAL_RANK, max(2, len(pool) // 3)) - 1
        for chunk in np.array_split(queries, len(queries) // 100 + 1):
            correlations = _thumbnails(images, chunk) @ small
            correlations[chunk[:, None] == pool] = -1  # itself
            usual = -np.partition(-correlations, rank, axis=1)[:, rank, None]
            is_near = 1 - correlations < max_distance_ratio * (1 - usual)
            query, near = np.nonzero((correlations > MIN_CORRELATION) & is_near)
            pairs.append(np.stack([chunk[query], pool[near]], 1))
    return np.concatenate(pairs)


def _thumbnails(images: NDArray[np.uint8], rows: IntArray) -> NDArray[np.float32]:
    """[N, THUMBNAIL²], each of mean 0 and length 1, so that a product of two is their correlation."""
    height, width = images.shape[2:]
    begins_y, begins_x = (np.arange(THUMBNAIL) * side // THUMBNAIL for side in (height, width))
    small = list[NDArray[np.float32]]()
    for chunk in np.array_split(rows, len(rows) // 1000 + 1):
        grey = images[chunk].mean(axis=1, dtype=np.float32)
        small.append(np.add.reduceat(np.add.reduceat(grey, begins_y, 1), begins_x, 2))
    flat = np.concatenate(small).reshape(len(rows), -1)
    flat -= flat.mean(axis=1, keepdims=True)
    thumbnails: NDArray[np.float32] = flat / (np.linalg.norm(flat, axis=1, keepdims=True) + 1e-6)
    return thumbnails
