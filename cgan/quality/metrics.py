"""Metrics that evaluations and the probes of a training share: accuracy, Fréchet distance, the spread of
features.

- Fréchet distance: Heusel et al., arXiv:1706.08500 (eq. 6), in the judge's features.
- Conditional accuracy: Shmelkov et al., arXiv:1807.09499. Accuracies are means over the classes, so that a
  rare one counts as much as a frequent one.
- Two sets are compared at the same class mix, that of the held-out images (`rows_in_class_mix`).
- Wilson's intervals are at 95 %.

Features are float32 [N, D], labels int64 [N], images uint8 [N, C, H, W]. Every number depends on the
extractor, the reference and the counts: callers keep them beside it (`quality.conditions`).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cgan.proportions import mean_share, wilson_interval

NEIGHBOURS = 5  # k of recall and coverage (Naeem et al., arXiv:2002.09797)


@dataclass(frozen=True)
class Accuracy:
    """How often a class network names the class that was asked for: the mean over the classes."""

    value: float
    interval: tuple[float, float]
    by_class: list[float | None]
    confusion: Tensor  # int64 [classes, classes]: rows asked for, columns judged

    @property
    def interval_by_class(self) -> list[tuple[float, float] | None]:
        """The Wilson interval of each class by itself; None of one that was not asked for."""
        pairs = zip(
            self.confusion.diagonal().tolist(), self.confusion.sum(dim=1).tolist(), strict=True
        )
        return [wilson_interval(right, total) if total else None for right, total in pairs]


def conditional_accuracy(judged: Tensor, labels: Tensor, classes: int) -> Accuracy:
    """The accuracy of class indices `judged` for those asked for, `labels`, both int64 [N]. A class that was
    never asked for has none."""
    confusion = torch.bincount(labels * classes + judged, minlength=classes**2).view(classes, -1)
    return accuracy_from_confusion(confusion)


def accuracy_from_confusion(confusion: Tensor) -> Accuracy:
    """The accuracy from the counts, int64 [classes, classes]: rows asked for, columns judged."""
    hits, counts = confusion.diagonal().tolist(), confusion.sum(dim=1).tolist()
    pairs = [*zip(hits, counts, strict=True)]
    by_class = [right / total if total else None for right, total in pairs]
    mean, interval = mean_share([(right, total) for right, total in pairs if total])
    return Accuracy(mean, interval, by_class, confusion)


def accuracy_of_guesses(judged: Tensor, labels: Tensor, classes: int, tries: int = 1000) -> float:
    """The accuracy that answers which have nothing to do with the images get at most, in all but 2.5 % of the
    cases: its quantile with the answers, `judged`, in random order (a permutation test)."""
    random = torch.Generator().manual_seed(0)
    counts = labels.bincount(minlength=classes)
    # How much a right answer adds to the mean over classes.
    weights = 1 / counts[labels].double() / int(counts.count_nonzero())
    orders = (torch.randperm(len(labels), generator=random) for _ in range(tries))
    accuracies = torch.stack([weights[judged[order] == labels].sum() for order in orders])
    return float(accuracies.quantile(0.975, interpolation="higher"))


def frechet_distance(real: Tensor, drawn: Tensor) -> float:
    """‖μ₁-μ₂‖² + tr(Σ₁+Σ₂-2(Σ₁Σ₂)^½), in double precision. 0 for equal sets; biased upwards when
    the sets are small, so compare it with real against real at the same counts."""
    real, drawn = real.double(), drawn.double()
    real_covariance, drawn_covariance = (
        torch.atleast_2d(torch.cov(features.T)) for features in (real, drawn)
    )
    # The eigenvalues of a product of two covariances are real and not negative, rounding aside, so
    # the trace of its root is the sum of their roots, and no root of a matrix is needed.
    root_trace = torch.linalg.eigvals(real_covariance @ drawn_covariance).sqrt().real.sum()
    shift = (real.mean(dim=0) - drawn.mean(dim=0)).square().sum()
    traces = shift + real_covariance.trace() + drawn_covariance.trace()
    return max(0.0, float(traces - 2 * root_trace))


def rows_in_class_mix(labels: Tensor, reference: Tensor) -> Tensor:
    """Rows of the largest part of `labels` (int64 [N]) that has the class mix of `reference` (counts int64
    [classes]): of each class the first ones, in an order of which every stretch has about that mix.

    For equal counts on both sides and labels in turn, these are all rows in their order.
    """
    available = torch.bincount(labels, minlength=len(reference))
    classes = reference.nonzero()[:, 0].tolist()
    scarcest = min(classes, key=lambda label: int(available[label]) / int(reference[label]))
    counts = reference * available[scarcest] // reference[scarcest]
    # The first `counts` images of a class are spread evenly over 0 to 1; those above 1 are too many.
    position = torch.full((len(labels),), math.inf, dtype=torch.float64)
    for label in classes:
        members = (labels == label).nonzero()[:, 0]
        ranks = torch.arange(len(members), dtype=torch.float64)
        position[members] = (ranks + 0.5) / max(1, int(counts[label]))
    rows = ((position < 1) & (counts[labels] > 0)).nonzero()[:, 0]
    return rows[position[rows].argsort(stable=True)]


def deviation_by_class(features: Tensor, labels: Tensor, classes: int) -> list[float]:
    """The total standard deviation of each class's features, √tr Σ. Near 0: one picture for the class."""
    members = [features[labels == label] for label in range(classes)]
    return [float(member.var(dim=0).sum().sqrt()) if len(member) > 1 else 0.0 for member in members]
