"""The conditions under which generators are measured alike, and what is measured under them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cgan.errors import DataError
from cgan.evaluation import METRICS, ClassScores, Evaluation, Score
from cgan.images import Images, IntArray, pixels_digest
from cgan.model.generative import GenerativeModel
from cgan.model.model_file import digest_of
from cgan.params.sections import EvaluateParams
from cgan.quality.accuracies import accuracy_scores, gan_train_score
from cgan.quality.distances import distance_of_training, frechet_estimate
from cgan.quality.diversity import diversity_by_class, diversity_score
from cgan.quality.estimates import Estimate, Estimates
from cgan.quality.evaluation_set import EvaluationSet
from cgan.quality.judge import Judge, Prediction, Progress, predict, silent
from cgan.quality.judge_bias import memorisation_bias, subtract_bias
from cgan.quality.likeness import MAX_SHIFT, NearCopies, copies_score, find_near_copies
from cgan.quality.metrics import (
    NEIGHBOURS,
    Accuracy,
    accuracy_of_guesses,
    conditional_accuracy,
    rows_in_class_mix,
)
from cgan.quality.neighbours import neighbour_estimates, neighbours_of_training
from cgan.text import percent

# What takes the place of drawings in real images' scores, with the judge's memorisation bias known or not.
# These words are part of a run's context: runs are compared by them.
REAL_LESS_BIAS = "training images, less what the judge knows of them by heart"
REAL_WITH_BIAS = (
    "training images; too few are held out to know what the judge knows of them by heart"
)
# Of fewer than 35 drawings, all right would not show that 90 % are (Wilson's interval).
MIN_DRAWINGS_PER_CLASS = 100
# Seconds of a core that drawing what is judged may take; more only for MIN_DRAWINGS_PER_CLASS.
MAX_DRAWING_S = 60.0


@dataclass(frozen=True, eq=False)
class Conditions:
    """The judge, both parts of the data, the classes to draw, and the latents' seed."""

    train: Images
    held_out: Images
    params: EvaluateParams
    evaluation_set: EvaluationSet

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
        drawn_labels = labels_to_draw(train.classes, params, slowest)
        # A CSV can be sorted by class: what takes the drawings' place is picked from all of it.
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(params.seed))
        in_mix = rows_in_class_mix(train.tensors.labels[order], held_out.tensors.counts)
        training = train.at(order[in_mix][: len(drawn_labels)]).tensors
        try:
            evaluation_set = EvaluationSet(
                judge,
                heldout=predict(judge, held_out.tensors.pixels),
                heldout_labels=held_out.tensors.labels,
                training_features=predict(judge, training.pixels).features,
                training_labels=training.labels,
                drawn_labels=drawn_labels,
                seed=params.seed,
                heldout_groups=None
                if held_out.groups is None
                else torch.from_numpy(held_out.groups),
            )
        except ValueError:
            raise DataError(
                f"the hold-out has {len(held_out)} images and the training part {len(train)}, but recall "
                f"needs more than {NEIGHBOURS} of each, with the same mix of classes. Hold out a larger "
                "fraction, or add images."
            ) from None
        return cls(train, held_out, params, evaluation_set)

    @property
    def judge(self) -> Judge:
        return self.evaluation_set.judge

    @property
    def drawn_labels(self) -> Tensor:
        """The class of each drawing, int64 [N]."""
        return self.evaluation_set.drawn_labels

    def context(self, generator_digest: str) -> dict[str, Any]:
        """The circumstances that every number depends on, whoever measured it. Two generators' numbers can be
        compared if all of this but `generator_digest` is equal."""
        bias = self.evaluation_set.compute_once(memorisation_bias)
        context = {
            "extractor": "judge, 128 features after ReLU",
            "extractor_digest": digest_of(self.judge.state_dict()),
            "reference": "held-out images",
            "reference_digest": self.held_out.digest,
            "reference_images": len(self.held_out),
            "class_mix": "of the held-out images; accuracies are means over classes",
            "floor": REAL_LESS_BIAS if bias else REAL_WITH_BIAS,
            "drawn_images": len(self.drawn_labels),
            "distance_images": self.evaluation_set.distance_images,
            "neighbour_images": self.evaluation_set.block_size,
            "copies_moved_by": MAX_SHIFT,
            "seed": self.params.seed,
            "device": next(self.judge.parameters()).device.type,
            "generator_digest": generator_digest,
            "torch": torch.__version__,
        }
        if self.held_out.groups is not None:
            context["held_out_groups"] = _partition_digest(self.held_out.groups)
        return context

    def measure(
        self, drawn: Tensor, progress: Progress = silent, prediction: Prediction | None = None
    ) -> Evaluation:
        """Evaluate drawings, uint8 [N, C, H, W] of the classes `drawn_labels`, beside real images;
        `prediction`: the judge's for them, where it is known.

        Where the judge may be no better than one that guesses, what is seen through it has no value, and
        `not_measurable` says why.
        """
        evaluation_set, labels = self.evaluation_set, self.drawn_labels
        prediction = prediction or predict(self.judge, drawn)
        accuracy = conditional_accuracy(prediction.labels, labels, evaluation_set.classes)
        diversities = diversity_by_class(drawn, labels, self.train)
        near_copies = find_near_copies(drawn, labels, self.train, self.held_out, self.params.seed)
        through_judge = self._through_judge(prediction, accuracy)
        metrics = diversity_score(diversities) | {"copies": copies_score(near_copies)}
        reason = _why_not_measurable(evaluation_set)
        if reason:
            # The judge's own accuracy, on real images, stays.
            metrics["conditional_accuracy"] = replace(
                through_judge["conditional_accuracy"], value=None, interval=None, replicates=()
            )
        else:
            metrics |= through_judge
            if self.params.gan_train_kimg != 0:
                metrics["gan_train_accuracy"] = gan_train_score(
                    evaluation_set, drawn, self.held_out, self.params.gan_train_kimg, progress
                )
        return Evaluation(
            metrics={key: metrics[key] for key in METRICS if key in metrics},
            classes=self._classes(None if reason else accuracy, diversities, near_copies),
            confusion=accuracy.confusion.tolist(),
            not_measurable=reason,
            class_names=self.train.class_names if self.train.is_named else None,
        )

    def _through_judge(self, prediction: Prediction, accuracy: Accuracy) -> dict[str, Score]:
        """The metrics that depend on the judge, by its prediction for the drawings."""
        evaluation_set = self.evaluation_set
        features = prediction.features[evaluation_set.rows_in_mix]
        estimates = {
            "fid_judge": frechet_estimate(evaluation_set, features, "drawn"),
            **neighbour_estimates(evaluation_set, features, "drawn"),
        }
        real = evaluation_set.compute_once(scores_of_real)
        scores = {key: estimate.score(key, real[key]) for key, estimate in estimates.items()}
        return accuracy_scores(evaluation_set, prediction.labels, accuracy) | scores

    def _classes(
        self,
        accuracy: Accuracy | None,
        diversities: Sequence[Estimate | None],
        near_copies: NearCopies,
    ) -> list[ClassScores]:
        """Each class by itself."""
        real_accuracy = self.evaluation_set.judge_accuracy
        copied, compared = near_copies.by_class(self.evaluation_set.classes)
        classes = []
        for label, held_out in enumerate(self.evaluation_set.heldout_counts.tolist()):
            diversity = diversities[label]
            row = ClassScores(
                heldout=held_out,
                accuracy=accuracy.by_class[label] if accuracy else None,
                accuracy_interval=accuracy.interval_by_class[label] if accuracy else None,
                real_accuracy=real_accuracy.by_class[label],
                diversity=diversity.value if diversity else None,
                diversity_interval=diversity.interval if diversity else None,
                copies=copied[label],
                compared=compared[label],
            )
            classes.append(row)
        return classes


def scores_of_real(evaluation_set: EvaluationSet) -> Estimates:
    """What real images get in place of drawings that the judge has not seen, of distance and neighbours."""
    training = {
        "fid_judge": distance_of_training(evaluation_set),
        **neighbours_of_training(evaluation_set),
    }
    return subtract_bias(training, evaluation_set.compute_once(memorisation_bias))


def labels_to_draw(classes: int, params: EvaluateParams, seconds: float = 0.0) -> Tensor:
    """The class of each drawing, int64 [N], the classes in turn: more than `samples` where there are many
    classes, fewer where a drawing takes `seconds` of a core."""
    fewest = MIN_DRAWINGS_PER_CLASS * classes
    count = max(params.samples, fewest)
    if seconds:
        count = min(count, max(fewest, int(MAX_DRAWING_S / seconds)))
    return torch.arange(count) % classes


def _partition_digest(groups: IntArray) -> str:
    """The same for all numberings of the same groups."""
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    return pixels_digest(first[group].astype(np.int64))


def _why_not_measurable(evaluation_set: EvaluationSet) -> str:
    accuracy = evaluation_set.judge_accuracy.value
    guesses = accuracy_of_guesses(
        evaluation_set.heldout.labels, evaluation_set.heldout_labels, evaluation_set.classes
    )
    if accuracy > guesses + 1e-9:
        return ""
    return (
        f"the judge classifies {percent(accuracy)} of the held-out images correctly (mean over the "
        f"classes), and answers that have nothing to do with the images get up to {percent(guesses)}"
    )
