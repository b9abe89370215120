"""What evaluations and the probes of a training both compute: accuracy, Fréchet distance, diversity.

- Fréchet distance: Heusel et al., arXiv:1706.08500 (eq. 6), in the judge's features.
- Conditional accuracy: Shmelkov et al., arXiv:1807.09499. Accuracies are means over the classes, so that a
  rare one counts as much as a frequent one.
- Two sets are compared at the same class mix, that of the held-out images (`in_mix`).
- Wilson's intervals are at 95 %.

Features are float32 [N, D], labels int64 [N], images uint8 [N, C, H, W]. Every number depends on the
extractor, the reference and the counts: callers keep them beside it (`quality.conditions`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

NEIGHBOURS = 5


@dataclass(frozen=True)
class Accuracy:
    """How often a class network names the class that was asked for: the mean over the classes."""

    value: float
    interval: tuple[float, float]
    by_class: list[float | None]
    confusion: Tensor  # int64 [classes, classes]: rows asked for, columns judged

    @property
    def interval_by_class(self) -> list[tuple[float, float] | None]:
        """Wilson's, of each class by itself."""
        pairs = zip(
            self.confusion.diagonal().tolist(), self.confusion.sum(dim=1).tolist(), strict=True
        )
        return [wilson_interval(right, total) if total else None for right, total in pairs]


def conditional_accuracy(judged: Tensor, labels: Tensor, classes: int) -> Accuracy:
    """`judged` and `labels` are class indices int64 [N]. A class that was never asked for has none."""
    confusion = torch.bincount(labels * classes + judged, minlength=classes**2).view(classes, -1)
    return accuracy_of(confusion)


def accuracy_of(confusion: Tensor) -> Accuracy:
    """The same from the counts, int64 [classes, classes]."""
    pairs = torch.stack([confusion.diagonal(), confusion.sum(dim=1)], dim=1).tolist()
    by_class = [hits / count if count else None for hits, count in pairs]
    mean, interval = mean_share([(hits, count) for hits, count in pairs if count])
    return Accuracy(mean, interval, by_class, confusion)


def mean_share(pairs: Sequence[tuple[int, int]]) -> tuple[float, tuple[float, float]]:
    """The mean of several proportions (right, total) and its 95 % interval.

    The intervals of the parts are put together as those of a difference are (Zou & Donner, Statistics in
    Medicine 27, 2008, eq. 5 and 6), so that a class of three images makes it as wide as it should be.
    """
    shares = [right / total for right, total in pairs]
    ends = [wilson_interval(right, total) for right, total in pairs]
    mean = sum(shares) / len(shares)
    below, above = (
        math.hypot(*(share - end for share, end in zip(shares, side, strict=True))) / len(shares)
        for side in zip(*ends, strict=True)
    )
    return mean, (mean - below, mean + above)


def accuracy_of_guesses(judged: Tensor, labels: Tensor, classes: int, tries: int = 1000) -> float:
    """The accuracy that answers which have nothing to do with the images get at most, in all but 2.5 % of the
    cases: its quantile with the answers, `judged`, in random order (a permutation test)."""
    random = torch.Generator().manual_seed(0)
    counts = labels.bincount(minlength=classes)
    # What a right answer adds to the mean over classes.
    worth = 1 / counts[labels].double() / int(counts.count_nonzero())
    orders = (torch.randperm(len(labels), generator=random) for _ in range(tries))
    found = torch.stack([worth[judged[order] == labels].sum() for order in orders])
    return float(found.quantile(0.975, interpolation="higher"))


def wilson_interval(right: int, total: int, z: float = 1.959964) -> tuple[float, float]:
    """Interval of a proportion, 95 % unless `z` says otherwise; stays within 0–1 and covers the truth about
    as often near both ends (Wilson, JASA 22, 1927)."""
    centre = (right + z * z / 2) / (total + z * z)
    half = z / (total + z * z) * math.sqrt(right * (total - right) / total + z * z / 4)
    return max(0.0, centre - half), min(1.0, centre + half)


def frechet_distance(real: Tensor, drawn: Tensor) -> float:
    """‖μ₁-μ₂‖² + tr(Σ₁+Σ₂-2(Σ₁Σ₂)^½), in double precision. 0 for equal sets; biased upwards when
    the sets are small, so compare it with real against real at the same counts."""
    real, drawn = real.double(), drawn.double()
    first, second = (torch.atleast_2d(torch.cov(features.T)) for features in (real, drawn))
    # The eigenvalues of a product of two covariances are real and not negative, rounding aside, so
    # the trace of its root is the sum of their roots, and no root of a matrix is needed.
    root = torch.linalg.eigvals(first @ second).sqrt().real.sum()
    apart = (real.mean(dim=0) - drawn.mean(dim=0)).square().sum()
    return max(0.0, float(apart + first.trace() + second.trace() - 2 * root))


def in_mix(labels: Tensor, reference: Tensor) -> Tensor:
    """Rows of the largest part of `labels` (int64 [N]) that has the class mix of `reference` (counts int64
    [classes]): of each class the first ones, mixed so that every stretch of it has about that mix.

    For equal counts on both sides, labels in turn: all rows in their order.
    """
    available = torch.bincount(labels, minlength=len(reference))
    classes = reference.nonzero()[:, 0].tolist()
    fewest = min(classes, key=lambda label: int(available[label]) / int(reference[label]))
    counts = reference * available[fewest] // reference[fewest]
    rank = torch.zeros(len(labels), dtype=torch.float64)
    for label in classes:
        members = (labels == label).nonzero()[:, 0]
        places = torch.arange(len(members), dtype=torch.float64) + 0.5
        rank[members] = places / max(1, int(counts[label]))
    rows = ((rank < 1) & (counts[labels] > 0)).nonzero()[:, 0]
    return rows[rank[rows].argsort(stable=True)]


def diversity(features: Tensor, labels: Tensor, classes: int) -> list[float]:
    """Total standard deviation of each class's features, √tr Σ. Near 0: one picture for the class."""
    members = [features[labels == label] for label in range(classes)]
    return [float(member.var(dim=0).sum().sqrt()) if len(member) > 1 else 0.0 for member in members]
