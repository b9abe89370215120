"""Outliers among drawings, or another day's images: those that lie outside what real images of the class do.

What a tenth of the images have moves no mean. So each image is an outlier, or none, as in statistical process
control, by three distances from the training images of its class:

- in *numbers* (`class_shift.NAMED_COLUMNS`), the Mahalanobis distance (Hotelling's T);
- in *features* of the judge, what the principal components of the class leave of them (squared prediction
  error; Jackson & Mudholkar, Technometrics 21, 1979);
- in *tones*, by how many standard deviations it comes nearer to having two grey levels alone than the mean.

An outlier is one that is above any of three limits, which are what all but 1 % of the training images keep,
and a margin. These are measured by models that were fitted without them (cross-fitting). The judge knows some
of them by heart: by as much as it finds held-out images further off, the limit of the features is raised.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from cgan.data.images import Images
from cgan.quality.class_shift import DESCRIBED_AT_ONCE, NAMED_COLUMNS, describe, min_deviations
from cgan.quality.judge import Judge, predict
from cgan.quality.proportions import difference_interval, joint_z, proportion_interval

# A limit is so many times what real images keep, in numbers, features and tones, of another day's images and
# of drawings. What is hardly unusual is no outlier: of honest drawings some 3 % have edges softer or harder
# than any real image's, and up to 10 % other features, which of spoilt ones are further off.
MARGINS = torch.tensor([[1.4, 1.2, 1.4], [1.4, 1.6, 1.4]])
CROSS_FITS = 5
MIN_TRAINING_IMAGES = 30  # of a class: what so few keep says little of others
MAX_TRAINING_IMAGES = 500  # of a class, that a model is fitted to
LIMIT_QUANTILE = 0.99  # of training images' distances, of which a limit is a multiple
MEMORY_QUANTILE = 0.9  # of distances in features, by which held-out images are further off
# Principal components: as many as explain this part of the variance, and no more than MAX_COMPONENTS.
EXPLAINED_VARIANCE = 0.95
MAX_COMPONENTS = 60
MIN_TONES_DEVIATION = 1.0  # percent: no standard deviation counts as less


class Samples(NamedTuple):
    """N images as they are compared: `numbers` float [N, columns] (`NAMED_COLUMNS`), `features` [N, D],
    `tones` [N] (`tones_of`), labels [N]."""

    numbers: Tensor
    features: Tensor
    tones: Tensor
    labels: Tensor

    @classmethod
    def measure(cls, images: Tensor, features: Tensor, labels: Tensor) -> Samples:
        """The samples of images uint8 [N, C, H, W]."""
        tones = [tones_of(part) for part in images.split(DESCRIBED_AT_ONCE)]
        numbers = describe(images)[:, : len(NAMED_COLUMNS)]
        return cls(numbers, features, torch.cat(tones), labels)

    def at(self, rows: Tensor) -> Samples:
        return Samples(*(part[rows] for part in self))


def tones_of(images: Tensor) -> Tensor:
    """The variance of an image's brightness, in percent of what it would be if the image had its lightest and
    its darkest grey level alone, [N]: m (1 - m), with mean m of brightness from 0 to 1."""
    grey = images.float().mean(dim=1).flatten(1)
    darkest, lightest = grey.aminmax(dim=1, keepdim=True)
    brightness = (grey - darkest) / (lightest - darkest).clamp(min=1)
    mean = brightness.mean(dim=1)
    return 100 * brightness.var(dim=1, correction=0) / (mean * (1 - mean)).clamp(min=1e-3)


class Excess(NamedTuple):
    """The share of outliers among the images of a class (None: of all), the share among real ones, and by how
    much more it is: `low` is the optimistic end of an interval that is at 95 % for all classes together."""

    label: int | None
    share: float
    real: float
    low: float


class OutlierModels(NamedTuple):
    """Models of the real images of each class; each tensor has a row for a class, or is of one class: mean
    and inverse covariance of the numbers; mean and principal components of the features, [D] and
    [MAX_COMPONENTS, D]; mean and standard deviation of the tones, [2]; the limits of the distances, of images
    and of drawings, [2, 3], infinite where there are too few images; and how many real images are outliers by
    each, among how many, int64 [2, 2]."""

    numbers_mean: Tensor
    numbers_inverse: Tensor
    features_mean: Tensor
    components: Tensor
    tones: Tensor
    limits: Tensor
    real: Tensor

    @classmethod
    def fit_images(cls, judge: Judge, train: Images, held_out: Images) -> OutlierModels:
        """The models of a random part of the training images, in features of the judge."""
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
        in_order = train.tensors.labels[order]
        rows = [order[in_order == label][:MAX_TRAINING_IMAGES] for label in range(train.classes)]
        training, unseen = (
            Samples.measure(pixels, predict(judge, pixels).features, labels)
            for pixels, labels, _ in (train.at(torch.cat(rows)).tensors, held_out.tensors)
        )
        return cls.fit(training, unseen, train.shape, train.classes)

    @classmethod
    def fit(
        cls, training: Samples, held_out: Samples, shape: Sequence[int], classes: int
    ) -> OutlierModels:
        """The models of images of `shape` [C, H, W]; the training images in random order."""
        min_std = min_deviations(shape, len(NAMED_COLUMNS)).float()
        of_classes = [training.at(training.labels == label) for label in range(classes)]
        fitted, found = zip(*(_cross_fit(each, min_std) for each in of_classes), strict=True)
        models = cls(*map(torch.stack, zip(*fitted, strict=True)))
        labels = torch.cat([*(each.labels for each in of_classes), held_out.labels])
        distances = torch.cat([*found, models.distances(held_out)])
        of_limit = (distances[:, 1] / models.limits[labels, 0, 1]).nan_to_num(1.0)
        known, unseen = of_limit.tensor_split([-len(held_out.labels)])
        rise = unseen.quantile(MEMORY_QUANTILE) / known.quantile(MEMORY_QUANTILE)
        models.limits[:, :, 1] *= rise.clamp(min=1)
        real = [_count(distances, labels, limits) for limits in models.limits.unbind(dim=1)]
        return models._replace(real=torch.stack(real, dim=1))

    def distances(self, samples: Samples) -> Tensor:
        """Distances from the real images of each one's class, in numbers, features and tones: [N, 3]."""
        found = torch.zeros(len(samples.labels), MARGINS.shape[1])
        for label in samples.labels.unique():
            of_class = samples.labels == label
            model = OutlierModels(*(part[label] for part in self))
            found[of_class] = _distances(model, samples.at(of_class))
        return found

    def excesses(
        self, samples: Samples, group_size: float = 1.0, *, drawn: bool = False
    ) -> list[Excess]:
        """The excesses of images, or of drawings. `group_size`: how many say the same, on average."""
        counts = _count(self.distances(samples), samples.labels, self.limits[:, int(drawn)])
        return excesses(counts, self.real[:, int(drawn)], group_size)


def _fit(samples: Samples, min_std: Tensor) -> OutlierModels:
    """The model of one class, not yet with limits. `min_std` [columns]: a standard deviation that is added to
    each number's own, as if independent."""
    covariance = torch.cov(samples.numbers.T) + min_std.square().diag()
    mean = samples.features.mean(dim=0)
    centred = (samples.features - mean).double()
    _, deviations, vectors = torch.linalg.svd(centred, full_matrices=False)
    variances = deviations.square()
    needed = int((variances.cumsum(0) < EXPLAINED_VARIANCE * variances.sum()).sum()) + 1
    count = max(1, min(needed, MAX_COMPONENTS, len(centred) // CROSS_FITS))
    components = torch.zeros(MAX_COMPONENTS, len(mean))
    components[:count] = vectors[:count]
    deviation = samples.tones.std().clamp(min=MIN_TONES_DEVIATION)
    return OutlierModels(
        numbers_mean=samples.numbers.mean(dim=0),
        numbers_inverse=covariance.inverse(),
        features_mean=mean,
        components=components,
        tones=torch.stack([samples.tones.mean(), deviation]),
        limits=torch.full(MARGINS.shape, math.inf),
        real=torch.zeros(2, 2),
    )


def _distances(model: OutlierModels, samples: Samples) -> Tensor:
    """Distances of images of a class from its model: [n, 3]."""
    numbers = samples.numbers - model.numbers_mean
    squares = ((numbers @ model.numbers_inverse) * numbers).sum(dim=1)
    features = samples.features - model.features_mean
    remainder = features - features @ model.components.T @ model.components
    mean, deviation = model.tones
    # One-sided: softer drawings are what a short training makes, and have other signs.
    tones = ((samples.tones - mean) / deviation).clamp(min=0)
    return torch.stack([squares.clamp(min=0).sqrt(), remainder.norm(dim=1), tones], dim=1)


def _cross_fit(samples: Samples, min_std: Tensor) -> tuple[OutlierModels, Tensor]:
    """The model of a class, and the distances of its images by models that were fitted without them."""
    count = len(samples.labels)
    if count < MIN_TRAINING_IMAGES:
        blank = Samples(*(torch.zeros(2, *part.shape[1:]) for part in samples))
        return _fit(blank, min_std), torch.full((count, MARGINS.shape[1]), math.inf)
    distances = torch.zeros(count, MARGINS.shape[1])
    fold_of = torch.arange(count) % CROSS_FITS
    for fold in range(CROSS_FITS):
        model = _fit(samples.at(fold_of != fold), min_std)
        distances[fold_of == fold] = _distances(model, samples.at(fold_of == fold))
    kept = distances.quantile(LIMIT_QUANTILE, dim=0, interpolation="higher")
    return _fit(samples, min_std)._replace(limits=MARGINS * kept.clamp(min=1e-6)), distances


def _count(distances: Tensor, labels: Tensor, limits: Tensor) -> Tensor:
    """The outliers of each class, and its images, where it has limits: int64 [classes, 2]."""
    outliers = (distances > limits[labels]).any(dim=1)
    pairs = torch.stack([outliers, limits[labels, 0].isfinite()], dim=1).long()
    return torch.zeros(len(limits), 2, dtype=torch.int64).index_add_(0, labels, pairs)


def excesses(counts: Tensor, real: Tensor, group_size: float = 1.0) -> list[Excess]:
    """The excesses of all classes, and of each that has images, the largest first. Both int64 [classes, 2]:
    outliers, and how many images there are.

    Classes have outliers of their own. So real images count at the class mix of the others: by weights, which
    make them worth fewer (Kish, Survey Sampling, 1965, 11.7).
    """
    known = ((counts[:, 1] > 0) & (real[:, 1] > 0)).nonzero()[:, 0]
    (found, images), (real_found, real_images) = (each[known].double().T for each in (counts, real))
    shares, real_shares = found / images, real_found / real_images
    weights = images / images.sum()
    worth = 1 / (weights.square() / real_images).sum()
    rows = [
        (None, weights @ shares, images.sum(), weights @ real_shares, worth),
        *zip(known.tolist(), shares, images, real_shares, real_images, strict=True),
    ]
    z = joint_z(1 + len(real))
    result = []
    for label, *numbers in rows if len(known) else ():
        share, count, real_share, real_count = map(float, numbers)
        of_share = proportion_interval(share, max(1, round(count / group_size)), z)
        of_real = proportion_interval(real_share, max(1, round(real_count / group_size)), z)
        low, _ = difference_interval(real_share, of_real, share, of_share)
        result.append(Excess(label, share, real_share, low))
    return sorted(result, key=lambda excess: -excess.low)
