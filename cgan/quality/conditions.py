"""Conditions under which generators are measured alike: judge, hold-out, latents, labels and class mix.

Sets are compared at the mix of the held-out images, for drawings, held-out and training images alike;
accuracies are means over classes.

Drawings, held-out and training images are resampled in up to MAX_BINS bins of consecutive rows, not image by
image; held-out images of a group are in one bin where there are MIN_GROUPS or more. So an interval covers the
noise of *which* latents and *which* real images a metric was measured with. It doesn't cover what another
seed of the training would give, nor the judge's errors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from cgan.base.errors import DataError
from cgan.data.images import Images, first_copies, pixels_digest
from cgan.models.generative import GenerativeModel
from cgan.models.model_file import digest_of
from cgan.params.sections import EvaluateParams
from cgan.quality import accuracies, feature_metrics, likeness
from cgan.quality.intervals import JACKKNIFE_PARTS, Bins, Estimates, bootstrap_weights
from cgan.quality.judge import Judge, Prediction, conditional_accuracy, predict

# What takes the place of drawings in real images' scores, with the judge's memorisation bias known or not.
# These words are part of a run's context: runs are compared by them.
REAL_LESS_BIAS = "training images, less what the judge knows of them by heart"
REAL_WITH_BIAS = (
    "training images; too few are held out to know what the judge knows of them by heart"
)
# Of fewer than 35 drawings, all right would not show that 90 % are (Wilson's interval).
MIN_DRAWINGS_PER_CLASS = 100
# Seconds of a core that drawing what is judged may take; more only for MIN_DRAWINGS_PER_CLASS.
MAX_JUDGED_DRAWINGS_S = 60.0
MAX_BINS = 200
MIN_GROUPS = 10  # held out; fewer don't show how they vary, and one would have no noise at all

Source = Literal["heldout", "drawn", "all drawn", "training"]
"""Where images come from: the drawings that have the hold-out's class mix, or all of them. Training images
take the drawings' place in real images' scores."""


@dataclass(eq=False)
class Conditions:
    """The judge, both parts of the data, the classes to draw, and how all of it is resampled.

    `heldout`: the judge's prediction for the hold-out. `training_features` [M, 128] and `training_labels` [M]
    of training images, in the hold-out's class mix. `drawn_labels`: the class of each drawing, int64 [N],
    about equally many of each; `rows_in_mix`, those that have the hold-out's class mix.

    Distances compare the first `distance_images` of these, or of the training images, with the hold-out;
    neighbours are looked for among the `block_size` real images of `heldout_block`. `bins` and `part_weights`
    say how each source is resampled, by the bootstrap and by the jackknife, whose parts are of equal size: a
    cut may divide a group.

    Raises DataError where there are too few images for recall.
    """

    judge: Judge
    train: Images
    held_out: Images
    params: EvaluateParams
    heldout: Prediction
    training_features: Tensor
    training_labels: Tensor
    drawn_labels: Tensor

    @classmethod
    def prepare(
        cls,
        judge: Judge,
        train: Images,
        held_out: Images,
        params: EvaluateParams,
        models: Sequence[GenerativeModel],
    ) -> Conditions:
        """The conditions for these generators. Raises DataError where there are too few images."""
        slowest = max(model.seconds_per_drawing for model in models)
        drawn_labels = labels_to_draw(train.classes, params, slowest)
        # A CSV can be sorted by class: what takes the drawings' place is picked from all of it.
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(params.seed))
        in_mix = rows_in_class_mix(train.tensors.labels[order], held_out.tensors.counts)
        training = train.at(order[in_mix][: len(drawn_labels)]).tensors
        return cls(
            judge=judge,
            train=train,
            held_out=held_out,
            params=params,
            heldout=predict(judge, held_out.tensors.pixels),
            training_features=predict(judge, training.pixels).features,
            training_labels=training.labels,
            drawn_labels=drawn_labels,
        )

    def __post_init__(self) -> None:
        _, labels, counts = self.held_out.tensors
        self.classes = len(counts)
        self.rows_in_mix = rows_in_class_mix(self.drawn_labels, counts)
        self.distance_images = min(len(self.rows_in_mix), len(self.training_features))
        self.block_size = min(len(labels), feature_metrics.MAX_BLOCK_IMAGES, self.distance_images)
        if self.block_size <= feature_metrics.NEIGHBOURS:
            raise DataError(
                f"the hold-out has {len(labels)} images and the training part {len(self.train)}, but recall "
                f"needs more than {feature_metrics.NEIGHBOURS} of each, with the same mix of classes. Hold "
                "out a larger fraction, or add images."
            )
        self.training_features = self.training_features[: self.distance_images]
        self.training_labels = self.training_labels[: self.distance_images]
        self.judge_accuracy = conditional_accuracy(self.heldout.labels, labels, self.classes)
        groups = None
        if self.held_out.groups is not None and len(np.unique(self.held_out.groups)) >= MIN_GROUPS:
            groups = torch.from_numpy(self.held_out.groups)
        random = torch.Generator().manual_seed(self.params.seed)
        # A CSV can be sorted by class: a part of the hold-out is picked from all of it.
        rows = self.shuffled_rows = _shuffled_rows(len(labels), groups, random)
        block_rows = rows_in_class_mix(labels[rows], counts)[: self.block_size]
        if groups is not None:
            block_rows = block_rows.sort().values  # groups stand together
        self.heldout_block = self.heldout.features[rows][block_rows]
        cuts: dict[Source, Tensor] = {
            "heldout": _cuts(len(labels), None if groups is None else groups[rows]),
            "drawn": _cuts(self.distance_images),
            "all drawn": _cuts(len(self.drawn_labels)),
            "training": _cuts(self.distance_images),
        }
        # The order in which these are picked is part of what a seed means.
        self.bins = {
            name: Bins(each, bootstrap_weights(len(each) + 1, random))
            for name, each in cuts.items()
        }
        del cuts["all drawn"]  # whose accuracy has no jackknife
        self.part_weights = {name: bootstrap_weights(JACKKNIFE_PARTS, random) for name in cuts}

    @cached_property
    def heldout_gaussians(self) -> feature_metrics.Gaussians:
        """The moments of the hold-out and its replicates."""
        features = self.heldout.features[self.shuffled_rows]
        return feature_metrics.Gaussians.of(features, self.bins["heldout"])

    @cached_property
    def bias(self) -> Estimates:
        """The judge's memorisation bias; empty where too few are held out."""
        return feature_metrics.memorisation_bias(self)

    @cached_property
    def real(self) -> Estimates:
        """The estimates of real images in place of drawings."""
        of_heldout = accuracies.heldout_accuracies(self, self.heldout.labels)
        return {**of_heldout, **feature_metrics.real_estimates(self)}

    def context(self, generator_digest: str) -> dict[str, Any]:
        """The circumstances that every number depends on, whoever measured it. Two generators' numbers can be
        compared if all of this but `generator_digest` is equal."""
        context = {
            "extractor": "judge, 128 features after ReLU",
            "extractor_digest": digest_of(self.judge.state_dict()),
            "reference": "held-out images",
            "reference_digest": self.held_out.digest,
            "reference_images": len(self.held_out),
            "class_mix": "of the held-out images; accuracies are means over classes",
            "floor": REAL_LESS_BIAS if self.bias else REAL_WITH_BIAS,
            "drawn_images": len(self.drawn_labels),
            "distance_images": self.distance_images,
            "neighbour_images": self.block_size,
            "copies_moved_by": likeness.MAX_SHIFT,
            "seed": self.params.seed,
            "device": next(self.judge.parameters()).device.type,
            "generator_digest": generator_digest,
            "torch": torch.__version__,
        }
        if self.held_out.groups is not None:
            # The same for all numberings of the same groups.
            context["held_out_groups"] = pixels_digest(first_copies(self.held_out.groups))
        return context | {"neighbours": feature_metrics.NEIGHBOURS}


def labels_to_draw(classes: int, params: EvaluateParams, seconds: float = 0.0) -> Tensor:
    """The class of each drawing, int64 [N], the classes in turn: more than `samples` where there are many
    classes, fewer where a drawing takes `seconds` of a core."""
    fewest = MIN_DRAWINGS_PER_CLASS * classes
    count = max(params.samples, fewest)
    if seconds:
        count = min(count, max(fewest, int(MAX_JUDGED_DRAWINGS_S / seconds)))
    return torch.arange(count) % classes


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


def _shuffled_rows(count: int, groups: Tensor | None, random: torch.Generator) -> Tensor:
    """All rows in random order, those of a group together."""
    order = torch.randperm(count, generator=random)
    if groups is None:
        return order
    units = groups[order].unique(return_inverse=True)[1]
    first = torch.full((count,), count).scatter_reduce_(0, units, torch.arange(count), "amin")
    return order[first[units].argsort(stable=True)]


def _cuts(images: int, groups: Tensor | None = None) -> Tensor:
    """The first rows of all bins of so many images but the first one: int64 [bins - 1]. With `groups`
    [images], each bin begins with a group."""
    bins = min(MAX_BINS, images)
    # As `Tensor.tensor_split` does.
    number = torch.arange(1, bins)
    cuts = number * (images // bins) + number.clamp(max=images % bins)
    if groups is None:
        return cuts
    starts = (groups.diff() != 0).nonzero()[:, 0] + 1
    nearest = torch.searchsorted(starts, cuts)
    found: Tensor = starts[nearest[nearest < len(starts)]].unique()
    return found
