"""How many drawings of each class lie outside what the real images of the class do.

What a tenth of the drawings have moves no mean. So each image gets three outlier scores, each a distance from
the training images of its class, as in statistical process control:

- *numbers*: the Mahalanobis distance of brightness, contrast, place and edges (Hotelling's T; `class_shift`);
- *features*: what the principal components of the class leave of the judge's features (squared prediction
  error; Jackson & Mudholkar, Technometrics 21, 1979);
- *tones*: how near the image comes to having two grey levels alone, in standard deviations above the mean.

A drawing is an outlier where its score is above what all but 1 % of the training images keep, by a margin.
Training images are scored by models that were fitted without them (cross-fitting). The judge memorised
some of them, so of features the outliers among held-out images are taken off, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from cgan.model.hardware import available_threads, parts_on_threads
from cgan.proportions import joint_z, wilson_interval
from cgan.quality.class_shift import BATCH, COLUMNS, describe, min_deviations

# The limit is so many times as large as what real images keep, so that what is hardly unusual is no outlier:
# of an honest generator's drawings some 3 % have edges a little softer or harder than any real image's.
MARGINS = {"numbers": 1.4, "features": 1.2, "tones": 1.4}
KIND_WORDS = {
    "numbers": "in brightness, contrast, place or edges",
    "features": "in the judge's features",
    "tones": "in having hardly more than two grey levels",
}
FOLDS = 5
MIN_TRAINING_IMAGES = 10  # of a class: with fewer nothing is said of it
MAX_TRAINING_IMAGES = 500  # of a class, that models are fitted to
LIMIT_QUANTILE = 0.99  # of training images' scores: so many are below the limit, before its margin
# Principal components: as many as explain this part of the variance, and no more than MAX_COMPONENTS.
EXPLAINED_VARIANCE, MAX_COMPONENTS = 0.95, 60
MIN_TONES_DEVIATION = 1.0  # percent: no standard deviation counts as less


@dataclass(frozen=True)
class Samples:
    """N images as they are scored: `descriptors` float [N, columns] (`class_shift.describe`), `features`
    [N, 128], `tones` [N, 1] (`tones_of`), labels [N]."""

    descriptors: Tensor
    features: Tensor
    tones: Tensor
    labels: Tensor

    @classmethod
    def of(cls, images: Tensor, features: Tensor, labels: Tensor) -> Samples:
        """The samples of images uint8 [N, C, H, W]."""
        return cls(describe(images), features, tones_of(images), labels)

    @property
    def rows(self) -> dict[str, Tensor]:
        """By the kinds of scores, a row for each image, of which its score is computed."""
        numbers = self.descriptors[:, : len(COLUMNS)]
        return {"numbers": numbers, "features": self.features, "tones": self.tones}


class Excess(NamedTuple):
    """The share of outliers among the drawings of a class (None: of all), the share among real images, and by
    how much more it is: `low` is the optimistic end of an interval that is at 95 % for all kinds and classes
    together."""

    kind: str
    label: int | None
    share: float
    real: float
    low: float


def outliers(
    drawn: Samples,
    training: Samples,
    feature_labels: Tensor,
    heldout: Samples,
    shape: Sequence[int],
    classes: int,
) -> list[Excess]:
    """The excess of every kind and class, the largest first. `shape` of the images: C, H, W;
    `feature_labels`: of the training images that `training.features` are of, which may be some of them."""
    min_std = min_deviations(shape, drawn.descriptors.shape[1])[: len(COLUMNS)].float()
    fits: dict[str, _Fit] = {
        "numbers": partial(_fit_mahalanobis, min_std=min_std),
        "features": _fit_components,
        "tones": _fit_tones,
    }
    found, z = [], joint_z(len(fits) * (1 + classes))
    for kind, fit in fits.items():
        labels = feature_labels if kind == "features" else training.labels
        sets = [(training.rows[kind], labels)]
        sets += [(samples.rows[kind], samples.labels) for samples in (drawn, heldout)]
        count = partial(_count_outliers, sets, fit=fit, margin=MARGINS[kind])
        with parts_on_threads(available_threads()) as parallel:
            by_class = torch.tensor(list(parallel(count, range(classes))))
        found += excesses(kind, by_class, z)
    return sorted(found, key=lambda excess: -excess.low)


def tones_of(images: Tensor) -> Tensor:
    """The variance of an image's brightness, in percent of what it would be if the image had its lightest and
    its darkest grey level alone, [N, 1]: m (1 - m), with mean m of brightness from 0 to 1."""
    tones = []
    for part in images.split(BATCH):
        grey = part.float().mean(dim=1).flatten(1)
        darkest, lightest = grey.aminmax(dim=1, keepdim=True)
        brightness = (grey - darkest) / (lightest - darkest).clamp(min=1)
        mean = brightness.mean(dim=1, keepdim=True)
        variance = brightness.var(dim=1, correction=0, keepdim=True)
        tones.append(100 * variance / (mean * (1 - mean)).clamp(min=1e-3))
    return torch.cat(tones)


_Score = Callable[[Tensor], Tensor]  # rows [N, columns] → outlier scores [N]
_Fit = Callable[[Tensor], _Score]  # the rows of a class's training images → how others are scored


def _fit_mahalanobis(rows: Tensor, min_std: Tensor) -> _Score:
    """`min_std` [columns]: a standard deviation that is added to each column's own, as if independent."""
    mean = rows.mean(dim=0)
    inverse = torch.linalg.inv(torch.cov(rows.T) + min_std.square().diag())

    def score(others: Tensor) -> Tensor:
        centred = others - mean
        squares: Tensor = ((centred @ inverse) * centred).sum(dim=1)
        return squares.clamp(min=0).sqrt()

    return score


def _fit_tones(rows: Tensor) -> _Score:
    mean, deviation = rows.mean(), rows.std().clamp(min=MIN_TONES_DEVIATION)
    # One-sided: softer drawings are what a short training makes, and have other signs.
    return lambda others: ((others[:, 0] - mean) / deviation).clamp(min=0)


def _fit_components(rows: Tensor) -> _Score:
    """The length of what remains of an image without its projection on the principal components."""
    mean = rows.mean(dim=0)
    centred = rows - mean
    # The eigenvectors of the Gram matrix [N, N]: there may be fewer images than features.
    values, vectors = torch.linalg.eigh(centred @ centred.T)
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
    needed = int((values.cumsum(0) < EXPLAINED_VARIANCE * values.sum()).sum()) + 1
    count = max(1, min(needed, MAX_COMPONENTS, len(rows) // FOLDS))
    components = vectors[:, :count].T @ centred / values[:count, None].sqrt().clamp(min=1e-6)

    def score(others: Tensor) -> Tensor:
        centred = others - mean
        remainder: Tensor = centred - centred @ components.T @ components
        return remainder.square().sum(dim=1).sqrt()

    return score


def _count_outliers(
    sets: Sequence[tuple[Tensor, Tensor]], label: int, *, fit: _Fit, margin: float
) -> list[tuple[int, int]]:
    """The outliers of a class in each of `sets`, rows and labels, and how many images each has. Training
    images are scored by models of the other folds, and images of the other sets by these models in turn."""
    training, *others = (rows[labels == label] for rows, labels in sets)
    if len(training) < MIN_TRAINING_IMAGES:
        return [(0, 0)] * len(sets)
    order = torch.randperm(len(training), generator=torch.Generator().manual_seed(0))
    training = training[order[:MAX_TRAINING_IMAGES]]
    scores = [torch.zeros(len(rows)) for rows in (training, *others)]
    for fold in range(FOLDS):
        in_fold = torch.arange(len(training)) % FOLDS == fold
        score = fit(training[~in_fold])
        for rows, rows_scores in zip((training, *others), scores, strict=True):
            if len(rows) > fold:
                rows_scores[fold::FOLDS] = score(rows[fold::FOLDS])
    limit = margin * scores[0].quantile(LIMIT_QUANTILE, interpolation="higher")
    return [(int((found > limit).sum()), len(found)) for found in scores]


def excesses(kind: str, by_class: Tensor, z: float) -> list[Excess]:
    """The excess of all classes together, and of each class. `by_class` int64 [classes, 3, 2]: outliers and
    images, of training, drawn and held-out images. `z`: of the intervals (`proportions.joint_z`)."""
    of_all, found = by_class.sum(dim=0), list[Excess]()
    (memorised, *_), (unseen, _, highest_unseen) = _share(of_all[0], z), _share(of_all[2], z)
    for label, (training, drawn, heldout) in [(None, of_all), *enumerate(by_class)]:
        if kind != "features":  # which alone were learnt: held-out images are real ones like any
            training = training + heldout
        if not training[1] or not drawn[1]:
            continue
        (share, lowest, _), (real, _, highest) = _share(drawn, z), _share(training, z)
        # The end of the interval of a difference, by Newcombe's method (`intervals.difference_interval`).
        half_widths = [highest - real, share - lowest]
        if kind == "features":  # by the held-out images of all classes, for one has few
            real = max(0.0, real + unseen - memorised)
            half_widths.append(highest_unseen - unseen)
        found.append(Excess(kind, label, share, real, share - real - math.hypot(*half_widths)))
    return found


def _share(count: Tensor, z: float) -> tuple[float, float, float]:
    """The share of outliers and the ends of its interval, of a count int64 [2] of outliers and images."""
    part, total = int(count[0]), max(1, int(count[1]))
    return part / total, *wilson_interval(part, total, z)
