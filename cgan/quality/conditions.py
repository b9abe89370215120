"""Conditions under which generators are measured alike: judge, hold-out, latents, labels and class mix.

Sets are compared at the mix of the held-out images, for drawings, held-out and training images alike;
accuracies are means over classes.

Drawings, held-out and training images are resampled in up to MAX_BINS bins of consecutive rows, not image by
image; held-out images of a group are in one bin where there are MIN_GROUPS or more. So an interval covers the
noise of *which* latents and *which* real images a metric was measured with.

What real images get is what those get that the judge has not seen. None are left for that, so training images
take the drawings' place, and the judge's memorisation bias is taken off: how they differ from held-out
images, when both are set beside other held-out ones. Its noise is part of the score's interval.
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
from cgan.data.arrays import first_occurrences, pixels_digest
from cgan.data.images import Images
from cgan.models.generative import GenerativeModel
from cgan.models.model_file import digest_of
from cgan.models.parallel import available_threads, parts_on_threads
from cgan.params.sections import EvaluateParams
from cgan.quality import feature_metrics, intervals
from cgan.quality.accuracies import accuracy_estimates
from cgan.quality.feature_metrics import FEATURE_METRICS, Gaussians
from cgan.quality.intervals import JACKKNIFE_PARTS, Bins, Estimate, Estimates, bootstrap_weights
from cgan.quality.judge import Accuracy, Judge, Prediction, accuracy_of_predictions, predict
from cgan.quality.likeness import MAX_SHIFT

# Of fewer than 35 drawings, all right would not show that 90 % are (Wilson's interval).
MIN_DRAWINGS_PER_CLASS = 100
# Seconds of a core that drawing what is judged may take; more only for MIN_DRAWINGS_PER_CLASS.
MAX_JUDGED_DRAWINGS_S = 60.0
MAX_BINS = 200
MIN_GROUPS = 10  # held out; fewer don't show how they vary, and one would have no noise at all
MAX_BLOCKS = 20  # of drawings, whose mean recall and coverage are taken
HOLDOUT_SPLITS = 8  # into halves, each of which is set beside the other
MIN_HALF_IMAGES = 50

Source = Literal["held out", "drawn", "all drawn", "training"]
"""Where images come from: the drawings that have the hold-out's class mix, or all of them. Training images
take the drawings' place in real images' scores."""


@dataclass(eq=False)
class Conditions:
    """The judge, both parts of the data, the classes to draw, and how all of it is resampled.

    `held_out_prediction`: the judge's. `training_features` [M, 128] and `training_labels` [M] of training
    images, in the hold-out's class mix. `drawn_labels`: the class of each drawing, int64 [N], about equally
    many of each; `rows_in_mix`, those that have the hold-out's class mix.

    Distances compare the first `distance_images` of these, or of the training images, with the hold-out;
    neighbours are looked for among the `block_size` real images of `held_out_block`. `bins` and
    `part_weights` say how each source is resampled, by the bootstrap and by the jackknife, whose parts are of
    equal size: a cut may divide a group.

    Raises DataError where there are too few images for recall.
    """

    judge: Judge
    train: Images
    held_out: Images
    params: EvaluateParams
    held_out_prediction: Prediction
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
        pixels, labels, _ = train.at(order[in_mix][: len(drawn_labels)]).tensors
        seen, unseen = (predict(judge, each) for each in (pixels, held_out.tensors.pixels))
        return cls(judge, train, held_out, params, unseen, seen.features, labels, drawn_labels)

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
        judged = self.held_out_prediction
        self.judge_accuracy: Accuracy = accuracy_of_predictions(judged.labels, labels, self.classes)
        random = torch.Generator().manual_seed(self.params.seed)
        # A CSV can be sorted by class: a part of the hold-out is picked from all of it.
        rows = torch.randperm(len(labels), generator=random)
        groups, group_of = self.held_out.groups, None
        if groups is not None and len(np.unique(groups)) >= MIN_GROUPS:
            firsts = first_occurrences(groups[rows.numpy()])
            rows = rows[torch.from_numpy(firsts).argsort(stable=True)]  # groups stand together
            group_of = torch.from_numpy(groups)[rows]
        self.shuffled_rows = rows
        block_rows = rows_in_class_mix(labels[rows], counts)[: self.block_size]
        if group_of is not None:
            block_rows = block_rows.sort().values
        self.held_out_block = judged.features[rows][block_rows]
        # The order in which these are picked is part of what a seed means.
        self.bins: dict[Source, Bins] = {
            "held out": _bins(random, len(labels), group_of),
            "drawn": _bins(random, self.distance_images),
            "all drawn": _bins(random, len(self.drawn_labels)),
            "training": _bins(random, self.distance_images),
        }
        self.part_weights: dict[Source, Tensor] = {
            name: bootstrap_weights(JACKKNIFE_PARTS, random)
            for name in ("held out", "drawn", "training")
        }

    def held_out_accuracies(self, predicted: Tensor) -> Estimates:
        """The accuracies of a classifier that predicts these classes, int64 [held-out images]."""
        rows = self.shuffled_rows
        labels = self.held_out.tensors.labels[rows]
        return accuracy_estimates(predicted[rows] == labels, labels, self.bins["held out"])

    def feature_estimates(self, features: Tensor, source: Source) -> Estimates:
        """The FEATURE_METRICS of features in the hold-out's class mix, beside the hold-out.

        Recall and coverage are the mean over several blocks of as many drawings as real images. Their
        replicates have the variance of the jackknife, which leaves out one of JACKKNIFE_PARTS of either side
        (of the drawings, of one block): an image that is picked twice would be its own neighbour.
        """
        drawn = Gaussians.fit(features[: self.distance_images], self.bins[source])
        estimates = {feature_metrics.FRECHET_DISTANCE.key: self.held_out_gaussians.distance(drawn)}
        real = self.held_out_block
        count = len(real)
        blocks = [block for block in features.split(count)[:MAX_BLOCKS] if len(block) == count]
        # Of consecutive rows, for these come class by class in turn: every tenth one could be of one class.
        rests = [
            torch.ones(count, dtype=torch.bool).index_fill(0, part, False)
            for part in torch.arange(count).tensor_split(JACKKNIFE_PARTS)
        ]
        values = feature_metrics.mean_shares(real, blocks).tolist()
        without_real = [feature_metrics.mean_shares(real[rest], blocks[:2]) for rest in rests]
        without_drawn = [feature_metrics.mean_shares(real, [blocks[0][rest]]) for rest in rests]
        parts = (torch.stack(each, dim=1) for each in (without_real, without_drawn))
        shares = feature_metrics.RECALL, feature_metrics.COVERAGE
        for metric, value, of_real, of_drawn in zip(shares, values, *parts, strict=True):
            replicates = intervals.jackknife_replicates(
                (self.part_weights["held out"], of_real),
                (self.part_weights[source], of_drawn / math.sqrt(len(blocks))),
            )
            if not replicates.std() > 0:
                replicates = intervals.wilson_replicates(value, count)
            estimates[metric.key] = Estimate.centred(value, replicates)
        return estimates

    @cached_property
    def held_out_gaussians(self) -> Gaussians:
        """The moments of the hold-out and its replicates."""
        features = self.held_out_prediction.features[self.shuffled_rows]
        return Gaussians.fit(features, self.bins["held out"])

    @cached_property
    def real(self) -> Estimates:
        """The estimates of real images in place of drawings."""
        estimates = dict(self.held_out_accuracies(self.held_out_prediction.labels))
        for key, found in self.feature_estimates(self.training_features, "training").items():
            estimates[key] = found - self.bias[key] if self.bias else found
        return estimates

    @cached_property
    def bias(self) -> Estimates:
        """The judge's memorisation bias: the excess of training images over as many held-out ones, class by
        class, beside other held-out ones; the mean over HOLDOUT_SPLITS, in either direction. Empty where the
        hold-out, or the training images of a class, are too few."""
        random = torch.Generator().manual_seed(self.params.seed)
        held_out = self.held_out_prediction.features
        training = self.training_features
        labels = self.held_out.tensors.labels
        sets = []
        for _ in range(HOLDOUT_SPLITS):
            rows = torch.randperm(len(labels), generator=random)
            rows = rows[labels[rows].argsort(stable=True)]
            # Every second row of each class; of an odd count, the last row is left out.
            halves = rows[0::2][: len(rows) // 2], rows[1::2]
            order = torch.randperm(len(training), generator=random)
            for reference, others in (halves, halves[::-1]):
                counts = torch.bincount(labels[others], minlength=self.classes).tolist()
                of_order = self.training_labels[order]
                picked = torch.cat([order[of_order == n][:count] for n, count in enumerate(counts)])
                if not MIN_HALF_IMAGES <= len(others) == len(picked):
                    return {}
                mixed = torch.randperm(len(others), generator=random)  # all were sorted by class
                sets.append(
                    (held_out[reference[mixed]], training[picked[mixed]], held_out[others[mixed]])
                )
                order = order.flip(0)  # the other direction has other training images
        with parts_on_threads(available_threads()) as parallel:
            measured = parallel(lambda features: feature_metrics.memorisation_bias(*features), sets)
            excesses = torch.stack(list(measured), dim=1)
        replicates = len(self.part_weights["held out"])
        picks = torch.randint(len(sets), (replicates,), generator=random)
        deviation = feature_metrics.deviation_of_mean(len(sets), len(sets[0][1]) / len(training))
        return {
            key: Estimate.centred(values.mean().item(), deviation * values[picks])
            for key, values in zip(FEATURE_METRICS, excesses, strict=True)
        }

    def context(self, generator_digest: str) -> dict[str, Any]:
        """The circumstances that every number depends on, whoever measured it. `compare` says which of them
        may differ."""
        real_score = "training images, less what the judge knows of them by heart"
        if not self.bias:
            real_score = "training images; too few are held out to know what the judge knows of them by heart"
        context = {
            "extractor": "judge, 128 features after ReLU",
            "extractor_digest": digest_of(self.judge.state_dict()),
            "reference": "held-out images",
            "reference_digest": self.held_out.digest,
            "reference_images": len(self.held_out),
            "class_mix": "of the held-out images; accuracies are means over classes",
            "real_score": real_score,
            "drawn_images": len(self.drawn_labels),
            "distance_images": self.distance_images,
            "neighbour_images": self.block_size,
            "copies_moved_by": MAX_SHIFT,
            "seed": self.params.seed,
            "device": next(self.judge.parameters()).device.type,
            "generator_digest": generator_digest,
            "torch": torch.__version__,
        }
        if self.held_out.groups is not None:
            # The same for all numberings of the same groups.
            context["held_out_groups"] = pixels_digest(first_occurrences(self.held_out.groups))
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
    # The first `counts` images of a class are spread evenly over 0 to 1.
    position = torch.full((len(labels),), math.inf, dtype=torch.float64)
    for label, count in enumerate(counts.tolist()):
        members = (labels == label).nonzero()[:count, 0]
        position[members] = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    rows = position.isfinite().nonzero()[:, 0]
    return rows[position[rows].argsort(stable=True)]


def _bins(random: torch.Generator, images: int, group_of: Tensor | None = None) -> Bins:
    """Bins of so many images, picked in replicates; with `group_of` [images], each begins with a group."""
    parts = torch.arange(images).tensor_split(min(MAX_BINS, images))
    cuts = torch.stack([rows[0] for rows in parts])[1:]
    if group_of is not None:
        starts = (group_of.diff() != 0).nonzero()[:, 0] + 1
        nearest = torch.searchsorted(starts, cuts)
        cuts = starts[nearest[nearest < len(starts)]].unique()
    return Bins(cuts, bootstrap_weights(len(cuts) + 1, random))
