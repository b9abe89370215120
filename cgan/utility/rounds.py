"""The rounds that evidence averages over: what their classifiers learn from, and how often each is right.

All classifiers have the judge's network, recipe and number of steps, and learn from augmented images. A
round is a fold, with other tested images and a generator of its own, or a seed, with all else the same.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cgan.base.errors import CganError, DataError
from cgan.base.files import fingerprint
from cgan.base.progress import Progress, silent
from cgan.data.arrays import IntArray, image_digests
from cgan.data.images import Images
from cgan.data.splitting import units_of
from cgan.models.hardware import Hardware, choose_hardware
from cgan.params.sections import AutoTrainParams, JudgeParams
from cgan.quality.judge import Judge, load_judge, predict, save_judge, train_judge
from cgan.training.auto import Choice, choose
from cgan.training.loop import train_chosen
from cgan.training.provenance import determining_facts
from cgan.utility import pretrained
from cgan.utility.effect import DRAWN, Outcome

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
TIMED_KIMG = 1.0  # of a classifier, by which its time is told beforehand
TIMED_STEPS = 30  # of a generator, likewise
MAX_EQUAL_RATIO = 1.25  # of the largest class to the smallest: up to it classes are about equal
BASELINES = ("augmented", LOGIT_ADJUSTED, "balanced_loss", "repeated")


@dataclass(frozen=True, eq=False)
class PartGenerator:
    """A generator to be trained on `images`, a part of all, that draws `labels` int64 [M] by `seed`. A
    folder in `folder` keeps its checkpoints, from which an interrupted training goes on."""

    name: str
    images: Images
    training: AutoTrainParams
    folder: Path
    labels: IntArray
    seed: int
    progress: Progress

    @cached_property
    def choice(self) -> Choice:
        return choose(self.training.model_copy(update={"probes": 0}), self.images)

    @property
    def hardware(self) -> Hardware:
        return choose_hardware(self.training.device, self.training.precision)

    @property
    def own_folder(self) -> Path:
        """Named by all that determines it."""
        facts = determining_facts(self.choice.params, self.images, self.hardware, judge="")
        return self.folder / fingerprint(facts)

    def seconds(self) -> float:
        """About how long the training takes, by its first steps; 0 where there is none."""
        params = self.choice.params
        if not params.total_steps:
            return 0.0
        kimg = min(params.total_kimg, TIMED_STEPS * params.batch_size / 1000)
        short = params.model_copy(update={"total_kimg": kimg})
        timed = train_chosen(self.images, replace(self.choice, params=short))
        return timed.wall_time_s / timed.step * params.total_steps

    def drawings(self) -> Images:
        """The drawings; it is trained first."""
        batch_size = self.choice.params.batch_size
        bar = partial(self.progress, self.name, images_per_step=batch_size)
        made = train_chosen(self.images, self.choice, folder=self.own_folder, progress=bar)
        model = made.generator.to(self.hardware.device)
        pixels = model.draw(torch.from_numpy(self.labels), self.seed, self.progress)
        return Images(pixels, self.labels, self.images.class_names, notes=())


@dataclass(frozen=True)
class Round:
    """Trains classifiers on `training`, and keeps each in `folder`: after a kill those that are there are not
    trained again. `drawn` fills up the classes: drawings, or what will draw them. `units` int64 [N]: images
    of `test` with equal units belong together."""

    name: str
    training: Images
    drawn: Images | PartGenerator
    test: Images
    units: IntArray
    recipe: JudgeParams
    folder: Path
    hardware: Hardware

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
        return Outcome(labels, torch.from_numpy(self.units), right)

    def seconds(self) -> float:
        """About how long it takes, by the first steps of a classifier, and of the generator."""
        kimg = min(TIMED_KIMG, self.recipe.total_kimg)
        short = self.recipe.model_copy(update={"total_kimg": kimg})
        began = time.monotonic()
        train_judge(self.training, short, self.hardware)
        seconds = (time.monotonic() - began) * self.recipe.total_kimg / kimg * len(CLASSIFIERS)
        return seconds + (self.drawn.seconds() if isinstance(self.drawn, PartGenerator) else 0.0)

    def classifier(self, name: str, progress: Callable[..., Iterator[int]]) -> Judge:
        """The classifier of a method, from its file where it was trained before."""
        path = self.folder / f"{name}.safetensors"
        if not path.is_file():
            weights = balanced_weights(self.training) if name == "balanced_loss" else None
            data = self._learns_from(name)
            trained = train_judge(data, self.recipe, self.hardware, progress, weights)
            save_judge(path, trained, {"method": name})
        return load_judge(path)[0].to(self.hardware.device)

    def _learns_from(self, name: str) -> Images:
        """The images that a method learns from."""
        if name in ("augmented", "balanced_loss"):
            return self.training
        pixels, labels, _ = self.training.tensors
        missing = torch.from_numpy(self.drawn.labels)
        if name == "repeated":
            more = pixels[repeated_rows(labels, missing, self.recipe.seed)]
        else:
            drawn = self.drawn if isinstance(self.drawn, Images) else self.drawn.drawings()
            more = drawn.tensors.pixels
        both = torch.cat([pixels, more]), torch.cat([labels, missing])
        return Images(*both, self.training.class_names, notes=())


def rounds_by_fold(
    data: Images,
    fold_of: IntArray,
    training: AutoTrainParams,
    per_class: int | None,
    seed: int,
    recipe: JudgeParams,
    folder: Path,
    hardware: Hardware,
    progress: Progress = silent,
) -> list[Round]:
    """A round for each fold. Classifiers are tested on the fold, and learn from the other folds and from
    drawings of a generator that was trained on these alone, which fill up the classes to `per_class` images.
    `seed`: of the drawings of the first fold."""
    units, count = units_of(data), int(fold_of.max()) + 1

    def fold_round(fold: int) -> Round:
        name, place = f"fold {fold + 1} of {count}", folder / f"fold-{fold + 1}"
        others, tested = data.at(fold_of != fold), fold_of == fold
        own = training.model_copy(update={"seed": training.seed + fold})
        labels = missing_labels(others.tensors.counts, per_class).numpy()
        drawn = PartGenerator(
            f"{name}, generator", others, own, place / "generator", labels, seed + fold, progress
        )
        own_recipe = with_seed(recipe, fold)
        return Round(
            name, others, drawn, data.at(tested), units[tested], own_recipe, place, hardware
        )

    return [fold_round(fold) for fold in range(count)]


def rounds_by_seed(
    training: Images,
    drawn: Images,
    test: Images,
    count: int,
    recipe: JudgeParams,
    folder: Path,
    hardware: Hardware,
) -> list[Round]:
    """A round for each seed of the classifiers, with everything else the same."""
    first = Round("", training, drawn, test, units_of(test), recipe, folder, hardware)
    return [
        replace(
            first,
            name=f"seed {seed + 1} of {count}",
            recipe=with_seed(recipe, seed),
            folder=folder / f"seed-{seed + 1}",
        )
        for seed in range(count)
    ]


def with_pretrained(
    rounds: list[Round], outcomes: list[Outcome], progress: Progress = silent
) -> list[Outcome]:
    """The outcomes, with those of logistic regression on a pretrained network's features."""
    # Training and test images of any round are all images that there are: each is looked at once.
    images = torch.cat([part.tensors.pixels for part in (rounds[0].training, rounds[0].test)])
    digests, rows = np.unique(image_digests(images.numpy()), return_index=True)
    features = pretrained.features(images[rows], progress)

    extended = []
    for each, outcome in zip(rounds, outcomes, strict=True):
        learnt, asked = (
            features[np.searchsorted(digests, image_digests(part.pixels))]
            for part in (each.training, each.test)
        )
        predicted = pretrained.predict(learnt, each.training.tensors.labels, asked)
        right = {**outcome.right, pretrained.PRETRAINED: predicted == outcome.labels}
        extended.append(replace(outcome, right=right))
    return extended


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


def missing_labels(counts: Tensor, per_class: int | None = None) -> Tensor:
    """The label of each image that the classes lack, int64 [M]: `per_class`, less what each of them has; by
    default as many as the largest has, or twice that where all have about as many. Classes without an image
    are left out, as no generator learnt them. Raises CganError where none lacks any."""
    if per_class is None:
        most = int(counts.max())
        per_class = most if most > MAX_EQUAL_RATIO * int(counts.min()) else 2 * most
    lacking = torch.where(counts > 0, (per_class - counts).clamp(min=0), 0)
    labels = torch.repeat_interleave(lacking)
    if not len(labels):
        raise CganError(
            f"`per_class={per_class}`: every class already has as many images (the smallest has "
            f"{int(counts.min()):,}). Ask for more."
        )
    return labels


def repeated_rows(labels: Tensor, wanted: Tensor, seed: int) -> Tensor:
    """The row of an image of each label `wanted`; those of a class take turns, in random order."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    found = torch.zeros_like(wanted)
    for label in wanted.unique():
        rows = order[labels[order] == label]
        places = wanted == label
        found[places] = rows[torch.arange(int(places.sum())) % len(rows)]
    return found


def assign_folds(
    labels: IntArray, units: IntArray, count: int, seed: int, names: list[str]
) -> IntArray:
    """The fold of each image, int64 [N], 0 to `count` - 1.

    Images of one unit (`splitting.units_of`) share a fold, and each class is spread as evenly as its
    units allow, the rarest class first. Raises DataError where some fold would leave a class without an image
    to train on.
    """
    by_rarity = np.argsort(np.bincount(labels, minlength=len(names)), kind="stable")
    _, unit_of, sizes = np.unique(units, return_inverse=True, return_counts=True)
    unit_counts = np.zeros((len(sizes), len(names)), np.int64)  # images of each class in each unit
    np.add.at(unit_counts, (unit_of, labels), 1)
    # Of a unit's rarest class: 0 is the rarest.
    rarity = (unit_counts[:, by_rarity] > 0).argmax(axis=1)
    random = np.random.default_rng(seed).random(len(sizes))
    held = np.zeros((count, len(names)), np.int64)  # images of each class in each fold
    fold_of = np.empty(len(sizes), np.int64)
    # Of units with equal rarity the large ones come first: the small ones level out.
    for unit in np.lexsort((random, -sizes, rarity)):
        # The fold with the fewest images of the unit's rarest class; of these, with the fewest of all.
        fold_of[unit] = np.lexsort((held.sum(axis=1), held[:, by_rarity[rarity[unit]]]))[0]
        held[fold_of[unit]] += unit_counts[unit]
    for label in np.flatnonzero(held.sum(axis=0)):
        if held[:, label].max() == held[:, label].sum():
            raise DataError(
                f"class {names[label]}: all its distinct images are in one of {count} folds, so no "
                "classifier could learn the class from the others. Add images of this class, or remove it."
            )
    return fold_of[unit_of]
