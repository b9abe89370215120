"""A set of drawings under the conditions, with what several metrics ask of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from torch import Tensor

from cgan.quality.accuracies import drawn_accuracies
from cgan.quality.diversity import diversity_by_class
from cgan.quality.estimates import Estimate, Estimates
from cgan.quality.judge import Prediction, Progress
from cgan.quality.likeness import NearCopies, find_near_copies
from cgan.quality.metrics import Accuracy, conditional_accuracy
from cgan.quality.neighbours import neighbour_estimates

if TYPE_CHECKING:
    from cgan.quality.conditions import Conditions


@dataclass(eq=False)
class DrawnSet:
    """Drawings: `pixels` uint8 [N, C, H, W] of the classes `conditions.drawn_labels`, and the judge's
    `prediction` for them. What is derived is computed once. `progress` shows how far a training is."""

    conditions: Conditions
    pixels: Tensor
    prediction: Prediction
    progress: Progress

    @property
    def features(self) -> Tensor:
        """The judge's features of those that have the hold-out's class mix, float32 [M, 128]."""
        return self.prediction.features[self.conditions.rows_in_mix]

    @cached_property
    def accuracy(self) -> Accuracy:
        labels, classes = self.conditions.drawn_labels, self.conditions.classes
        return conditional_accuracy(self.prediction.labels, labels, classes)

    @cached_property
    def accuracies(self) -> Estimates:
        return drawn_accuracies(self.conditions, self.prediction.labels)

    @cached_property
    def neighbours(self) -> Estimates:
        return neighbour_estimates(self.conditions, self.features, "drawn")

    @cached_property
    def diversities(self) -> Sequence[Estimate | None]:
        """Of each class."""
        return diversity_by_class(self.pixels, self.conditions.drawn_labels, self.conditions.train)

    @cached_property
    def near_copies(self) -> NearCopies:
        of, labels = self.conditions, self.conditions.drawn_labels
        return find_near_copies(self.pixels, labels, of.train, of.held_out, of.params.seed)
