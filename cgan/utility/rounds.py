"""The rounds that evidence averages over: what their classifiers learn from, and how often each is right.

All classifiers have the judge's network, recipe and number of steps, and learn from augmented images. A
round is a fold, with other tested images and a generator of its own, or a seed, with everything else the
same.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cgan.base.progress import Progress, silent
from cgan.data.arrays import IntArray, image_digests
from cgan.data.images import Images
from cgan.data.splitting import units_of
from cgan.models.hardware import Hardware
from cgan.params.sections import JudgeParams, TrainChoices
from cgan.quality.judge import Judge, load_judge, predict, save_judge, train_judge
from cgan.training.auto import Choice, choose
from cgan.training.loop import train_chosen
from cgan.utility import pretrained
from cgan.utility.effect import DRAWN, Outcome
from cgan.utility.sets import missing_labels, repeated_rows

LOGIT_ADJUSTED = "logit_adjusted"
METHOD_NAMES = {
    "augmented": "real images, augmented",
    "balanced_loss": "augmented, with a class-balanced loss",
    "repeated": "oversampled to equal counts, augmented",
    DRAWN: "filled up with drawings, augmented",
    LOGIT_ADJUSTED: "augmented, with logits adjusted afterwards",
    pretrained.PRETRAINED: "logistic regression on a pretrained network's features",
}
CLASSIFIERS = ("augmented", "balanced_loss", "repeated", DRAWN)  # the methods with one of their own
TIMED_KIMG = 1.0  # of a classifier, and
TIMED_STEPS = 30  # of a generator, by which the time is told beforehand
BASELINES = ("augmented", LOGIT_ADJUSTED, "balanced_loss", "repeated")


@dataclass(frozen=True)
class Round:
    """Trains classifiers on `training`, and keeps each in `folder`: after a kill those that are there are not
    trained again. `missing_labels` int64 [M]: of the images that would fill up the classes; `draw_missing`
    draws them, uint8 [M, C, H, W]. `units` int64 [N]: images of `test` with equal units belong together."""

    name: str
    training: Images
    missing_labels: Tensor
    draw_missing: Callable[[], Tensor]
    recipe: JudgeParams
    folder: Path
    hardware: Hardware
    test: Images
    units: Tensor

    def outcome(self, progress: Progress = silent) -> Outcome:
        """Train the classifiers that are not trained yet, and test all."""
        right, labels = {}, self.test.tensors.labels
        for number, name in enumerate(CLASSIFIERS, start=1):
            bar = partial(progress, f"{self.name}, classifier {number} of {len(CLASSIFIERS)}")
            logits = predict(self.classifier(name, bar), self.test.tensors.pixels).logits
            right[name] = logits.argmax(dim=1) == labels
            if name == "augmented":
                predicted = adjusted_logits(logits, self.training.tensors.labels).argmax(dim=1)
                right[LOGIT_ADJUSTED] = predicted == labels
        return Outcome(labels, self.units, right)

    def classifier_seconds(self) -> float:
        """Seconds that all its classifiers take, by the first images of one."""
        first = min(TIMED_KIMG, self.recipe.total_kimg)
        began = time.monotonic()
        train_judge(
            self.training, self.recipe.model_copy(update={"total_kimg": first}), self.hardware
        )
        return (time.monotonic() - began) * self.recipe.total_kimg / first * len(CLASSIFIERS)

    def classifier(self, name: str, progress: Progress) -> Judge:
        """The classifier of a method, from its file where it was trained before."""
        path = self.folder / f"{name}.safetensors"
        if not path.is_file():
            data, weights = self._learns_from(name)
            trained = train_judge(data, self.recipe, self.hardware, progress, weights)
            save_judge(path, trained, {"method": name})
        return load_judge(path)[0].to(self.hardware.device)

    def _learns_from(self, name: str) -> tuple[Images, Tensor | None]:
        """The images, and the weights of the classes in the loss."""
        if name in ("augmented", "balanced_loss"):
            balanced = name == "balanced_loss"
            return self.training, balanced_weights(self.training) if balanced else None
        pixels, labels, _ = self.training.tensors
        if name == DRAWN:
            more = self.draw_missing()
        else:
            more = pixels[repeated_rows(labels, self.missing_labels, self.recipe.seed)]
        both = torch.cat([labels, self.missing_labels])
        return Images(torch.cat([pixels, more]), both, self.training.class_names, notes=()), None


def rounds_by_fold(
    data: Images,
    fold_of: IntArray,
    training: TrainChoices,
    recipe: JudgeParams,
    per_class: int | None,
    seed: int,
    folder: Path,
    hardware: Hardware,
    progress: Progress = silent,
) -> list[Round]:
    """A round for each fold. Classifiers are tested on the fold, and learn from the other folds and from
    drawings of a generator that was trained on these alone, which fill up the classes to `per_class` images.
    `seed`: of the drawings of the first fold."""
    count = int(fold_of.max()) + 1
    units = torch.from_numpy(units_of(data))

    def fold_round(fold: int) -> Round:
        name = f"fold {fold + 1} of {count}"
        place = folder / f"fold-{fold + 1}"
        others = data.at(fold_of != fold)
        labels = missing_labels(others.tensors.counts, per_class)

        def draw_missing() -> Tensor:
            own = training.model_copy(update={"seed": training.seed + fold, "probes": 0})
            choice = choose(own, others)
            bar = partial(progress, f"{name}, generator", images_per_step=choice.params.batch_size)
            # A training that was cut off, or that is done, goes on from what its folder has.
            made = train_chosen(others, choice, folder=place / "generator", progress=bar)
            return made.generator.to(hardware.device).draw(labels, seed + fold)

        return Round(
            name=name,
            training=others,
            missing_labels=labels,
            draw_missing=draw_missing,
            recipe=with_seed(recipe, fold),
            folder=place,
            hardware=hardware,
            test=data.at(fold_of == fold),
            units=units[fold_of == fold],
        )

    return [fold_round(fold) for fold in range(count)]


def rounds_by_seed(
    training: Images,
    drawn: Images,
    test: Images,
    recipe: JudgeParams,
    count: int,
    folder: Path,
    hardware: Hardware,
) -> list[Round]:
    """A round for each seed of the classifiers, with everything else the same."""
    units = torch.from_numpy(units_of(test))
    return [
        Round(
            name=f"seed {seed + 1} of {count}",
            training=training,
            missing_labels=drawn.tensors.labels,
            draw_missing=lambda: drawn.tensors.pixels,
            recipe=with_seed(recipe, seed),
            folder=folder / f"seed-{seed + 1}",
            hardware=hardware,
            test=test,
            units=units,
        )
        for seed in range(count)
    ]


def with_pretrained(
    rounds: list[Round], outcomes: list[Outcome], progress: Progress = silent
) -> list[Outcome]:
    """The outcomes, with the answers of logistic regression on a pretrained network's features, which learnt
    from the real images."""
    # Training and test images of any round are all images that there are: each is looked at once.
    images = torch.cat([part.tensors.pixels for part in (rounds[0].training, rounds[0].test)])
    digests, rows = np.unique(image_digests(images.numpy()), return_index=True)
    features = pretrained.features(images[rows], progress)

    def features_of(part: Images) -> Tensor:
        return features[np.searchsorted(digests, image_digests(part.pixels))]

    extended = []
    for each, outcome in zip(rounds, outcomes, strict=True):
        known = each.training
        learnt = features_of(known)
        predicted = pretrained.predict(learnt, known.tensors.labels, features_of(each.test))
        right = {**outcome.right, pretrained.PRETRAINED: predicted == outcome.labels}
        extended.append(replace(outcome, right=right))
    return extended


def training_seconds(images: Images, choice: Choice) -> float:
    """Seconds that the training of a generator takes, by its first steps; 0 where there is none."""
    params = choice.params
    if not params.total_steps:
        return 0.0
    kimg = min(params.total_kimg, TIMED_STEPS * params.batch_size / 1000)
    short = replace(choice, params=params.model_copy(update={"total_kimg": kimg}))
    timed = train_chosen(images, short)
    return timed.wall_time_s / timed.step * params.total_steps


def with_seed(recipe: JudgeParams, number: int) -> JudgeParams:
    """The recipe with the seed of a round; the first has its own."""
    return recipe.model_copy(update={"seed": recipe.seed + number})


def adjusted_logits(logits: Tensor, labels: Tensor) -> Tensor:
    """Logits [N, classes] less the logarithm of how frequent each class was in the training `labels`, so that
    rare classes are not overlooked: no training (Menon et al., arXiv:2007.07314, post hoc, τ = 1)."""
    frequency = torch.bincount(labels, minlength=logits.shape[1]).clamp(min=1) / len(labels)
    return logits - frequency.log()


def balanced_weights(data: Images) -> Tensor:
    """The weight of each class in the loss, float32 [classes], of mean 1: by the effective number of its
    images (Cui et al., arXiv:1901.05555, β = 1 - 1/N)."""
    counts = data.tensors.counts.double()
    beta = 1 - 1 / len(data)
    weights = torch.where(counts > 0, (1 - beta) / (1 - beta ** counts.clamp(min=1)), 0.0)
    return (weights / weights[counts > 0].mean()).float()
