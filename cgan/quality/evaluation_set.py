"""The images that generators are measured with, and how all of these are resampled.

Two generators are compared under equal conditions: the judge, the hold-out, the latents, the labels and the
class mix. Sets are compared at the mix of the held-out images, for drawings, held-out and training images
alike; accuracies are means over classes.

Drawings, held-out and training images are resampled in up to GROUPS groups of neighbours, not image by image.
So an interval covers the noise of *which* latents and *which* real images a metric was measured with. It
doesn't cover what another seed of the training would give, nor the judge's errors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from cgan.quality.estimates import resampled
from cgan.quality.judge import Judge, Prediction
from cgan.quality.metrics import NEIGHBOURS, conditional_accuracy, in_mix

GROUPS = 200
PARTS = 10  # of a set or a class, each of which is left out once
MAX_BLOCK = 1000  # real images whose neighbours are looked at, and drawings of a block
Result = TypeVar("Result")


@dataclass(eq=False)
class EvaluationSet:
    """What generators are measured with.

    `real`, `labels`: the hold-out in the judge's eyes. `trained`, `trained_labels`: features of training
    images [N, 128], real ones in place of drawings, in the hold-out's class mix. `asked`: the classes int64
    [N] of the drawings, about equally many of each; `rows` are those that have the hold-out's mix.
    Distances compare the first `distance_images` of `rows`, or of `trained`, with the hold-out; neighbours
    are looked for among `block_images` real images. `weights`: how often each group or part is drawn in each
    replicate, by what is resampled.

    Raises ValueError where there are too few images for NEIGHBOURS.
    """

    judge: Judge
    real: Prediction
    labels: Tensor
    trained: Tensor
    trained_labels: Tensor
    asked: Tensor
    seed: int
    _results: dict[Callable[..., Any], Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self.classes = self.real.logits.shape[1]
        self.held = torch.bincount(self.labels, minlength=self.classes)
        self.rows = in_mix(self.asked, self.held)
        count = self.distance_images = min(len(self.rows), len(self.trained))
        self.block_images = min(len(self.labels), MAX_BLOCK, count)
        if self.block_images <= NEIGHBOURS:
            raise ValueError(f"{self.block_images} images to compare")
        random = torch.Generator().manual_seed(self.seed)
        # A CSV can be sorted by class: a part of the hold-out is picked from all of it.
        self.mixed = torch.randperm(len(self.labels), generator=random)
        self.mixed_labels = self.labels[self.mixed]
        self.mixed_features = self.real.features[self.mixed]
        self.block = self.mixed_features[in_mix(self.mixed_labels, self.held)][: self.block_images]
        self.trained, self.trained_labels = self.trained[:count], self.trained_labels[:count]
        # How often the judge names the label of a held-out image.
        self.agreement = conditional_accuracy(self.real.classes, self.labels, self.classes)
        sizes = {
            "real": len(self.labels),
            "drawn": count,
            "asked": len(self.asked),
            "trained": count,
        }
        groups = {kind: min(GROUPS, size) for kind, size in sizes.items()}
        groups |= {f"{kind} parts": PARTS for kind in ("real", "drawn", "trained")}
        self.weights = {kind: resampled(many, random) for kind, many in groups.items()}

    def once(self, compute: Callable[[EvaluationSet], Result]) -> Result:
        """`compute(self)`, which is computed once for all generators that are measured."""
        if compute not in self._results:
            self._results[compute] = compute(self)
        return cast("Result", self._results[compute])
