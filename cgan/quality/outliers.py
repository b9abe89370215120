"""How many drawings of each class lie outside what the real images of the class do.

What a tenth of the drawings have moves no mean. So each image gets four outlier scores, each a distance from
the training images of its class, as in statistical process control:

- *numbers*: the Mahalanobis distance of brightness, contrast, place and edges (Hotelling's T; `class_shift`);
- *pixels*: what the principal components of the class leave of the image made small (squared prediction
  error; Jackson & Mudholkar, Technometrics 21, 1979);
- *features*: the same of the judge's features;
- *tones*: how near the image comes to having two grey levels alone, in standard deviations above the mean.

A drawing is an outlier where its score is above what all but 1 % of the training images keep, by a margin.
Training images are scored by models that were fitted without them (cross-fitting). The judge memorised
some of them, so of features the outliers among held-out images are taken off, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import torch
from torch import Tensor

from cgan.model.hardware import available_threads, parts_on_threads
from cgan.quality.class_shift import AT_ONCE, COLUMNS, least_deviations, looks_of

# Above the limit of real images, so that what is hardly unusual is no outlier: of an honest generator's
# drawings some 3 % have edges a little softer or harder than those of any real image.
MARGINS = {"numbers": 1.4, "pixels": 1.2, "features": 1.2, "tones": 1.4}
SHOWN = {
    "numbers": "in brightness, contrast, place or edges",
    "pixels": "in their pixels",
    "features": "in the judge's features",
    "tones": "in having hardly more than two grey levels",
}
FOLDS = 5
MOST = 500  # training images of a class that are looked at
USUAL = 0.99  # the share of real images that is below the limit
EXPLAINED, COMPONENTS = 0.95, 60  # of the variance, and how many components at most
FEWEST = 10  # training images of a class: of less nothing is said
LEAST_TONES = 1.0  # percent: no standard deviation is less


@dataclass(frozen=True)
class Samples:
    """What is known of N images: `looks` float [N, columns] (`class_shift.looks_of`), `features` [N, 128],
    `tones` [N, 1] (`tones_of`), labels [N]."""

    looks: Tensor
    features: Tensor
    tones: Tensor
    labels: Tensor

    @classmethod
    def of(cls, images: Tensor, features: Tensor, labels: Tensor) -> Samples:
        """The samples of images uint8 [N, C, H, W]."""
        return cls(looks_of(images), features, tones_of(images), labels)

    def rows(self, kind: str) -> Tensor:
        if kind in ("features", "tones"):
            return Tensor(getattr(self, kind))
        return self.looks[:, : len(COLUMNS)] if kind == "numbers" else self.looks[:, len(COLUMNS) :]


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
    seen_labels: Tensor,
    heldout: Samples,
    shape: Sequence[int],
    classes: int,
) -> list[Excess]:
    """The excess of every kind and class, the largest first. `shape` of the images: C, H, W; `seen_labels`:
    of the training images that `training.features` are of, which may be some of them."""
    least = least_deviations(shape, drawn.looks.shape[1])[: len(COLUMNS)].float()
    counts = {}
    for kind, margin in MARGINS.items():
        labels = seen_labels if kind == "features" else training.labels
        fit = {"numbers": _numbers(least), "tones": _towards_two_levels}.get(kind, _remainder)
        sets = (
            (training.rows(kind), labels),
            *((each.rows(kind), each.labels) for each in (drawn, heldout)),
        )

        def of_class(label: int) -> list[list[int]]:
            return _beyond([rows[labels == label] for rows, labels in sets], fit, margin)  # noqa: B023

        with parts_on_threads(available_threads()) as parallel:
            counts[kind] = torch.tensor(list(parallel(of_class, range(classes))))
    return sorted(_excesses(counts), key=lambda excess: -excess.low)


def tones_of(images: Tensor) -> Tensor:
    """How much of the variance that its brightness would have with two grey levels, the lightest and the
    darkest, an image has: in percent, [N, 1]. With mean m of brightness from 0 to 1 these have m (1 − m)."""
    return torch.cat([_tones(part) for part in images.split(AT_ONCE)])


def _tones(images: Tensor) -> Tensor:
    grey = images.float().mean(dim=1).flatten(1)
    least, most = grey.aminmax(dim=1, keepdim=True)
    brightness = (grey - least) / (most - least).clamp(min=1)
    mean = brightness.mean(dim=1, keepdim=True)
    variance = brightness.var(dim=1, correction=0, keepdim=True)
    return 100 * variance / (mean * (1 - mean)).clamp(min=1e-3)


_Scoring = Callable[[Tensor], Tensor]  # rows [N, columns] → outlier scores [N]
_Fit = Callable[[Tensor], _Scoring]  # to the rows of a class's training images


def _numbers(least: Tensor) -> _Fit:
    def fit(rows: Tensor) -> _Scoring:
        mean = rows.mean(dim=0)
        inverse = torch.linalg.inv(torch.cov(rows.T) + least.square().diag())

        def score(others: Tensor) -> Tensor:
            apart = others - mean
            squares: Tensor = ((apart @ inverse) * apart).sum(dim=1)
            return squares.clamp(min=0).sqrt()

        return score

    return fit


def _towards_two_levels(rows: Tensor) -> _Scoring:
    mean, deviation = rows.mean(), rows.std().clamp(min=LEAST_TONES)
    # Softer drawings are what a short training makes, and have other signs.
    return lambda others: ((others[:, 0] - mean) / deviation).clamp(min=0)


def _remainder(rows: Tensor) -> _Scoring:
    mean = rows.mean(dim=0)
    apart = rows - mean
    values, vectors = torch.linalg.eigh(apart @ apart.T)  # a row an image: fewer than pixels
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
    needed = int((values.cumsum(0) < EXPLAINED * values.sum()).sum()) + 1
    count = max(1, min(needed, COMPONENTS, len(rows) // FOLDS))
    components = vectors[:, :count].T @ apart / values[:count, None].sqrt().clamp(min=1e-6)

    def score(others: Tensor) -> Tensor:
        apart = others - mean
        remainder: Tensor = apart - apart @ components.T @ components
        return remainder.square().sum(dim=1).sqrt()

    return score


def _beyond(sets: Sequence[Tensor], fit: _Fit, margin: float) -> list[list[int]]:
    """How many of the training images of a class, and of each other set of its images, are outliers, and of
    how many. Each image of these sets is scored by one of the models, in turn."""
    own, *others = sets
    if len(own) < FEWEST:
        return [[0, 0]] * len(sets)
    own = own[torch.randperm(len(own), generator=torch.Generator().manual_seed(0))[:MOST]]
    scores = [torch.zeros(len(rows)) for rows in (own, *others)]
    for fold in range(FOLDS):
        left_out = torch.arange(len(own)) % FOLDS == fold
        score = fit(own[~left_out])
        for rows, found in zip((own, *others), scores, strict=True):
            if len(rows) > fold:
                found[fold::FOLDS] = score(rows[fold::FOLDS])
    limit = margin * scores[0].quantile(USUAL, interpolation="higher")
    return [[int((found > limit).sum()), len(found)] for found in scores]


def _excesses(counts: dict[str, Tensor]) -> list[Excess]:
    """The excess of each kind and class, from counts int64 [classes, 3, 2]: outliers and images, of training,
    drawn and held-out ones."""
    z = NormalDist().inv_cdf(1 - 0.025 / sum(len(table) + 1 for table in counts.values()))
    found = []
    for kind, by_class in counts.items():
        table = torch.cat([by_class.sum(dim=0)[None], by_class]).double()
        if kind != "features":  # nothing has learnt how training images look
            table[:, 0] += table[:, 2]
        (real, _, most), (drawn, fewest, _) = (_shares(table[:, part], z) for part in (0, 1))
        expected, reach = real, (most - real).square() + (drawn - fewest).square()
        if kind == "features":  # by the held-out images of all classes, for one has few
            unseen, _, beyond = _shares(table[:1, 2], z)
            expected = (real + unseen - real[0]).clamp(min=0)
            reach = reach + (beyond - unseen).square()
        low = drawn - expected - reach.sqrt()
        judged = table[:, :2, 1].amin(dim=1) > 0
        labels = [None, *range(len(by_class))]
        found += [
            Excess(kind, labels[row], *values)
            for row, values in enumerate(torch.stack([drawn, expected, low], dim=1).tolist())
            if judged[row]
        ]
    return found


def _shares(counts: Tensor, z: float) -> tuple[Tensor, Tensor, Tensor]:
    """Each share and the ends of Wilson's interval, from counts [N, 2]: so many of how many."""
    part, total = counts[:, 0], counts[:, 1].clamp(min=1)
    centre = (part + z * z / 2) / (total + z * z)
    half = z / (total + z * z) * (part * (total - part) / total + z * z / 4).sqrt()
    return part / total, centre - half, centre + half
