"""A generator judged: one evaluation, for the stage `evaluate` and for `cgan gate`.

The gate judges the first of the stage's sets of drawings (equal latents, classes and counts), with the
same judge and hold-out, by the same functions (`quality.comparison`).
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cgan.errors import DataError, percent
from cgan.evaluation import ClassScores, Evaluation, Interval, Score
from cgan.images import Images, image_digests, load_images
from cgan.metric import METRICS
from cgan.model.file_facts import Facts
from cgan.model.generative import GenerativeModel
from cgan.model.hardware import choose_hardware, find_device
from cgan.model.model_file import load_generator
from cgan.params.sections import EvaluateParams, JudgeParams
from cgan.project import GENERATOR, HOLDOUT_DATA, JUDGE, TEST_DATA, TRAIN_DATA
from cgan.quality.comparison import Estimate, EvaluationSet, Judged
from cgan.quality.diversity import diversity_by_class
from cgan.quality.intervals import share
from cgan.quality.judge import Judge, Progress, accuracy, load_judge, look, silent, train_judge
from cgan.quality.likeness import MAX_SHIFT, near_copies
from cgan.quality.metrics import (
    NEIGHBOURS,
    accuracy_of,
    accuracy_of_guesses,
    conditional_accuracy,
    in_mix,
)

KNOWN_BY_HEART = (
    "training images; too few are held out to know what the judge knows of them by heart",
    "training images, less what the judge knows of them by heart",
)
LEAST_PER_CLASS = 100  # drawings: of less than 35, all right would not show that 90 % are
DRAWN_S = (
    60.0  # of a core, which the drawings to be judged take; longer only for LEAST_PER_CLASS of them
)


@dataclass(frozen=True)
class Inputs:
    """What the stages left in the project: generator, judge and both parts of the data, of one origin."""

    model: GenerativeModel
    facts: Facts
    judge: Judge
    judge_facts: Facts
    training: Images
    heldout: Images
    device: torch.device
    test: Images | None = None  # the source's own test set, which nothing else here looks at

    @classmethod
    def load(cls, device: str = "auto") -> Inputs:
        """With both models on the device that `train.device` names. Raises DataError or ModelError for a
        file that is absent or damaged, and where generator, judge and hold-out were not made from this
        training part, and from one split: then every number would be of something else, and none of them
        would show it."""
        model, facts = load_generator(GENERATOR)
        judge, judge_facts = load_judge(JUDGE)
        training, heldout = load_images(TRAIN_DATA), load_images(HOLDOUT_DATA)

        def begin(facts: Facts, key: str) -> str:
            return str(facts.get(key))[:12]

        digest, source = training.digest[:12], training.source_sha256[:12]
        kind, its_kind = ((part.classes, *part.shape) for part in (training, heldout))
        images = "made of other images (classes, channels, height, width)"
        for path, what, expected, actual in (
            (GENERATOR, "trained on other data", digest, begin(facts, "data_digest")),
            (JUDGE, "trained on other data", digest, begin(judge_facts, "data_digest")),
            (HOLDOUT_DATA, "made from other data", source, heldout.source_sha256[:12]),
            (HOLDOUT_DATA, images, kind, its_kind),
        ):
            if actual != expected:
                raise DataError(
                    f"{path}: {what} than {TRAIN_DATA}: expected {expected}, found {actual}. "
                    "Run `dvc repro`, or restore all files with `dvc checkout`."
                )
        held, trained = (image_digests(part.pixels) for part in (heldout, training))
        if shared := int(np.isin(held, trained).sum()):
            raise DataError(
                f"{HOLDOUT_DATA}: {shared:,} of its {len(heldout):,} images are also in {TRAIN_DATA}, "
                "expected none: they come from different splits (`preprocess.seed` or "
                "`preprocess.holdout_fraction` changed). Make both again: `dvc repro --force preprocess`, "
                "then `dvc repro`."
            )
        found = find_device(device, "`train.device`")
        model, judge = model.to(found), judge.to(found)
        test = load_images(TEST_DATA) if TEST_DATA.is_file() else None
        return cls(model, facts, judge, judge_facts, training, heldout, found, test)


def evaluation_set_of(
    inputs: Inputs, params: EvaluateParams, former: GenerativeModel | None = None
) -> EvaluationSet:
    """The conditions under which generators are judged, by the gate and by the stage evaluate. `former`:
    another generator that is judged, too.

    Raises DataError where there are too few images.
    """
    training, heldout = inputs.training, inputs.heldout
    seconds = max(model.seconds_per_drawing for model in (inputs.model, former) if model)
    asked = classes_asked(training.classes, params, seconds)
    # A CSV can be sorted by class: what takes the drawings' place is picked from all of it.
    order = torch.randperm(len(training), generator=torch.Generator().manual_seed(params.seed))
    alike = in_mix(training.tensors.labels[order], heldout.tensors.counts)
    trained = training.at(order[alike][: len(asked)]).tensors
    judge, (pixels, labels, _) = inputs.judge, heldout.tensors
    features, real = look(judge, trained.pixels).features, look(judge, pixels)
    try:
        return EvaluationSet(judge, real, labels, features, trained.labels, asked, params.seed)
    except ValueError:
        raise DataError(
            f"the hold-out has {len(heldout)} images and the training part {len(training)}, but precision "
            f"and recall need more than {NEIGHBOURS} of each, with the same mix of classes. Raise "
            "`preprocess.holdout_fraction`, or add images."
        ) from None


def measurement_context(
    inputs: Inputs, params: EvaluateParams, evaluation_set: EvaluationSet
) -> dict[str, Any]:
    """What every number depends on, whoever measured it. Two generators' numbers can be compared if
    all of this but `generator_digest` is equal."""
    return {
        "extractor": "judge, 128 features after ReLU",
        "extractor_digest": inputs.judge_facts["digest"],
        "reference": "held-out images",
        "reference_digest": inputs.heldout.digest,
        "reference_images": len(inputs.heldout),
        "class_mix": "of the held-out images; accuracies are means over classes",
        "floor": KNOWN_BY_HEART[bool(evaluation_set.by_heart)],
        "drawn_images": len(evaluation_set.asked),
        "distance_images": evaluation_set.distance_images,
        "neighbour_images": evaluation_set.block_images,
        "copies_moved_by": MAX_SHIFT,
        "seed": params.seed,
        "device": inputs.device.type,
        "generator_digest": inputs.facts["digest"],
        "torch": torch.__version__,
    }


def classes_asked(classes: int, params: EvaluateParams, seconds: float = 0.0) -> Tensor:
    """The class of each drawing, int64 [N]: in turn; more than `samples` where there are many classes, fewer
    where one takes `seconds`."""
    least = LEAST_PER_CLASS * classes
    count = max(params.samples, least)
    if seconds:
        count = min(count, max(least, int(DRAWN_S / seconds)))
    return torch.arange(count) % classes


def judge_generator(
    inputs: Inputs, params: EvaluateParams, progress: Progress = silent
) -> Evaluation:
    """The report on the trained generator, its measurement context included."""
    labels = classes_asked(inputs.training.classes, params, inputs.model.seconds_per_drawing)
    draws = [
        inputs.model.draw(labels, params.seed + n)
        for n in progress("drawing", range(params.draws), len(labels))
    ]
    evaluation_set = evaluation_set_of(inputs, params)
    evaluation = measured(inputs, params, evaluation_set, draws, progress)
    context = measurement_context(inputs, params, evaluation_set)
    return replace(
        evaluation,
        context=context | {"draws": params.draws, "neighbours": NEIGHBOURS},
        class_names=inputs.training.class_names if inputs.training.is_named else None,
        judge_on_test_set=_on_test_set(inputs),
    )


def _on_test_set(inputs: Inputs) -> Score | None:
    """How often the judge is right there; None without images."""
    if not inputs.test:
        return None
    right = accuracy(inputs.judge, inputs.test)
    details = {"images": len(inputs.test)}
    return Score(value=right.value, interval=right.interval, details=details)


def measured(
    inputs: Inputs,
    params: EvaluateParams,
    evaluation_set: EvaluationSet,
    draws: list[Tensor],
    progress: Progress = silent,
) -> Evaluation:
    """Drawings (uint8 [N, C, H, W] each, of the classes that the set asks for) beside real images.

    With several draws a metric is their mean. Where the judge may be no better than one that guesses, what is
    seen through it has no value, and `not_measurable` says why.
    """
    training, heldout, labels = inputs.training, inputs.heldout, evaluation_set.asked
    agreement, of_real = evaluation_set.agreement, evaluation_set.of_real
    judged = [
        evaluation_set.judge_drawings(draws[n])
        for n in progress("judging", range(len(draws)), len(labels))
    ]
    metrics = {
        key: _score(key, Estimate.mean([each.metrics[key] for each in judged]), real.value)
        for key, real in of_real.metrics.items()
    }
    accuracy = accuracy_of(torch.stack([each.accuracy.confusion for each in judged]).sum(dim=0))
    metrics["conditional_accuracy"] = replace(
        metrics["conditional_accuracy"],
        interval=accuracy.interval,
        real_interval=agreement.interval,
        details={"constant": 1 / training.classes},
    )
    # Without an interval: it is the smallest of many, and that of a single class would lie too low.
    metrics["worst_class_accuracy"] = replace(metrics["worst_class_accuracy"], interval=None)
    distances = [each.metrics["fid_judge"].value for each in judged]
    deviation = statistics.stdev(distances) if len(distances) > 1 else 0.0
    metrics["fid_judge"] = replace(metrics["fid_judge"], details={"deviation": deviation})
    through_judge = [*metrics]
    diverse = diversity_by_class(draws[0], labels, training)
    if known := [estimate for estimate in diverse if estimate]:
        metrics["worst_class_diversity"] = _least_diverse(known)
    near = near_copies(draws[0], labels, training, heldout, params.seed)
    closer = evaluation_set.share(near.closer)
    metrics["copies"] = replace(
        _score("copies", closer, near.real),
        interval=share(closer.value, len(near.closer)),
        details={"heldout_nearest_median": near.heldout_median},
    )
    classes = [
        ClassScores(
            heldout=count,
            accuracy=accuracy.by_class[label],
            accuracy_interval=accuracy.interval_by_class[label],
            real_accuracy=agreement.by_class[label],
            real_accuracy_interval=agreement.interval_by_class[label],
            distance=_value(judged[0].distance_by_class[label]),
            real_distance=_value(of_real.distance_by_class[label]),
            excess_interval=excess_interval(judged[0], evaluation_set, label),
            diversity=_value(diversity),
            diversity_interval=diversity.interval if diversity else None,
        )
        for label, (count, diversity) in enumerate(
            zip(evaluation_set.held.tolist(), diverse, strict=True)
        )
    ]
    reason = _why_not_measurable(evaluation_set)
    if reason:
        real = metrics["conditional_accuracy"]  # the judge's own accuracy stays
        metrics |= dict.fromkeys(through_judge, Score())
        metrics["conditional_accuracy"] = replace(real, value=None, interval=None, replicates=())
        classes = [
            replace(row, accuracy=None, accuracy_interval=None, distance=None, excess_interval=None)
            for row in classes
        ]
    elif params.gan_train_kimg != 0:
        rows = evaluation_set.rows
        student = gan_train(draws[0][rows], labels[rows], inputs, params.gan_train_kimg, progress)
        predicted = look(student, heldout.tensors.pixels).classes
        mean = evaluation_set.of_heldout(predicted)["conditional_accuracy"]
        metrics["gan_train_accuracy"] = replace(
            _score("gan_train_accuracy", mean, agreement.value),
            interval=conditional_accuracy(
                predicted, heldout.tensors.labels, training.classes
            ).interval,
            real_interval=agreement.interval,
        )
    return Evaluation(
        metrics={key: metrics[key] for key in METRICS if key in metrics},
        classes=classes,
        confusion=accuracy.confusion.tolist(),
        not_measurable=reason,
    )


def _score(key: str, estimate: Estimate, real: float) -> Score:
    replicates = estimate.replicates - estimate.replicates.mean()
    return Score(
        value=estimate.value,
        real=real,
        interval=METRICS[key].bounded(estimate.interval),
        replicates=tuple(round(value, 5) for value in replicates.tolist()),
    )


def _value(estimate: Estimate | None) -> float | None:
    return estimate.value if estimate else None


def _least_diverse(estimates: Sequence[Estimate]) -> Score:
    """The diversity of the class that has least; without an interval, as it is the smallest of many."""
    replicates = torch.stack([estimate.replicates for estimate in estimates])
    values = torch.tensor([estimate.value for estimate in estimates], dtype=torch.float64)
    least = Estimate.of(values.min().item(), replicates.amin(dim=0))
    # Where every class is as diverse as real images, the noise of many makes one of them less so.
    real = (replicates / values[:, None]).amin(dim=0).mean().item()
    return replace(_score("worst_class_diversity", least, real), interval=None)


def _why_not_measurable(evaluation_set: EvaluationSet) -> str:
    agreement, classes = evaluation_set.agreement, evaluation_set.classes
    guesses = accuracy_of_guesses(evaluation_set.real.classes, evaluation_set.labels, classes)
    if agreement.value > guesses + 1e-9:
        return ""
    return (
        f"the judge classifies {percent(agreement.value)} of the held-out images correctly (mean over the "
        f"classes), and answers that have nothing to do with the images get up to {percent(guesses)}"
    )


def excess_interval(judged: Judged, evaluation_set: EvaluationSet, label: int) -> Interval | None:
    """By how much the Fréchet distance of a class exceeds that of real images, as a fraction of these images'
    variance, at 95 %: at 1 the drawings are as far off as one grey picture, whatever the features."""
    drawn = judged.distance_by_class[label]
    real = evaluation_set.of_real.distance_by_class[label]
    if not drawn or not real:
        return None
    low, high = (drawn - real).interval
    variance = evaluation_set.variance_by_class[label]
    return low / variance, high / variance


def gan_train(
    drawn: Tensor, labels: Tensor, inputs: Inputs, kimg: float | None, progress: Progress = silent
) -> Judge:
    """A fresh class network that saw drawings only.

    It is trained as the judge was, seed included, for `kimg` or as long: so what the judge itself, which
    saw reals, gets on the hold-out is what this can be at best.
    """
    recipe = JudgeParams(**inputs.judge_facts["params"])
    if kimg is not None:
        recipe = recipe.model_copy(update={"total_kimg": kimg})
    hardware = choose_hardware(str(inputs.device), "auto")
    data = Images(drawn, labels, inputs.training.class_names)
    batch = min(recipe.batch_size, len(data))
    bar = functools.partial(progress, "GAN-train, on drawings", images_a_step=batch)
    return train_judge(data, recipe, hardware.device, hardware.precision, bar)
