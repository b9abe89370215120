"""The conditions under which generators are measured alike, and what is measured under them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from cgan.errors import DataError
from cgan.evaluation import METRICS, ClassScores, Evaluation, Score
from cgan.images import Images
from cgan.model.generative import GenerativeModel
from cgan.model.model_file import digest_of
from cgan.params.sections import EvaluateParams
from cgan.quality.accuracies import accuracy_of_all, accuracy_scores, gan_train_score, proportion
from cgan.quality.distances import (
    distance_scores,
    distances_by_class,
    distances_of_training,
    excess_interval,
    training_distances_by_class,
    variance_by_class,
)
from cgan.quality.diversity import diversity_by_class, diversity_score
from cgan.quality.estimates import Estimate
from cgan.quality.evaluation_set import EvaluationSet
from cgan.quality.judge import Judge, Prediction, Progress, look, silent
from cgan.quality.likeness import MAX_SHIFT, Replicas, copies_score, find_replicas
from cgan.quality.memorisation import memorisation_bias, unbiased
from cgan.quality.metrics import NEIGHBOURS, Accuracy, accuracy_of_guesses, in_mix
from cgan.quality.neighbours import neighbour_scores, neighbours_of_training
from cgan.text import percent

# What takes the place of drawings in real images' scores. Runs are compared by these words.
REAL_IMAGES = (
    "training images; too few are held out to know what the judge knows of them by heart",
    "training images, less what the judge knows of them by heart",
)
LEAST_PER_CLASS = 100  # drawings: of less than 35, all right would not show that 90 % are
# Seconds of a core, which the drawings to be judged take; longer only for LEAST_PER_CLASS of them.
DRAWN_S = 60.0


@dataclass(frozen=True, eq=False)
class Conditions:
    """The judge, both parts of the data, the classes asked for, and the latents' seed."""

    train: Images
    held_out: Images
    params: EvaluateParams
    against: EvaluationSet

    @classmethod
    def of(
        cls,
        judge: Judge,
        train: Images,
        held_out: Images,
        params: EvaluateParams,
        models: Sequence[GenerativeModel],
    ) -> Conditions:
        """The conditions for these generators. Raises DataError where there are too few images."""
        slowest = max(model.seconds_per_drawing for model in models)
        asked = classes_asked(train.classes, params, slowest)
        # A CSV can be sorted by class: what takes the drawings' place is picked from all of it.
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(params.seed))
        alike = in_mix(train.tensors.labels[order], held_out.tensors.counts)
        trained = train.at(order[alike][: len(asked)]).tensors
        pixels, labels, _ = held_out.tensors
        features, real = look(judge, trained.pixels).features, look(judge, pixels)
        try:
            against = EvaluationSet(
                judge, real, labels, features, trained.labels, asked, params.seed
            )
        except ValueError:
            raise DataError(
                f"the hold-out has {len(held_out)} images and the training part {len(train)}, but precision "
                f"and recall need more than {NEIGHBOURS} of each, with the same mix of classes. Hold "
                "out a larger fraction, or add images."
            ) from None
        return cls(train, held_out, params, against)

    @property
    def judge(self) -> Judge:
        return self.against.judge

    @property
    def asked(self) -> Tensor:
        """The class of each drawing, int64 [N]."""
        return self.against.asked

    def context(self, generator_digest: str) -> dict[str, Any]:
        """What every number depends on, whoever measured it. Two generators' numbers can be compared if
        all of this but `generator_digest` is equal."""
        return {
            "extractor": "judge, 128 features after ReLU",
            "extractor_digest": digest_of(self.judge.state_dict()),
            "reference": "held-out images",
            "reference_digest": self.held_out.digest,
            "reference_images": len(self.held_out),
            "class_mix": "of the held-out images; accuracies are means over classes",
            "floor": REAL_IMAGES[bool(self.against.once(memorisation_bias))],
            "drawn_images": len(self.asked),
            "distance_images": self.against.distance_images,
            "neighbour_images": self.against.block_images,
            "copies_moved_by": MAX_SHIFT,
            "seed": self.params.seed,
            "device": next(self.judge.parameters()).device.type,
            "generator_digest": generator_digest,
            "torch": torch.__version__,
        }

    def measure(
        self,
        draws: Sequence[Tensor],
        progress: Progress = silent,
        predictions: Sequence[Prediction] = (),
    ) -> Evaluation:
        """Drawings (uint8 [N, C, H, W] each, of the classes `asked`) beside real images; `predictions`: the
        judge's of these drawings, where they are known.

        With several draws a metric is their mean. Where the judge may be no better than one that guesses,
        what is seen through it has no value, and `not_measurable` says why.
        """
        against, training, first = self.against, self.train, draws[0]
        steps = progress("judging", range(len(draws)), len(self.asked))
        drawn = [predictions[n] if predictions else look(self.judge, draws[n]) for n in steps]
        through_judge = self._through_judge(drawn)
        diversities = diversity_by_class(first, self.asked, training)
        replicas = find_replicas(first, self.asked, training, self.held_out, self.params.seed)
        metrics = through_judge | diversity_score(diversities)
        metrics["copies"] = copies_score(replicas, proportion(against, replicas.is_replica))
        accuracy = accuracy_of_all(against, drawn)
        classes = self._classes(accuracy, drawn[0], diversities, replicas)
        reason = _why_not_measurable(against)
        if reason:
            metrics |= dict.fromkeys(through_judge, Score())
            real = through_judge["conditional_accuracy"]  # the judge's own accuracy stays
            metrics["conditional_accuracy"] = replace(
                real, value=None, interval=None, replicates=()
            )
            classes = [
                replace(
                    row, accuracy=None, accuracy_interval=None, distance=None, excess_interval=None
                )
                for row in classes
            ]
        elif self.params.gan_train_kimg != 0:
            metrics["gan_train_accuracy"] = gan_train_score(
                against, first, self.held_out, self.params.gan_train_kimg, progress
            )
        return Evaluation(
            metrics={key: metrics[key] for key in METRICS if key in metrics},
            classes=classes,
            confusion=accuracy.confusion.tolist(),
            not_measurable=reason,
            class_names=training.class_names if training.is_named else None,
        )

    def _through_judge(self, draws: Sequence[Prediction]) -> dict[str, Score]:
        """The metrics that depend on what the judge sees."""
        against = self.against
        features, bias = (
            [each.features[against.rows] for each in draws],
            against.once(memorisation_bias),
        )
        distances, neighbours = (
            unbiased(against.once(of_training), bias)
            for of_training in (distances_of_training, neighbours_of_training)
        )
        return {
            **accuracy_scores(against, draws),
            **distance_scores(against, features, distances),
            **neighbour_scores(against, features, neighbours),
        }

    def _classes(
        self,
        accuracy: Accuracy,
        drawn: Prediction,
        diversities: Sequence[Estimate | None],
        replicas: Replicas,
    ) -> list[ClassScores]:
        """Each class by itself. `drawn`: the first set of drawings."""
        against, rows = self.against, self.against.rows
        distances = distances_by_class(against, drawn.features[rows], self.asked[rows], "drawn")
        real_distances = against.once(training_distances_by_class)
        variances, agreement = against.once(variance_by_class), against.agreement
        copied, compared = replicas.by_class(against.classes)
        classes = []
        for label, held_out in enumerate(against.held.tolist()):
            distance, real, diversity = distances[label], real_distances[label], diversities[label]
            row = ClassScores(
                heldout=held_out,
                accuracy=accuracy.by_class[label],
                accuracy_interval=accuracy.interval_by_class[label],
                real_accuracy=agreement.by_class[label],
                real_accuracy_interval=agreement.interval_by_class[label],
                distance=_value(distance),
                real_distance=_value(real),
                excess_interval=excess_interval(distance, real, variances[label]),
                diversity=_value(diversity),
                diversity_interval=diversity.interval if diversity else None,
                diversity_replicates=diversity.deviations if diversity else (),
                copies=copied[label],
                compared=compared[label],
            )
            classes.append(row)
        return classes


def classes_asked(classes: int, params: EvaluateParams, seconds: float = 0.0) -> Tensor:
    """The class of each drawing, int64 [N]: in turn; more than `samples` where there are many classes, fewer
    where one takes `seconds`."""
    least = LEAST_PER_CLASS * classes
    count = max(params.samples, least)
    if seconds:
        count = min(count, max(least, int(DRAWN_S / seconds)))
    return torch.arange(count) % classes


def _value(estimate: Estimate | None) -> float | None:
    return estimate.value if estimate else None


def _why_not_measurable(against: EvaluationSet) -> str:
    agreement = against.agreement.value
    guesses = accuracy_of_guesses(against.real.classes, against.labels, against.classes)
    if agreement > guesses + 1e-9:
        return ""
    return (
        f"the judge classifies {percent(agreement)} of the held-out images correctly (mean over the "
        f"classes), and answers that have nothing to do with the images get up to {percent(guesses)}"
    )
