"""What generators are measured with, and how images and drawings are resampled.

Two generators are compared under equal conditions: the judge, the hold-out, the latents, the labels and the
class mix. Sets are compared at the mix of the held-out images, for drawings, held-out and training images
alike; accuracies are means over classes.

Drawings, held-out and training images are resampled in up to MAX_BINS bins of consecutive rows, not image by
image; held-out images of a group are in one bin where there are MIN_GROUPS or more. So an interval covers the
noise of *which* latents and *which* real images a metric was measured with. It doesn't cover what another
seed of the training would give, nor the judge's errors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, cast

import torch
from torch import Tensor

from cgan.quality.estimates import bootstrap_weights
from cgan.quality.judge import Judge, Prediction
from cgan.quality.metrics import NEIGHBOURS, conditional_accuracy, rows_in_class_mix

# Bins of a set, each resampled as a whole: their sums are taken once, not in each replicate.
MAX_BINS = 200
MIN_GROUPS = 10  # held out; fewer don't show how they vary, and one would have no noise at all
JACKKNIFE_PARTS = 10  # of a set, each of which is left out once
MAX_BLOCK_IMAGES = 1000  # real images whose neighbours are looked for, and drawings of a block
Result = TypeVar("Result")

Source = Literal["heldout", "drawn", "training"]
"""Where images come from. Training images take the drawings' place in real images' scores."""


@dataclass(eq=False)
class EvaluationSet:
    """The judge, what it sees in real images, the classes to draw and the weights of the resampling: one set
    for all generators that are compared. It holds no images.

    `heldout`, `heldout_labels`: the judge's prediction for the hold-out, and its labels. `training_features`
    [N, 128] and `training_labels` [N] of training images, in the hold-out's class mix. `drawn_labels`: the
    class of each drawing, int64 [N], about equally many of each. `heldout_groups` int64 [held-out images]:
    where there are MIN_GROUPS or more, images of a group stand together, and a bin begins with a group; with
    fewer it is None. The jackknife's parts are of equal size: a cut may divide a group.

    Derived: `rows_in_mix`, the drawings that have the hold-out's class mix. Distances compare the first
    `distance_images` of them, or of the training images, with the hold-out; neighbours are looked for among
    the `block_size` real images of `heldout_block`. `judge_accuracy`: how often the judge names the label of
    a held-out image. `bin_weights`, `part_weights` float64 [replicates, bins or parts]: how often each one of
    a source is picked in each replicate. `heldout_cuts`: where bins of the shuffled hold-out begin.

    Raises ValueError where there are too few images for NEIGHBOURS.
    """

    judge: Judge
    heldout: Prediction
    heldout_labels: Tensor
    training_features: Tensor
    training_labels: Tensor
    drawn_labels: Tensor
    seed: int
    heldout_groups: Tensor | None = None
    _results: dict[Callable[..., Any], Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self.classes = self.heldout.logits.shape[1]
        self.heldout_counts = torch.bincount(self.heldout_labels, minlength=self.classes)
        self.rows_in_mix = rows_in_class_mix(self.drawn_labels, self.heldout_counts)
        count = self.distance_images = min(len(self.rows_in_mix), len(self.training_features))
        self.block_size = min(len(self.heldout_labels), MAX_BLOCK_IMAGES, count)
        if self.block_size <= NEIGHBOURS:
            raise ValueError(f"{self.block_size} images to compare")
        if self.heldout_groups is not None and len(self.heldout_groups.unique()) < MIN_GROUPS:
            self.heldout_groups = None
        random = torch.Generator().manual_seed(self.seed)
        # A CSV can be sorted by class: a part of the hold-out is picked from all of it.
        self.shuffled_rows = _shuffled_rows(len(self.heldout_labels), self.heldout_groups, random)
        self.shuffled_labels = self.heldout_labels[self.shuffled_rows]
        self.shuffled_features = self.heldout.features[self.shuffled_rows]
        block_rows = rows_in_class_mix(self.shuffled_labels, self.heldout_counts)[: self.block_size]
        if self.heldout_groups is not None:
            block_rows = block_rows.sort().values  # groups stand together
        self.heldout_block = self.shuffled_features[block_rows]
        self.training_features = self.training_features[:count]
        self.training_labels = self.training_labels[:count]
        self.judge_accuracy = conditional_accuracy(
            self.heldout.labels, self.heldout_labels, self.classes
        )

        def weights(images: int) -> Tensor:
            return bootstrap_weights(min(MAX_BINS, images), random)

        self.heldout_cuts = self._heldout_cuts()
        # The order in which these are picked is part of what a seed means.
        heldout_weights = bootstrap_weights(len(self.heldout_cuts) + 1, random)
        drawn_weights = weights(count)
        self.all_drawn_weights = weights(len(self.drawn_labels))
        self.bin_weights: dict[Source, Tensor] = {
            "heldout": heldout_weights,
            "drawn": drawn_weights,
            "training": weights(count),
        }
        self.part_weights: dict[Source, Tensor] = {
            source: bootstrap_weights(JACKKNIFE_PARTS, random) for source in self.bin_weights
        }

    def _heldout_cuts(self) -> Tensor:
        """The first rows of all bins of the hold-out but the first one: int64 [bins - 1]. With groups, each
        bin begins with a group."""
        images = len(self.heldout_labels)
        bins = min(MAX_BINS, images)
        # As `Tensor.tensor_split` does.
        number = torch.arange(1, bins)
        cuts = number * (images // bins) + number.clamp(max=images % bins)
        if self.heldout_groups is None:
            return cuts
        groups = self.heldout_groups[self.shuffled_rows]
        starts = (groups.diff() != 0).nonzero()[:, 0] + 1
        nearest = torch.searchsorted(starts, cuts)
        found: Tensor = starts[nearest[nearest < len(starts)]].unique()
        return found

    def compute_once(self, compute: Callable[[EvaluationSet], Result]) -> Result:
        """`compute(self)`, which is kept for all generators that are measured."""
        if compute not in self._results:
            self._results[compute] = compute(self)
        return cast("Result", self._results[compute])


def _shuffled_rows(count: int, groups: Tensor | None, random: torch.Generator) -> Tensor:
    """All rows in random order, those of a group together."""
    order = torch.randperm(count, generator=random)
    if groups is None:
        return order
    units = groups[order].unique(return_inverse=True)[1]
    first = torch.full((count,), count).scatter_reduce_(0, units, torch.arange(count), "amin")
    return order[first[units].argsort(stable=True)]


def first_rows(labels: Tensor, counts: Tensor) -> Tensor:
    """Rows of the first images of each class, as many as `counts` [classes] asks for or all there are, in
    order of the classes."""
    available = labels.bincount(minlength=len(counts)).tolist()
    by_class = labels.argsort(stable=True).split(available)
    return torch.cat([rows[:count] for rows, count in zip(by_class, counts.tolist(), strict=True)])
