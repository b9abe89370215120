"""Scores that say how much an image looks like one that was trained on: how near the drawings come to it,
beside those of generators that were trained on halves of the images (*shadows*), for images differ in how
near any drawing comes to them (after DOMIAS, arXiv:2302.12580, and LiRA, arXiv:2112.03570).
"""

import math
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from cgan.data.arrays import IntArray
from cgan.data.images import Images
from cgan.privacy.membership import BoolArray, FloatArray

NEAREST = 3  # drawings that an image is compared with
MIN_DISTANCE = 0.02  # no distance counts as less, for that of a copy, 0, has no logarithm
COMPARED_SHIFT = 2  # pixels; less in images that are less than 16 pixels wide
COMPARED_SIDE = 32  # pixels: larger images are made smaller
IMAGES_AT_ONCE = 200
# Images may be mirrored where a mirrored one is about as near to the others of its class: the mean logarithm
# of the ratio of the distances (digits .43, hand signs .50, letters .14; photographs -.004 to .03).
MAX_MIRROR_LOSS = 0.08
MIRRORED_IMAGES = 500


def exposure(
    images: Images, drawn: Images, of_shadows: Iterable[tuple[Images, BoolArray]]
) -> FloatArray:
    """The score of each of N images, float64 [N]: how much nearer the drawings come to it than its class and
    the shadows' drawings would suggest; over the spread of its class. 0 where its class has no drawings.
    `of_shadows`: the drawings of each, and which images it has not seen, bool [N].

    What to expect is a regression of the logarithms of the distances: on those to the shadows that did not
    see the image, and on those to the others, half of all, which know as much of how odd it is.
    """
    mirrored = may_be_mirrored(images)
    labels = images.labels
    by_shadows = np.zeros((2, len(images)))
    for of_shadow, unseen in of_shadows:
        logs = log_distances(images, of_shadow, mirrored)
        for row, side in enumerate((unseen, ~unseen)):
            by_shadows[row, side] += less_mean(logs[side], labels[side])
    to_drawn = less_mean(log_distances(images, drawn, mirrored), labels)
    weights = np.linalg.lstsq(by_shadows.T, to_drawn, rcond=None)[0]
    surprise = less_mean(weights @ by_shadows - to_drawn, labels)
    spread = np.sqrt(np.bincount(labels, surprise**2) / np.bincount(labels).clip(1))
    scores: FloatArray = surprise / np.where(spread > 0, spread, 1.0)[labels]
    return scores


def less_mean(values: FloatArray, labels: IntArray) -> FloatArray:
    """Values less the mean of their class; 0 for NaN, which a class without drawings has."""
    known = np.nan_to_num(values)
    means = np.bincount(labels, known) / np.bincount(labels).clip(1)
    less: FloatArray = known - means[labels]
    return less


def log_distances(
    images: Images, others: Images, mirrored: bool = False, skip: int = 0
) -> FloatArray:
    """The mean of the logarithms of the distances to the NEAREST `others` of the class, without the `skip`
    nearest ones, float64 [N]; of images that may be `mirrored` the smaller of two. NaN where the class has no
    others."""
    found = np.full(len(images), np.nan)
    for label in np.unique(images.labels):
        rows = np.flatnonzero(images.labels == label)
        pool = others.tensors.pixels[others.labels == label]
        if len(pool) <= skip:
            continue
        for block in np.array_split(rows, len(rows) // IMAGES_AT_ONCE + 1):
            pixels = images.tensors.pixels[block]
            distances = pixel_distances(pixels, pool)
            if mirrored:
                distances = torch.minimum(distances, pixel_distances(pixels.flip(3), pool))
            nearest = distances.topk(min(skip + NEAREST, len(pool)), largest=False)[0][:, skip:]
            found[block] = nearest.clamp(min=MIN_DISTANCE).log().mean(dim=1).numpy()
    return found


def pixel_distances(images: Tensor, others: Tensor) -> Tensor:
    """The root of the mean squared difference of the pixels, in shares of their range, of each image to each
    of the others, moved by up to COMPARED_SHIFT pixels: both uint8 [N, C, H, W] → float32 [N, M]."""
    height, width = (min(COMPARED_SIDE, side) for side in images.shape[2:])
    images, others = (
        F.adaptive_avg_pool2d(part / 255, (height, width)) for part in (images, others)
    )
    down, right = (min(COMPARED_SHIFT, side // 8) for side in (height, width))
    moved = F.pad(images, (right, right, down, down), mode="replicate")
    moved = moved.unfold(2, height, 1).unfold(3, width, 1).permute(2, 3, 0, 1, 4, 5)
    flat = others.flatten(1)
    least = torch.full((len(images), len(others)), math.inf)
    for way in moved.flatten(0, 1):
        torch.minimum(least, torch.cdist(way.flatten(1), flat), out=least)
    return least / math.sqrt(flat.shape[1])


def may_be_mirrored(images: Images) -> bool:
    """Is a mirrored image about as near to the others of its class as it is itself?"""
    some = images.at(np.random.default_rng(0).permutation(len(images))[:MIRRORED_IMAGES])
    flipped = Images(some.tensors.pixels.flip(3), some.labels, some.class_names, notes=())
    # The nearest of all to an image is itself.
    own = log_distances(some, some, skip=1)
    other = log_distances(flipped, some, skip=1)
    return bool(np.nanmean(other - own) < MAX_MIRROR_LOSS)
