"""A generator evaluated: its drawings beside real images, by a judge. `evaluate` is for everybody; the gate
takes `Conditions`, under which it measures two generators alike."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from cgan.errors import CganError, DataError
from cgan.evaluation import METRICS, ClassScores, Evaluation, Interval, Score
from cgan.images import Images, image_digests
from cgan.model.generative import GenerativeModel
from cgan.model.hardware import choose_hardware
from cgan.model.model_file import digest_of
from cgan.notebook import progress_bar
from cgan.params.sections import EvaluateParams, JudgeParams
from cgan.quality.comparison import Estimate, EvaluationSet, Judged
from cgan.quality.diversity import diversity_by_class
from cgan.quality.intervals import proportion_interval
from cgan.quality.judge import (
    Judge,
    Prediction,
    Progress,
    accuracy,
    look,
    require_judge_of,
    silent,
    train_judge,
)
from cgan.quality.likeness import MAX_SHIFT, find_replicas
from cgan.quality.metrics import (
    NEIGHBOURS,
    accuracy_of,
    accuracy_of_guesses,
    conditional_accuracy,
    in_mix,
)
from cgan.settings import as_keywords
from cgan.text import listed, percent

KNOWN_BY_HEART = (
    "training images; too few are held out to know what the judge knows of them by heart",
    "training images, less what the judge knows of them by heart",
)
DIGITS = 7  # of replicates
LEAST_PER_CLASS = 100  # drawings: of less than 35, all right would not show that 90 % are
DRAWN_S = (
    60.0  # of a core, which the drawings to be judged take; longer only for LEAST_PER_CLASS of them
)


class HasModel(Protocol):
    """As `cgan.Generator`: what draws is its `model`."""

    @property
    def model(self) -> GenerativeModel: ...


@as_keywords()
def evaluate(
    generator: HasModel | GenerativeModel,
    train: Images,
    held_out: Images,
    *,
    judge: Judge | None = None,
    test: Images | None = None,
    params: EvaluateParams | None = None,
    progress: Progress = progress_bar,
) -> Evaluation:
    """How good a generator's drawings are, beside real images.

    `train`: the images that it learnt from; `held_out`: others of the same classes and size, which neither
    it nor the judge has seen. `judge`: a network that was trained to name the classes of `train`
    (`cgan.quality.judge.train_judge`); without one, one is trained first, which takes seconds to minutes.
    `test`: further images of these classes, on which only the judge is tested. `params`: how many drawings,
    how often, with which seed. Equal arguments give equal numbers on one machine with one version of torch.

    Raises DataError where the images are not of one kind, or too few.
    """
    model = getattr(generator, "model", generator)
    if not isinstance(model, GenerativeModel):
        raise CganError(
            f"cgan.evaluate: expected a generator first, found {type(generator).__name__}. Give "
            "`run.generator` or `cgan.Generator.load(path)`; then the images to train on, and those held out."
        )
    params = params or EvaluateParams()
    _require_alike(model, train, held_out, test)
    if judge is None:
        judge = _default_judge(train, model, progress)
    require_judge_of(judge, train)
    conditions = Conditions.of(judge.to(model.device), train, held_out, params, [model])
    draws = [
        model.draw(conditions.asked, params.seed + n)
        for n in progress("drawing", range(params.draws), len(conditions.asked))
    ]
    evaluation = conditions.measure(draws, progress)
    context = conditions.context(digest_of(model.state_dict())) | {"draws": params.draws}
    return replace(
        evaluation,
        context=context | {"neighbours": NEIGHBOURS},
        judge_on_test_set=_on_test_set(judge, test) if test else None,  # it may have no images
    )


def _require_alike(
    model: GenerativeModel, train: Images, held_out: Images, test: Images | None
) -> None:
    """Raises DataError where generator and images don't fit together."""
    kinds = {
        "the generator": (model.classes, *model.shape),
        "the held-out images": (held_out.classes, *held_out.shape),
    }
    if test:
        kinds["the test images"] = (test.classes, *test.shape)
    expected = (train.classes, *train.shape)
    for name, kind in kinds.items():
        if kind != expected:
            raise DataError(
                f"{name}: {_in_words(kind)}; expected those of the training images, {_in_words(expected)}. "
                "Give images and a generator of the same classes and size."
            )
    require_same_classes(train, held_out=held_out, **({"test": test} if test else {}))
    if shared := shared_images(train, held_out):
        raise DataError(
            f"the held-out images: {shared:,} of {len(held_out):,} are training images too, expected none. "
            "Divide the images with `Images.split`, which keeps copies together."
        )


def require_kind(model: GenerativeModel, **parts: Images) -> None:
    """Raises DataError where one of `parts`, which are named as arguments, is not of the generator's kind."""
    expected = model.classes, *model.shape
    for name, images in parts.items():
        if (found := (images.classes, *images.shape)) != expected:
            raise DataError(
                f"{name}: expected the generator's classes, channels, height and width, {expected}; found "
                f"{found}. Give the images it was trained on, and others of the same kind."
            )


def require_same_classes(train: Images, **others: Images) -> None:
    """Raises DataError where a label means another class in one of `others`, which are named as arguments."""
    for name, images in others.items():
        if images.is_named and train.is_named and images.class_names != train.class_names:
            raise DataError(
                f"{name}: expected the classes of train in its order, {listed(train.class_names)}; found "
                f"{listed(images.class_names)}. Make both by `Images.split`, or with one `class_names`."
            )


def _in_words(kind: tuple[int, ...]) -> str:
    classes, channels, height, width = kind
    return f"{classes} classes of {height} × {width} × {channels} (height, width, channels)"


def shared_images(train: Images, held_out: Images) -> int:
    """How many of the held-out images are training images, too."""
    held, trained = (image_digests(part.pixels) for part in (held_out, train))
    return int(np.isin(held, trained).sum())


def _default_judge(train: Images, model: GenerativeModel, progress: Progress) -> Judge:
    recipe, hardware = JudgeParams(), choose_hardware(str(model.device), "auto")
    bar = functools.partial(progress, "judge", images_a_step=min(recipe.batch_size, len(train)))
    return train_judge(train, recipe, hardware.device, hardware.precision, bar)


def _on_test_set(judge: Judge, test: Images) -> Score:
    """How often the judge is right there."""
    right = accuracy(judge, test)
    return Score(value=right.value, interval=right.interval, details={"images": len(test)})


@dataclass(frozen=True, eq=False)
class Conditions:
    """Under which generators are measured alike: the judge, both parts of the data, the classes asked for,
    and the latents' seed."""

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
        """For these generators. Raises DataError where there are too few images."""
        asked = classes_asked(
            train.classes, params, max(model.seconds_per_drawing for model in models)
        )
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
            "floor": KNOWN_BY_HEART[bool(self.against.by_heart)],
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
        seen: Sequence[Prediction] = (),
    ) -> Evaluation:
        """Drawings (uint8 [N, C, H, W] each, of the classes `asked`) beside real images; `seen`: the drawings
        in the judge's eyes, where they are known.

        With several draws a metric is their mean. Where the judge may be no better than one that guesses,
        what is seen through it has no value, and `not_measurable` says why.
        """
        train, held_out, labels, evaluation_set = (
            self.train,
            self.held_out,
            self.asked,
            self.against,
        )
        agreement, of_real = evaluation_set.agreement, evaluation_set.of_real
        judged = [
            evaluation_set.judge_seen(seen[n] if seen else look(self.judge, draws[n]))
            for n in progress("judging", range(len(draws)), len(labels))
        ]
        metrics = {
            key: _score(key, Estimate.mean([each.metrics[key] for each in judged]), real)
            for key, real in of_real.metrics.items()
        }
        accuracy = accuracy_of(torch.stack([each.accuracy.confusion for each in judged]).sum(dim=0))
        metrics["conditional_accuracy"] = replace(
            metrics["conditional_accuracy"],
            interval=accuracy.interval,
            real_interval=agreement.interval,
            details={"constant": 1 / train.classes},
        )
        # Without an interval: it is the smallest of many, and that of a single class would lie too low.
        metrics["worst_class_accuracy"] = replace(metrics["worst_class_accuracy"], interval=None)
        distances = [each.metrics["fid_judge"].value for each in judged]
        deviation = statistics.stdev(distances) if len(distances) > 1 else 0.0
        metrics["fid_judge"] = replace(metrics["fid_judge"], details={"deviation": deviation})
        through_judge = [*metrics]
        diverse = diversity_by_class(draws[0], labels, train)
        if known := [estimate for estimate in diverse if estimate]:
            metrics["worst_class_diversity"] = _least_diverse(known)
        near = find_replicas(draws[0], labels, train, held_out, self.params.seed)
        closer = evaluation_set.share(near.is_replica)
        copied, compared = (
            each.bincount(minlength=train.classes).tolist()
            for each in (near.labels[near.is_replica], near.labels)
        )
        metrics["copies"] = replace(
            _score("copies", closer, near.real),
            interval=proportion_interval(closer.value, len(near.is_replica)),
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
                diversity_replicates=_centred(diversity) if diversity else (),
                copies=copied[label],
                compared=compared[label],
            )
            for label, (count, diversity) in enumerate(
                zip(evaluation_set.held.tolist(), diverse, strict=True)
            )
        ]
        reason = _why_not_measurable(evaluation_set)
        if reason:
            real = metrics["conditional_accuracy"]  # the judge's own accuracy stays
            metrics |= dict.fromkeys(through_judge, Score())
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
            metrics["gan_train_accuracy"] = self._gan_train(draws[0], progress)
        return Evaluation(
            metrics={key: metrics[key] for key in METRICS if key in metrics},
            classes=classes,
            confusion=accuracy.confusion.tolist(),
            not_measurable=reason,
            class_names=train.class_names if train.is_named else None,
        )

    def _gan_train(self, drawn: Tensor, progress: Progress) -> Score:
        rows, against = self.against.rows, self.against
        data = Images(drawn[rows], self.asked[rows], self.train.class_names)
        student = gan_train(data, self.judge, self.params.gan_train_kimg, progress)
        pixels, labels, _ = self.held_out.tensors
        predicted = look(student, pixels).classes
        mean = against.of_heldout(predicted)["conditional_accuracy"]
        return replace(
            _score("gan_train_accuracy", mean, against.agreement.value),
            interval=conditional_accuracy(predicted, labels, self.train.classes).interval,
            real_interval=against.agreement.interval,
        )


def classes_asked(classes: int, params: EvaluateParams, seconds: float = 0.0) -> Tensor:
    """The class of each drawing, int64 [N]: in turn; more than `samples` where there are many classes, fewer
    where one takes `seconds`."""
    least = LEAST_PER_CLASS * classes
    count = max(params.samples, least)
    if seconds:
        count = min(count, max(least, int(DRAWN_S / seconds)))
    return torch.arange(count) % classes


def _score(key: str, estimate: Estimate, real: Estimate | float) -> Score:
    return Score(
        value=estimate.value,
        real=real.value if isinstance(real, Estimate) else real,
        interval=METRICS[key].bounded(estimate.interval),
        replicates=_centred(estimate),
        real_replicates=_centred(real) if isinstance(real, Estimate) else (),
    )


def _centred(estimate: Estimate) -> tuple[float, ...]:
    """The replicates less the value."""
    replicates = estimate.replicates - estimate.replicates.mean()
    return tuple(round(value, DIGITS) for value in replicates.tolist())


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


def gan_train(data: Images, judge: Judge, kimg: float | None, progress: Progress = silent) -> Judge:
    """A fresh class network that learns from `data`, drawings, alone.

    It is trained as the judge was, seed included, for `kimg` or as long: so what the judge itself, which
    saw reals, gets on the hold-out is what this can be at best.
    """
    recipe = judge.recipe or JudgeParams()
    if kimg is not None:
        recipe = recipe.model_copy(update={"total_kimg": kimg})
    hardware = choose_hardware(str(next(judge.parameters()).device), "auto")
    batch = min(recipe.batch_size, len(data))
    bar = functools.partial(progress, "GAN-train, on drawings", images_a_step=batch)
    return train_judge(data, recipe, hardware.device, hardware.precision, bar)
